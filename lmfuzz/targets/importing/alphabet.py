"""The alphabet of a checkpoint: in the checkpoint itself, in a file, or as a text."""

import io
import json
import os
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lmfuzz.errors import UsageError, explaining
from lmfuzz.targets.importing.state_dict import DEPTH
from lmfuzz.text import plural

PRINTABLE = "printable"
_FILE = re.compile(r"[^\n]+\.(txt|json|pkl|pickle)")
_KEYS = re.compile(
    r"(all_?)?(alphabet|char(acter)?s?|vocab(ulary)?|tokens|symbols|stoi|itos|char_indices|indices_char"
    r"|(char|token|idx|index|int|ix|id|i|c)(2|_?to_?)\w+)",
    re.IGNORECASE,
)


def choose(content: Any, given: str, allow_pickle: bool, size: int, place: str) -> str:
    """Return the alphabet of a model that knows ``size`` symbols.

    Args:
        content: What the checkpoint holds.
        given: A file, a text, or ``printable``; '' looks into the checkpoint.
        allow_pickle: Whether the file may be a pickle, of which only plain data are read.
        size: The number of symbols.
        place: The tensor that says how many there are, and its file.

    Raises:
        UsageError: There is none, it has another size, or its symbols are not different characters.
    """
    inside = (one for one in _inside(content) if len({*one}) == len(one))
    found = _given(given, allow_pickle, size) if given else list(inside)
    if not found:
        raise UsageError(
            f"{given or 'the checkpoint'} holds no alphabet; give the model's {plural(size, 'symbol')} in"
            f" their order, as --alphabet FILE, TEXT or {PRINTABLE}"
        )
    symbols = next((one for one in found if len(one) == size), found[0])
    if len(symbols) != size:
        raise UsageError(
            f"the alphabet has {plural(len(symbols), 'symbol')}, and the model knows {size} ({place}); give"
            " the one that it was trained with, as --alphabet"
        )
    if long := [symbol for symbol in symbols if len(symbol) != 1]:
        raise UsageError(
            f"symbols of several characters cannot be imported yet, and the alphabet has {len(long)}:"
            f" {', '.join(map(repr, long[:5]))}"
        )
    if twice := next((symbol for symbol in symbols if symbols.count(symbol) > 1), None):
        raise UsageError(f"the alphabet has {twice!r} more than once; each symbol must be another character")
    return "".join(symbols)


class _Plain(pickle.Unpickler):
    """Read dictionaries, lists, texts and numbers, which need no class and no function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Raise UnpicklingError for whatever a pickle wants to import."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def _given(given: str, allow_pickle: bool, size: int) -> list[list[str]]:
    """Return what can be an alphabet in a file, or in the text itself."""
    if _FILE.fullmatch(given) and not os.path.exists(given):  # noqa: PTH110
        raise UsageError(f"there is no file {given} to read the alphabet from")
    if given == PRINTABLE or not os.path.isfile(given):  # noqa: PTH113  # Path's raises for a long text
        return [list(string.printable if given == PRINTABLE else given)]
    data = Path(given).read_bytes()
    if data.startswith(b"\x80"):
        if not allow_pickle:
            raise UsageError(f"{given} is a pickle; with --allow-pickle the plain data in it are read")
        with explaining(f"{given} is not a pickle of plain data", UsageError):
            return list(_inside({"alphabet": _Plain(io.BytesIO(data)).load()}))
    with explaining(f"{given} is not UTF-8 text", UsageError):
        text = data.decode("utf-8")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if given.endswith(".json"):
            raise UsageError(f"{given} is not JSON: {error}") from None
        content = None
    if isinstance(content, list | dict):
        return list(_inside({"alphabet": content}))
    return [list(text.removesuffix("\n") if len(text) == size + 1 else text)]  # an editor ends files so


def _inside(content: Any, depth: int = 0) -> Iterator[list[str]]:
    """Yield what can be an alphabet under the usual names in dictionaries."""
    if not isinstance(content, dict) or depth > DEPTH:
        return
    for key, value in content.items():
        if isinstance(key, str) and _KEYS.fullmatch(key) and (symbols := _symbols(value)):
            yield symbols
        yield from _inside(value, depth + 1)


def _symbols(value: Any) -> list[str]:
    """Return the symbols in a text, a list, or a dictionary from or to indices; [] if it is none of them."""
    if isinstance(value, dict):
        if all(isinstance(index, int) for index in value.values()):
            value = {index: symbol for symbol, index in value.items()}
        numbered = {str(index): symbol for index, symbol in value.items()}  # JSON's keys are texts
        value = [numbered.get(str(i)) for i in range(len(numbered))]
    if isinstance(value, str | list | tuple) and all(isinstance(symbol, str) for symbol in value):
        return list(value)
    return []
