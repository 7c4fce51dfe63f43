"""Output that repeats, word for word, texts that the model may have been trained on."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import resource
from lmfuzz.objectives.suffixes import BETWEEN, Suffixes
from lmfuzz.plugins.bounds import Several
from lmfuzz.protocols import ForTexts
from lmfuzz.types import PAD, Batch, BoolArray, Evidence, FloatArray, IntArray, Trace

PASSAGE = 20  # lines of the longest paragraph that is one bucket
SHOWN = 80  # characters of a stretch in the evidence


class Memorised(ForTexts):
    """Find outputs that contain a stretch of ``tokens`` or more verbatim from the files of a folder.

    The length of a stretch of characters is the number of the model's tokens that lie in it as a whole.
    Tokens that add nothing (a second blank, all but the last piece of a character) do not count.

    What the prompt gave away is echoed, not memorised: a stretch never holds half of ``tokens`` or more in a
    row (rounded up) that are in the prompt as well. Only the output is looked at: if the prompt begins a
    passage and the output continues it, then only the output's part counts.

    The default is for tokens of several characters: of 2 213 windows of 200 characters of Tiny Shakespeare,
    13 % share 20 characters in a row with another part of it, 0.3 % share 30, and none 40 (for models of
    characters take 50).

    Margins: (n + 1/2) / ``tokens`` - 1 for the longest stretch, of n tokens, so never 0. The search is exact,
    by a suffix array. It takes 0.3 s to build for 1.1 MB of plays and 7 s for 11 MB of programs, and up to
    100 bytes of memory per byte (10 are kept). Then 64 outputs of 200 characters take 20 ms, or 50 ms if all
    of them are memorised (one core).

    The signature is the file and line at which the passage begins that the stretch begins in. A passage is
    a paragraph, after an empty line, since outputs enter a passage here and there; in paragraphs of more
    than 20 lines it is the line itself. If a stretch is in several places, the first in the order of files
    counts.

    Args:
        folder: a folder, all UTF-8 files below which are compared with, or one file; it may begin with
            ``corpora:``. Of a .jsonl file the strings in its values are compared with.
        tokens: the tokens of the shortest stretch that is a finding.
        normalise: whether a run of blanks and line ends counts as one blank, in the files and in the output.
    """

    needs = frozenset({"text", "prompt", "token_ends"})
    targets = ("memorised",)

    def __init__(self, folder: str, tokens: Several = 20, normalise: bool = True) -> None:
        self.tokens, self.normalise = tokens, normalise
        self.least_echo = (tokens + 1) // 2  # tokens
        self._sources = _Sources(resource(folder), normalise)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        longest = np.array([stop - start for _, start, stop in self._stretches(trace)])
        return ((longest + 0.5) / self.tokens - 1).astype(np.float32)[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the longest stretch, and the file and line it is in; raise ValueError if there is none."""
        ((tokens, start, stop),) = self._stretches({name: trace[name][row : row + 1] for name in self.needs})
        if start == stop:
            raise ValueError("nothing of the output is in the texts")
        begin, end = int(tokens.begins[start]), int(tokens.ends[stop - 1])
        stretch = tokens.text[begin:end]
        passage, place = self._sources.place(stretch)
        shown = stretch if len(stretch) <= SHOWN else f"{stretch[: SHOWN // 2]}...{stretch[-SHOWN // 2 :]}"
        span = int(tokens.places[begin]), int(tokens.places[end])
        return Evidence(passage, f"{stop - start} tokens stand in {place}: '{shown}'", span)

    def _stretches(self, trace: Trace) -> list[tuple["_Tokens", int, int]]:
        """Return the longest stretch of every row: its first token, and the one after its last."""
        written = zip(trace["text"], trace["token_ends"], strict=True)
        rows = [_Tokens.of(text, ends[ends != PAD], self.normalise) for text, ends in written]
        lengths = self._sources.suffixes.longest([row.text for row in rows], [row.begins for row in rows])
        found = []
        for tokens, length, prompt in zip(rows, lengths, trace["prompt"], strict=True):
            first = np.arange(len(length))
            stops = np.searchsorted(tokens.ends, tokens.begins + length, side="right")
            if (stops - first).max(initial=0) >= self.least_echo:
                given = _normal(prompt)[0] if self.normalise else prompt
                stops = np.minimum(stops, tokens.before_echo(given, self.least_echo))
            best = int((stops - first).argmax()) if len(first) else 0
            found.append((tokens, best, int(stops[best]) if len(first) else 0))
        return found


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Hold a text as it is compared, and those of its tokens that add a character.

    Attributes:
        text: the text, normalised if that was asked for.
        begins: where each token begins in it (T,).
        ends: where each token ends in it (T,).
        places: where each of its characters was in the original text, then the length of that.
    """

    text: str
    begins: IntArray
    ends: IntArray
    places: IntArray

    @classmethod
    def of(cls, text: str, token_ends: IntArray, normalise: bool) -> "_Tokens":
        """Return the tokens of ``text``; token_ends: (T,) how many of its characters each token completes."""
        same, kept = _normal(text) if normalise else (text, np.ones(len(text), np.bool_))
        until = np.concatenate([[0], np.cumsum(kept)])  # characters kept before each place
        bounds = np.unique(np.append(until[token_ends], 0))
        return cls(same, bounds[:-1], bounds[1:], np.append(np.flatnonzero(kept), len(text)))

    def before_echo(self, prompt: str, least: int) -> IntArray:
        """Return where a stretch from each token on (T,) must stop, or ``least`` tokens would be echoed."""
        stops = np.full(len(self.ends), len(self.ends))
        pieces = zip(self.begins.tolist(), self.ends[least - 1 :].tolist(), strict=False)
        echoed = [first for first, (begin, end) in enumerate(pieces) if self.text[begin:end] in prompt]
        stops[echoed] = np.array(echoed, np.int64) + least - 1
        return np.minimum.accumulate(stops[::-1])[::-1]


class _Sources:
    """Hold all texts to compare with as one, and to which line of which file each place in it belongs."""

    def __init__(self, folder: Path, normalise: bool) -> None:
        data = bytearray(BETWEEN)
        self._names: list[str] = []
        lines: list[tuple[int, int, int, int]] = []  # first byte, file, number, number of the passage's first
        for name, text in _texts(folder):
            self._names.append(name)
            for number, step, record in _records(name, text):
                data += b" " * normalise
                for offset, passage, line in _lines(record, normalise):
                    at = number + step * offset, number + step * passage
                    lines.append((len(data), len(self._names) - 1, *at))
                    data += line.encode("utf-8", "surrogatepass") + (b" " if normalise else b"\n")
                data[len(data) - (not normalise) :] = BETWEEN  # nothing follows a text's last line
        if not data.strip(BETWEEN + b" \n"):
            raise UsageError(f"memorised: {folder} holds no UTF-8 text; name a file or folder that does")
        self._lines = np.array(lines)
        self.suffixes = Suffixes(bytes(data))

    def place(self, stretch: str) -> tuple[str, str]:
        """Return ``file:line`` of the passage, and of the line, in which a stretch first begins."""
        blanks = len(stretch) - len(stretch.lstrip())
        at = self.suffixes.data.index(stretch.encode("utf-8", "surrogatepass")) + blanks
        line = max(0, int(np.searchsorted(self._lines[:, 0], at, side="right")) - 1)
        _, file, number, passage = self._lines[line].tolist()
        return f"{self._names[file]}:{passage}", f"{self._names[file]}:{number}"


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of a file, or of all UTF-8 files below a folder that are not hidden."""
    if not folder.exists():
        raise UsageError(f"memorised: there is no file or folder {folder}")
    root = folder if folder.is_dir() else folder.parent
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        name = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") for part in name.parts if folder.is_dir()):
            continue
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        except OSError as error:
            raise UsageError(f"memorised: cannot read {path}: {error.strerror}") from None
        if "\0" not in text:
            yield name.as_posix(), text.replace("\r\n", "\n")


