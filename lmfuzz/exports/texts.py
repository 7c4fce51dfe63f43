"""Texts of a model, made harmless: strict JSON, cells of a spreadsheet."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from lmfuzz.show import escaped

FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20'"  # a cell that begins with one may be run; ' hides what is behind


def plain(value: Any) -> Any:
    """``value`` as every JSON parser takes it: texts that are UTF-8, no number that is not finite."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def strict(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON in ASCII, with nothing in it that a terminal obeys; NaN and infinity are null."""
    return json.dumps(plain(value), indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def cell(value: Any) -> Any:
    """``value`` for a spreadsheet: a text on one line, escaped, with ' before what could be a formula."""
    if not isinstance(value, str):
        return value
    text = escaped(value)
    return f"'{text}" if text.lstrip(" ").startswith(tuple(FORMULAS)) else text
