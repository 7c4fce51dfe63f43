r"""The grammar of plug-ins and their parameters: ``repetition:times=4``, ``all(a, b:words=["x"])``.

Nothing is ever evaluated.

- A plug-in is ``NAME``, ``module:Class`` or ``path/to/file.py:Class``. If it combines others, they follow in
  parentheses. Its parameters follow a colon.
- A parameter is ``name=value``. The first may be a value alone, in JSON, and goes to the first parameter:
  ``regex:"\\d+"``.
- A value is JSON (a number, true, false, null, "quoted text", [a list]) or bare text. Bare text ends at the
  next comma outside quotes and brackets. A backslash in it is a plain character, and the comma, quote or
  bracket after it is one, too.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn, TypeAlias

from lmfuzz.errors import UsageError

Value: TypeAlias = "str | int | float | bool | list[Value] | None"

_IDENTIFIER = r"[^\W\d]\w*"
_NAME = re.compile(r'\s*([^\s:(),="\[\]{}][^:(),="\[\]{}]*)')
_CLASS = re.compile(rf":\s*(?!(?:true|false|null)\b)({_IDENTIFIER}(?:\.{_IDENTIFIER})*)\s*(?=[:(]|$)")
_PARAMETER = re.compile(rf"\s*({_IDENTIFIER})\s*=")
_BARE = re.compile(r"[\w./:+*?!@#$%&^~<>;|=-]+")
_OPENER = {")": "(", "]": "[", "}": "{"}
_DEEPEST = 40  # brackets inside brackets


@dataclass(frozen=True, slots=True)
class Call:
    """Hold the name of a plug-in and its parameters; ``str()`` is text that parses to an equal Call.

    Attributes:
        name: a name, ``module:Class`` or ``path/to/file.py:Class``.
        parameters: names and values, in order. The name '' means the first parameter. Numbers are finite.
        parts: the plug-ins that it combines.
    """

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()
    parts: tuple["Call", ...] = ()

    def __str__(self) -> str:
        parts = f"({', '.join(map(str, self.parts))})" if self.parts else ""
        values = [f"{name}={spell(value)}" if name else _json(value) for name, value in self.parameters]
        return self.name + parts + (":" + ",".join(values) if values else "")

    def map_texts(self, change: Callable[[str], str]) -> "Call":
        """Return the call in which ``change`` was applied to every parameter that is a text."""
        values = [(name, change(v) if isinstance(v, str) else v) for name, v in self.parameters]
        return Call(self.name, tuple(values), tuple(part.map_texts(change) for part in self.parts))


def parse(text: str) -> Call:
    """Return the call that ``text`` stands for; raise UsageError if it does not follow the grammar."""
    calls = _calls(text, text)
    if len(calls) != 1:
        read = " and ".join(map(str, calls))
        _wrong(text, f"it names {read}; give one, and name its parameters, as in repetition:times=4")
    return calls[0]


def spell(value: Value) -> str:
    """Return the text of a value: bare if that parses to the same value, otherwise JSON."""
    if isinstance(value, str) and _BARE.fullmatch(value) and _literal(value) is None and value != "null":
        return value
    return _json(value)


def _calls(text: str, whole: str) -> tuple[Call, ...]:
    """Return the calls in a list of them; a piece like ``name=value`` belongs to the call before it."""
    groups: list[list[str]] = []
    for piece in _pieces(text, whole):
        if groups and _PARAMETER.match(piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return tuple(_call(first, more, whole) for first, *more in groups)


def _call(first: str, more: list[str], whole: str) -> Call:
    head = _NAME.match(first)
    if head is None:
        _wrong(whole, f"a name is missing before {first.strip()!r}" if first.strip() else "a name is missing")
    name, rest = head[1].strip(), first[head.end() :]
    if found := _CLASS.match(rest):
        name, rest = f"{name}:{found[1]}", rest[found.end() :]
    parts: tuple[Call, ...] = ()
    if rest.startswith("("):
        close = next(i for i in _outside(rest, whole) if rest[i] == ")")
        parts, rest = _calls(rest[1:close], whole), rest[close + 1 :].lstrip()
    if not rest and not more:
        return Call(name, (), parts)
    if not rest.startswith(":"):
        _wrong(whole, f"parameters follow a colon, as in {name}:{(rest + ','.join(more)).strip()}")
    return Call(name, _parameters([rest[1:], *more], whole), parts)


def _parameters(pieces: list[str], whole: str) -> tuple[tuple[str, Value], ...]:
    found: list[tuple[str, Value]] = []
    for piece in pieces:
        named = _PARAMETER.match(piece)
        name = named[1] if named else ""
        text = (piece[named.end() :] if named else piece).strip()
        if not text:
            why = f'{name} has no value; write {name}="" for empty text' if name else "a value is missing"
            _wrong(whole, why)
        value = _value(text, whole)
        if not named and value == text:
            _wrong(whole, f"{text} needs the name of its parameter before it, or quotes: {_json(text)}")
        if any(name == other for other, _ in found):
            _wrong(whole, f"{name} is given twice")
        found.append((name, value))
    return tuple(found)


def _value(text: str, whole: str) -> Value:
    if text == "null":
        return None
    value = _literal(text)
    if value is None and text.startswith('"'):
        _wrong(whole, f'{text} is not JSON text; in quotes a backslash is written \\\\ and a quote \\"')
    return text if value is None else value


def _literal(text: str) -> Value:
    """Return the number, true, false, text or list that ``text`` is in JSON; None for anything else.

    A number that JSON would write in another way (1e3, 1.50) stays text, so that a parameter of type text
    gets what was typed. A parameter of type number converts it.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_refuse)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list | str):
        return value
    return value if _json(value) == text else None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(what: object) -> NoReturn:
    raise ValueError(what)


def _json(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pieces(text: str, whole: str) -> list[str]:
    """Return ``text`` split at the commas outside quotes and brackets."""
    commas = [i for i in _outside(text, whole) if text[i] == ","]
    bounds = [-1, *commas, len(text)]
    return [text[start + 1 : end] for start, end in pairwise(bounds)]


def _outside(text: str, whole: str) -> Iterator[int]:
    """Yield where commas outside quotes and brackets are, and brackets that close the outermost one."""
    stack: list[str] = []
    quoted = hidden = False
    for i, c in enumerate(text):
        if hidden or c == "\\":
            hidden = not hidden
        elif c == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif c in "([{":
            stack.append(c)
            if len(stack) > _DEEPEST:
                _wrong(whole, f"brackets are more than {_DEEPEST} deep")
        elif c in _OPENER:
            if not stack or stack.pop() != _OPENER[c]:
                _wrong(whole, f"{c!r} closes nothing; put text with it in quotes: {_json(c)}")
            if not stack:
                yield i
        elif c == "," and not stack:
            yield i
    if stack or quoted:
        last = stack[-1] if stack else '"'
        _wrong(whole, f"{last!r} is never closed; put text with it in quotes: {_json(last)}")


def _wrong(whole: str, why: str) -> NoReturn:
    raise UsageError(f"cannot read '{whole}': {why}")
