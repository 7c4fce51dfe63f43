"""Values checked against annotations, and the words that tell a person what would be right."""

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
    bool: ("true or false", "truths"), str: ("text", "texts"), Path: ("a path", "paths"),
    Any: ("anything", "things"), Parameter.empty: ("anything", "things"),
}  # fmt: skip
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
_BOUNDS = re.compile(r"greater_than|less_than|multiple_of|finite_number|too_(short|long)|pattern")


def words(annotation: Any, many: bool = False) -> str:
    """What a person calls values of this type: ``a whole number``, ``a list of texts``, ``'a' or 'b'``."""
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
    """``value`` as the annotation wants it; ValueError says what it must be.

    Text is read as a number where a number is wanted, a number as text where text is wanted, and
    one thing stands for a list of one. An annotation that could not be resolved is not checked.
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
    """``must be X, not Y``, for the first thing that is wrong with a value."""
    detail = failure.errors()[0] if failure else None
    if detail and detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    right = f"must be {words(annotation)}"
    if detail and _BOUNDS.search(detail["type"]):
        right = re.sub(r"^\w+ should ", "must ", detail["msg"]).split(" after validation")[0]
    if isinstance(value, str) and value.startswith("[") and "must be a list" in right:
        right += ' such as ["a", "b"]'
    came = json.dumps(value, ensure_ascii=False, default=str)
    return f"{right}, not {came if len(came) <= 80 else came[:77] + '...'}"
