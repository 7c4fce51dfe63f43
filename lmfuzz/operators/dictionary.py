"""An operator on dictionaries in the format of libFuzzer (``-dict``) and AFL (``-x``)."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.reading import read_text
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.pieces import PerSpace, Piece, places, put
from lmfuzz.protocols import ForTexts, MutationContext
from lmfuzz.types import Batch

ENTRY = re.compile(r'(?:[^\s"=#]+\s*=\s*)?"((?:[^"\\]|\\.)*)"')  # name="...", name@level="..." or "..."
ESCAPE = re.compile(r'\\(?:(["\\])|x([0-9A-Fa-f]{2})|.)')

_KEPT = "surrogateescape"  # what to do with bytes that are not text


def parse(content: str, file: str) -> list[str]:
    r"""Return the entries of a dictionary file, each once, in order.

    A line is empty, a comment (``#``), or an entry in double quotes after an optional name and level. Entries
    of all levels are used. Escapes are ``\\``, ``\"`` and ``\xNN``, one byte of UTF-8. A byte that is not
    part of a character becomes half a surrogate, which no alphabet has.

    Args:
        content: the text of the file.
        file: its name for error messages.

    Raises:
        UsageError: if a line is anything else; the message names file and line.
    """
    entries = []
    for number, line in enumerate(map(str.strip, content.split("\n")), start=1):
        try:
            if line and not line.startswith("#"):
                entries.append(_entry(line))
        except ValueError as error:
            raise UsageError(f"{file}, line {number}: {error}") from None
    return list(dict.fromkeys(entries))


def _entry(line: str) -> str:
    """Return the text of an entry; raise ValueError for its form."""
    match = ENTRY.fullmatch(line)
    if match is None:
        raise ValueError(f'{line!r} is not an entry; write name="value" or "value"')
    if not match[1]:
        raise ValueError("an entry must not be empty")
    return ESCAPE.sub(_unescaped, match[1]).encode("utf-8", _KEPT).decode("utf-8", _KEPT)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        return escape[1]
    if escape[2]:
        byte = int(escape[2], 16)
        return chr(byte) if byte < 128 else chr(0xDC00 + byte)  # a surrogate, until all bytes are known
    raise ValueError(f'{escape[0]} is not an escape; write \\\\, \\" or \\xNN')


class Dictionary(ForTexts):
    """Insert an entry of a libFuzzer or AFL dictionary, or overwrite what is there.

    The entries are those of ``file`` and the plain texts ``entries``. An entry is skipped if the model's
    alphabet lacks a symbol of it, or if it is longer than a prompt may be. Raises UsageError if there is no
    entry, and at the first call if all of them are skipped.
    """

    def __init__(self, file: str = "", entries: Sequence[str] = ()) -> None:
        self.file = file
        listed = parse(read_text(Path(file), "dictionary"), file) if file else []
        self.entries = [*dict.fromkeys([*listed, *filter(None, entries)])]
        if not self.entries:
            empty = f'the dictionary {file} has no entry; write one per line, name="value" or "value"'
            missing = 'dictionary needs entries: dictionary:file=words.dict or dictionary:entries=["thou"]'
            raise UsageError(empty if file else missing)
        self._encoded = PerSpace(self._encode)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        words = self._encoded(context.text)
        words = words[context.rng.integers(len(words), size=len(rows))]
        over = np.where(context.rng.random(len(rows)) < 0.5, words.lengths, 0)
        at = places(np.maximum(rows.lengths - over, 0) + 1, context.rng)
        return put(rows, at, over, Piece(words.data, np.zeros_like(at), words.lengths), context)

    def notes(self, space: TextSpace, steps: int | None = None) -> list[str]:
        """Return a line about the entries that are skipped, if there are any."""
        skipped = len(self.entries) - len(self._encoded(space))
        where = f" {self.file}" if self.file else ""
        return (
            [f"entries of the dictionary{where} that no prompt can hold, skipped: {skipped}"]
            if skipped
            else []
        )

    def _encode(self, space: TextSpace) -> Batch:
        known = [space.encode(entry) for entry in self.entries if space.knows(entry)]
        fitting = [entry for entry in known if len(entry) <= space.max_length]
        if not fitting:
            raise UsageError(
                f"no entry of the dictionary {self.file or self.entries} can be used; give one that is "
                f"written in the model's alphabet and has at most {space.max_length} symbols"
            )
        return Batch.of(fitting)
