"""Answers that are not in the format that was asked for: a JSON schema, or a regular expression."""

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from lmfuzz.errors import UsageError, extra
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.reading import read_text
from lmfuzz.protocols import ForTexts
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

SHOWN = 160  # characters of a rule's message in the evidence
_BARELY = -1e-6  # the best margin of an answer that satisfies
_TICKS = "```"
_FENCE = re.compile(r"```\w*[ \t]*\n(.*?)\s*(```|`{0,2}\Z)", re.DOTALL)
_OPENING = re.compile(r"`{1,2}|```\w*[ \t]*")
_JSON = r"""(?(DEFINE)
    (?<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
    (?<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
    (?<blank>[ \t\n\r]*+)
    (?<pair>(?&blank)(?&string)(?&blank):(?&value))
    (?<list>\[(?:(?&value)(?:,(?&value))*+|(?&blank))\])
    (?<object>\{(?:(?&pair)(?:,(?&pair))*+|(?&blank))\})
    (?<value>(?&blank)(?:true|false|null|(?&number)|(?&string)|(?&list)|(?&object))(?&blank))
)(?&value)"""  # RFC 8259


@dataclass(frozen=True, slots=True)
class Violation:
    """Say what is wrong with an answer.

    Attributes:
        margin: of the answer; NaN if it could not be judged.
        signature: the kind of violation.
        words: the violation, for a person.
        at: from which character of the answer on, if that is known.
    """

    margin: float
    signature: str
    words: str
    at: int | None = None


_UNJUDGED = Violation(np.nan, "", "")


class Format(ForTexts):
    """Find answers that violate a JSON ``schema`` (a file) or do not match a ``pattern`` as a whole.

    White space around the answer is ignored. So is, if ``fenced``, a fence of three backticks (with ``json``
    or another word) around the whole answer. A schema may be of any draft, and may only refer to what is in
    its own file; the keyword ``format`` is not checked. Patterns are those of the package regex, which are
    nearly those of re.

    An answer that was cut off by the step limit cannot be judged while it may still become valid: while it
    is a beginning of JSON, or of a match of the pattern, or already valid. Complete JSON that violates the
    schema is a violation however it goes on, unless it is a number, which may become another one.

    Margins: 1 for an answer that is empty, not JSON, or not a match; 0.5 for JSON that violates the schema;
    NaN for what could not be judged. The margin of a valid answer is -p, with p the probability of the least
    certain step, which says how near the model was to writing something else. The signature is ``empty``,
    ``pattern``, ``not JSON:`` with the reason, or ``schema:`` with the rule and the place (elements of lists,
    and keys that no ``properties`` of the schema names, are *).

    Args:
        schema: a file with a JSON schema; it may begin with ``corpora:``.
        pattern: a regular expression, in place of a schema.
        fenced: whether a fence around the answer is allowed.
    """

    needs = frozenset({"text", "ended"})
    targets = ("format",)
    grades = (frozenset({"logprob"}),)

    def __init__(self, schema: str = "", pattern: str = "", fenced: bool = True) -> None:
        if bool(schema) == bool(pattern):
            raise UsageError("format needs either schema=FILE (a JSON schema) or pattern=REGEX")
        self.fenced = fenced
        self._rule = _Schema(schema) if schema else _Pattern(pattern)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
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
        """Return what is wrong with the answer; raise ValueError if nothing is."""
        text = str(trace["text"][row])
        found = self._judge(text, bool(trace["ended"][row]))
        if found is None or not found.margin > 0:
            raise ValueError("the answer is valid, or could not be judged")
        stop = len(text.rstrip())
        span = (found.at, stop) if found.at is not None and found.at < stop else None
        return Evidence(found.signature, found.words, span)

    def _judge(self, text: str, ended: bool) -> Violation | None:
        """Return what is wrong with an output; the margin is NaN if that cannot be judged yet."""
        answer, at = self._answer(text, ended)
        if not ended and (self._rule.undecided(answer) or (self.fenced and _OPENING.fullmatch(answer))):
            return _UNJUDGED
        if not answer:
            return Violation(1.0, "empty", "the answer is empty")
        found = self._rule.violation(answer)
        return found if found is None or found.at is None else replace(found, at=found.at + at)

    def _answer(self, text: str, ended: bool) -> tuple[str, int]:
        """Return the answer without white space and fence around it, and where in ``text`` it starts."""
        answer, at = text.strip(), len(text) - len(text.lstrip())
        fence = _FENCE.fullmatch(answer) if self.fenced else None
        if fence is None or (ended and fence[2] != _TICKS):
            return answer, at
        return fence[1].strip(), at + fence.start(1) + len(fence[1]) - len(fence[1].lstrip())


