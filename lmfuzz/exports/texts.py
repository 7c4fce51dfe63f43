"""Texts of a model, made harmless: strict JSON, cells of a spreadsheet."""

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from lmfuzz.analysis.summary import escaped
from lmfuzz.storage.schema import clean

FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20"  # a cell that begins with one may be run; ' hides what is behind
_SIGN = f"[{re.escape(FORMULAS)}]"
# Where a cell may begin: inside a text, too, for who reads ; as the end of a cell. Where a tab or a new line
# was, an escape begins with a backslash.
_BEGINS = re.compile(rf"""(^(?= *(?:'|{_SIGN}))|[;,](?=[ "']*{_SIGN}))""")


def plain(value: Any) -> Any:
    """``value`` as every JSON parser takes it: texts that are UTF-8, no number that is not finite."""
    if isinstance(value, str):
        return clean(value)
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
    return _BEGINS.sub(r"\1'", escaped(value)) if isinstance(value, str) else value
