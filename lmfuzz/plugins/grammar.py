r"""How plug-ins and their parameters are written: ``repetition:times=4``, ``all(a, b:words=["x"])``.

The grammar, with nothing ever evaluated:

- a part is ``NAME``, ``module:Class`` or ``path/to/file.py:Class``; then, where it is made of other
  parts, these in parentheses; then, behind a colon, its parameters;
- a parameter is ``name=value``; the first may be a value alone, which is then JSON and goes to the
  first parameter: ``regex:"\\d+"``;
- a value is JSON (a number, true, false, null, "quoted text", [a list]) or bare text. Bare text ends
  at the next comma outside quotes and brackets; a backslash in it is itself, and hides the character
  behind it from the search for that comma.
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
    """A plug-in's name, its parameters in order, and the parts it is made of.

    A parameter named '' is a value for the first parameter. Numbers are finite.
    ``str()`` gives the canonical text, which parses to an equal Call.
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
    """The call that ``text`` spells; UsageError says what is wrong with it."""
    calls = _calls(text, text)
    if len(calls) != 1:
        read = " and ".join(map(str, calls))
        _wrong(text, f"it names {read}; parameters are name=value, and all(...) or any(...) joins plug-ins")
    return calls[0]


def spell(value: Value) -> str:
    """The text of a value: bare where that reads back the same, else JSON."""
    if isinstance(value, str) and _BARE.fullmatch(value) and _literal(value) is None and value != "null":
        return value
    return _json(value)


def _calls(text: str, whole: str) -> tuple[Call, ...]:
    """The calls in a list of them; a piece like ``name=value`` belongs to the call before it."""
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
        _wrong(whole, f"parameters stand behind a colon, as in {name}:{(rest + ','.join(more)).strip()}")
    return Call(name, _parameters([rest[1:], *more], whole), parts)


def _parameters(pieces: list[str], whole: str) -> tuple[tuple[str, Value], ...]:
    found: list[tuple[str, Value]] = []
    for piece in pieces:
        named = _PARAMETER.match(piece)
        name = named[1] if named else ""
        text = (piece[named.end() :] if named else piece).strip()
        if not text:
            empty = f'{name} has no value (empty text is {name}="")' if name else "a parameter is missing"
            _wrong(whole, empty)
        value = _value(text, whole)
        if not named and value == text:
            _wrong(whole, f'{text} has no name; write name={text}, or text in quotes: "..."')
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
    """The number, truth, text or list that ``text`` is in JSON; None when it is none of these.

    A number spelled in another way than JSON's own (1e3, 1.50) stays text, so that a parameter
    which wants text gets what was typed; one which wants a number converts it.
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
    """``text`` split at the commas outside quotes and brackets."""
    commas = [i for i in _outside(text, whole) if text[i] == ","]
    bounds = [-1, *commas, len(text)]
    return [text[start + 1 : end] for start, end in pairwise(bounds)]


def _outside(text: str, whole: str) -> Iterator[int]:
    """Where the commas outside quotes and brackets stand, and the brackets that close back to there."""
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
                _wrong(whole, f'{c!r} closes nothing; put text with such a character in quotes: "..."')
            if not stack:
                yield i
        elif c == "," and not stack:
            yield i
    if stack or quoted:
        _wrong(whole, f"{stack[-1] if stack else chr(34)!r} is never closed; put text with it in JSON quotes")


def _wrong(whole: str, why: str) -> NoReturn:
    raise UsageError(f"cannot read '{whole}': {why}")