class _Pattern:
    """Judge answers by a regular expression that must match the whole of them."""

    def __init__(self, pattern: str) -> None:
        regex = _regex()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about constructs that later versions may read differently
                self._compiled = regex.compile(pattern)
        except regex.error as error:
            wrong = f"{error.msg} at position {error.pos}"
            raise UsageError(f"format: {pattern!r} is not a regular expression: {wrong}") from None

    def violation(self, answer: str) -> Violation | None:
        """Return what is wrong with an answer, the same for all that do not match."""
        if self._compiled.fullmatch(answer):
            return None
        return Violation(1.0, "pattern", f"'{_short(answer)}' does not match '{self._compiled.pattern}'")

    def undecided(self, answer: str) -> bool:
        """Return whether an answer that goes on may still match."""
        return self._compiled.fullmatch(answer, partial=True) is not None


class _Schema:
    """Judge answers by a JSON schema in a file."""

    def __init__(self, file: str) -> None:
        schema = _read(file)
        self._validator = _validator(file, schema)
        properties = [part.get("properties") for part in _objects(schema)]
        self._names = {name for names in properties if isinstance(names, dict) for name in names}

    def violation(self, answer: str) -> Violation | None:
        """Return why an answer is not JSON, or the rule of the schema that says most about what is wrong."""
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
        """Return whether an answer that goes on may still be JSON that satisfies the schema."""
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
        path = "".join(f"/{key if key in self._names else '*'}" for key in error.absolute_path) or "/"
        words = f"{_short(error.message)} ({error.validator} at {error.json_path})"
        return Violation(0.5, f"schema: {error.validator} at {path}", words)


def begins_json(text: str) -> bool:
    """Return whether ``text`` is JSON or a beginning of it."""
    regex = _regex()
    return regex.fullmatch(_JSON, text, regex.VERBOSE, partial=True) is not None


def _regex() -> Any:
    """Return the package regex: re does not tell whether more text could complete a match."""
    with extra("format"):
        import regex  # type: ignore[import-untyped]
    return regex


def _parse(text: str) -> Any:
    """Return the value of strict JSON; raise ValueError, or RecursionError, for any other text."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def _read(file: str) -> Any:
    try:
        return json.loads(read_text(resource(file), "schema"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"format: the schema {file} is not JSON: {error}") from None


def _validator(file: str, schema: Any) -> Any:
    """Return a validator of values against the schema; raise UsageError if the schema is not valid."""
    with extra("format"):
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for  # type: ignore[import-untyped]
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # and not the network
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012, specification_with

    draft = schema.get("$schema") if isinstance(schema, dict) else None
    made = Draft202012Validator if draft is None else validator_for({"$schema": str(draft)}, default=None)
    if made is None:
        raise UsageError(f"format: the schema {file} is of an unknown draft, {draft!r}")
    reference = ""
    try:
        made.check_schema(schema)
        specification = specification_with(made.ID_OF(made.META_SCHEMA), default=DRAFT202012)
        resolver = REGISTRY.resolver_with_root(specification.create_resource(schema))
        parts = list(_objects(schema))
        if not any("$id" in part for part in parts[1:]):  # else what a reference means depends on them
            for reference in (part["$ref"] for part in parts if isinstance(part.get("$ref"), str)):
                resolver.lookup(reference)
    except SchemaError as error:
        raise UsageError(f"format: {file} is not a JSON schema: {_short(error.message)}") from None
    except Unresolvable:
        raise UsageError(f"format: the schema {file} refers to {reference!r}, which is not in it") from None
    return made(schema, registry=REGISTRY)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a value of JSON, beginning with the value itself if it is one."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _objects(inner)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