def _records(name: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Yield each text of a file, after its first line in the file and how far its lines are apart there."""
    if not name.endswith(".jsonl"):
        yield 1, 1, text
        return
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = line
        yield from ((number, 0, string) for string in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    """Yield all strings in a value of JSON except keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _lines(text: str, normalise: bool) -> Iterator[tuple[int, int, str]]:
    """Yield each line, after its number (from 0) and that of its passage; no blank ones if normalised."""
    lines = text.split("\n")
    blank = [not line.strip() for line in lines]
    edges = [-1, *(number for number, empty in enumerate(blank) if empty), len(lines)]
    for before, after in pairwise(edges):
        for number in range(max(before, 0), after):
            passage = min(before + 1, number) if after - before - 1 <= PASSAGE else number
            if not normalise:
                yield number, passage, lines[number]
            elif not blank[number]:
                yield number, passage, " ".join(lines[number].split())


def _normal(text: str) -> tuple[str, BoolArray]:
    """Return the text with one space for each run of blanks, and which characters (T,) were kept."""
    blank = np.fromiter(map(str.isspace, text), np.bool_, len(text))
    kept = np.ones(len(text), np.bool_)
    kept[1:] = ~(blank[1:] & blank[:-1])
    return re.sub(r"\s+", " ", text), kept
