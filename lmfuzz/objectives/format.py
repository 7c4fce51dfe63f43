"""Answers that have not the form that was asked for: a JSON schema, or a regular expression."""

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

import numpy as np

from lmfuzz.errors import UsageError, extra
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.reading import read_text
from lmfuzz.protocols import ForTexts
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

SHOWN = 160  # characters of what a rule says in the evidence
_BARELY = -1e-6  # the best margin of an answer that satisfies
_TICKS = "```"
_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)\s*(```|`{0,2}\Z)", re.DOTALL)
_OPENING = re.compile(r"`{1,2}|```\w*[ \t]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}
_REST = [  # one of these, and the brackets still open, complete whatever is the beginning of JSON
    "", "0", ":0", '"":0',
    *(word[at:] for word in ("true", "false", "null") for at in range(1, len(word))),
    *(more + '"' + then for more in ("", "n", "0", "00", "000", "0000") for then in ("", ":0")),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with an answer, and from which of its characters on, where that is known."""

    margin: float
    signature: str
    words: str
    at: int | None = None


_UNJUDGED = Violation(np.nan, "", "")


class Rule(Protocol):
    """What answers must satisfy."""

    def violation(self, answer: str) -> Violation | None:
        """What is wrong with a whole answer that is not empty."""

    def undecided(self, answer: str) -> bool:
        """Whether an answer may still satisfy, or not, depending on how it goes on."""


class Format(ForTexts):
    """The answer does not satisfy a JSON ``schema`` (a file), or does not match a ``pattern`` as a whole.

    White space around the answer is left out, and so is, if ``fenced``, a fence of three backticks (with
    ``json`` or another word) around all of it. Schemas are of any draft, and refer to nothing outside of
    the file; the keyword ``format`` is not checked. Patterns are those of the package regex, nearly re's.

    An answer that the step limit cut off could not be judged while it may become one that satisfies: a
    beginning of JSON, or of what the pattern matches, or all of it. (JSON that is complete and against
    the schema is a violation whatever would come, unless it is a number, which may go on.)

    Margins: 1 for an answer that is empty, no JSON, or no match; 0.5 for JSON against the schema; NaN for
    what could not be judged; for one that satisfies -p, the probability of the least sure step, which says
    how near the model was to writing something else. The signature is ``empty``, ``pattern``, ``not JSON:``
    and why, or ``schema:`` with the rule and where (elements of lists, and keys that no ``properties`` of the
    schema names, are *).
    """

    needs = frozenset({"text", "ended"})
    targets = ("format",)
    grades = (frozenset({"logprob"}),)

    def __init__(self, schema: str = "", pattern: str = "", fenced: bool = True) -> None:
        if bool(schema) == bool(pattern):
            raise UsageError(
                "format needs one of schema=FILE (a JSON schema) and pattern=REGEX, and not both"
            )
        self.fenced = fenced
        self._rule: Rule = _Schema(schema) if schema else _Pattern(pattern)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, 1)."""
        margins = np.full(len(batch), -np.inf)
        if "logprob" in trace:
            steps = trace["logprob"]
            least = np.min(steps, axis=1, where=np.isfinite(steps), initial=np.inf)
            margins = np.where(least < np.inf, np.minimum(-np.exp(np.minimum(least, 0)), _BARELY), -np.inf)
        for row, (text, ended) in enumerate(zip(trace["text"], trace["ended"], strict=True)):
            found = self._judge(text, bool(ended))
            if found is not None:
                margins[row] = found.margin
        return margins.astype(np.float32)[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """What is wrong with the answer; ValueError where nothing is."""
        text = str(trace["text"][row])
        found = self._judge(text, bool(trace["ended"][row]))
        if found is None or not found.margin > 0:
            raise ValueError("the answer has the right form, or could not be judged")
        stop = len(text.rstrip())
        span = (found.at, stop) if found.at is not None and found.at < stop else None
        return Evidence(found.signature, found.words, span)

    def _judge(self, text: str, ended: bool) -> Violation | None:
        """What is wrong with an output; its margin is NaN where that could not be judged yet."""
        answer, at = self._answer(text, ended)
        if not ended and (self._rule.undecided(answer) or (self.fenced and _OPENING.fullmatch(answer))):
            return _UNJUDGED
        if not answer:
            return Violation(1.0, "empty", "the answer is empty")
        found = self._rule.violation(answer)
        return found if found is None or found.at is None else replace(found, at=found.at + at)

    def _answer(self, text: str, ended: bool) -> tuple[str, int]:
        """The answer within white space and its fence, and where in ``text`` it starts."""
        answer, at = text.strip(), len(text) - len(text.lstrip())
        fence = _FENCE.fullmatch(answer) if self.fenced else None
        if fence is None or (ended and fence[2] != _TICKS):
            return answer, at
        return fence[1].strip(), at + fence.start(1) + len(fence[1]) - len(fence[1].lstrip())


class _Pattern:
    """A regular expression that must match the whole answer."""

    def __init__(self, pattern: str) -> None:
        with extra("format"):
            import regex  # type: ignore[import-untyped]  # re does not tell whether more text could match

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what may change its meaning in later versions
                self._compiled: Any = regex.compile(pattern)
        except regex.error as error:
            raise UsageError(
                f"format: {pattern!r} is no regular expression: {error.msg} at position {error.pos}"
            ) from None

    def violation(self, answer: str) -> Violation | None:
        """One signature for whatever does not match."""
        if self._compiled.fullmatch(answer):
            return None
        return Violation(1.0, "pattern", f"'{_short(answer)}' does not match '{self._compiled.pattern}'")

    def undecided(self, answer: str) -> bool:
        """Whether it is the beginning of a match, or one."""
        return self._compiled.fullmatch(answer, partial=True) is not None


class _Schema:
    """A JSON schema in a file."""

    def __init__(self, file: str) -> None:
        schema = _read(file)
        self._validator = _validator(file, schema)
        self._names = set(_names(schema))

    def violation(self, answer: str) -> Violation | None:
        """Why it is no JSON, or the rule of the schema that says most about what is wrong."""
        try:
            value = _parse(answer)
        except json.JSONDecodeError as error:
            why = error.msg.rstrip(": ").removesuffix(" at").removesuffix(" starting")
            signature = f"not JSON: {why[0].lower()}{why[1:]}"
            return Violation(1.0, signature, f"{signature}, at character {error.pos + 1}", error.pos)
        except (ValueError, RecursionError) as error:
            return Violation(1.0, f"not JSON: {error}", f"not JSON: {error}")
        return self._against(value)

    def undecided(self, answer: str) -> bool:
        """Whether it is a beginning of JSON, or JSON that satisfies so far."""
        try:
            value = _parse(answer)
        except (ValueError, RecursionError):
            return begins_json(answer)
        longer = isinstance(value, int | float) and not isinstance(value, bool)  # a number may go on
        found = None if longer else self._against(value)
        return found is None or not found.margin > 0

    def _against(self, value: object) -> Violation | None:
        from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

        try:
            error = best_match(self._validator.iter_errors(value))
        except RecursionError:
            return _UNJUDGED
        if error is None:
            return None
        path = (
            "/".join(["", *(str(key) if key in self._names else "*" for key in error.absolute_path)]) or "/"
        )
        words = f"{_short(error.message)} ({error.validator} at {error.json_path})"
        return Violation(0.5, f"schema: {error.validator} at {path}", words)


def begins_json(text: str) -> bool:
    """Whether ``text`` is JSON or a beginning of it."""
    closing: list[str] = []
    for mark in re.findall(r"[][{}]", _STRING.sub("", text)):
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
        elif not closing:
            return False
        else:
            closing.pop()
    return any(_is_json(text + rest + "".join(reversed(closing))) for rest in _REST)


def _is_json(text: str) -> bool:
    try:
        _parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str) -> Any:
    """The value of JSON as its standard has it; ValueError, or RecursionError, for other text."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _read(file: str) -> Any:
    try:
        return json.loads(read_text(resource(file), "schema"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"format: the schema {file} is not JSON: {error}") from None


def _validator(file: str, schema: Any) -> Any:
    """What checks values against the schema; UsageError where that is none."""
    with extra("format"):
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for  # type: ignore[import-untyped]
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # and not the network
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012, specification_with

    if not isinstance(schema, dict | bool):
        raise UsageError(f"format: {file} is not a JSON schema: it must be an object, or true or false")
    draft = schema.get("$schema") if isinstance(schema, dict) else None
    made = Draft202012Validator if draft is None else validator_for({"$schema": str(draft)}, default=None)
    if made is None:
        raise UsageError(f"format: the schema {file} is of a draft that is not known, {draft!r}")
    reference = ""
    try:
        made.check_schema(schema)
        specification = specification_with(made.ID_OF(made.META_SCHEMA), default=DRAFT202012)
        resolver = REGISTRY.resolver_with_root(specification.create_resource(schema))
        for reference in _references(schema):
            resolver.lookup(reference)
    except SchemaError as error:
        raise UsageError(f"format: {file} is not a JSON schema: {_short(error.message)}") from None
    except Unresolvable:
        raise UsageError(f"format: the schema {file} refers to {reference!r}, which is not in it") from None
    return made(schema, registry=REGISTRY)


def _references(part: Any) -> Iterator[str]:
    """What the parts of a schema refer to, as far as that does not depend on an id inside of it."""
    found = list(_parts(part))
    if not any("$id" in inner for inner in found[1:]):
        yield from (inner["$ref"] for inner in found if isinstance(inner.get("$ref"), str))


def _names(schema: Any) -> Iterator[str]:
    """The keys of objects that a schema names."""
    for part in _parts(schema):
        if isinstance(properties := part.get("properties"), dict):
            yield from properties


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """All objects in a value of JSON, itself the first."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _parts(inner)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
