"""Values checked against annotations, and words for what an annotation allows."""

import json
import math
import re
import types
from collections.abc import Collection, Iterable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from lmfuzz.plugins.grammar import Value, spell

_WORDS = {
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    bool: ("true or false", "true or false values"), str: ("text", "texts"), Path: ("a path", "paths"),
    Any: ("anything", "values"), Parameter.empty: ("anything", "values"),
}  # fmt: skip
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
_BOUNDS = re.compile(r"greater_than|less_than|multiple_of|finite_number|too_(short|long)|pattern")


def words(annotation: Any, many: bool = False) -> str:
    """Return a type in words, such as ``a whole number``, ``a list of texts`` or ``'a' or 'b'``."""
    if annotation in _WORDS:
        return _WORDS[annotation][many]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return words(arguments[0], many)
    if origin is Literal:
        return " or ".join(", ".join(map(repr, arguments)).rsplit(", ", 1))
    if origin in (Union, types.UnionType):
        return " or ".join(words(a, many) for a in arguments if a is not type(None))
    if origin in _LISTS:
        return f"{'lists' if many else 'a list'} of {words(arguments[0], many=True)}"
    return getattr(annotation, "__name__", None) or str(annotation)


def convert(value: Value, annotation: Any) -> Any:
    """Return ``value`` as the type that is asked for; raise ValueError, which says what it must be.

    Text becomes a number if a number is asked for, a number becomes text, and a single value becomes a list
    of one. An annotation that could not be resolved is not checked.
    """
    if annotation in (Any, Parameter.empty) or isinstance(annotation, str):
        return value
    try:
        adapter = TypeAdapter(annotation)
    except PydanticUserError:
        raise ValueError(f"must be {words(annotation)}, which cannot be written as text") from None
    readings: list[Any] = [value]
    if not isinstance(value, str | list):
        readings.append(spell(value))
    if not isinstance(value, list) and not str(value).startswith("["):
        readings += [[reading] for reading in readings]
    failure: ValidationError | None = None
    for reading in readings:
        try:
            result = adapter.validate_python(reading, strict=isinstance(reading, bool) or None)
        except ValidationError as error:
            failure = failure or error
            continue
        if not (isinstance(result, float) and math.isnan(result)):
            return result
    raise ValueError(complaint(failure, value, annotation))


def complaint(failure: ValidationError | None, value: Any, annotation: Any) -> str:
    """Return ``must be X, not Y`` for the first error in a value."""
    detail = failure.errors()[0] if failure else None
    if detail and detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    right = f"must be {words(annotation)}"
    if detail and _BOUNDS.search(detail["type"]):
        right = re.sub(r"^\w+ should ", "must ", detail["msg"]).split(" after validation")[0]
    if isinstance(value, str) and value.startswith("[") and "must be a list" in right:
        right += ' such as ["a", "b"]'
    given = json.dumps(value, ensure_ascii=False, default=str)
    return f"{right}, not {given if len(given) <= 80 else given[:77] + '...'}"
