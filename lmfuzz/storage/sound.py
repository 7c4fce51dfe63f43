"""What is stored must be what the records declare: numbers are counts or finite, texts are texts."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from lmfuzz.types import SEED, BoolArray, FloatArray, IntArray

T = TypeVar("T")


def _column(kinds: str, value: Any) -> Any:
    """Return a column of numbers (N,); raise ValueError for anything else."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in kinds:
        return value
    raise ValueError("it should be a column of numbers")


_AS: dict[Any, Any] = {  # a field's type -> what is accepted; other types check themselves when they are made
    int: Annotated[int, Field(ge=SEED, lt=2**53)], float: FiniteFloat,
    **dict.fromkeys([str, list[str], bool | None, tuple[int, int] | None, dict[str, float]]),
    **dict.fromkeys([dict[str, int], Mapping[str, int], dict[str, dict[str, int]]]),
    IntArray: Annotated[Any, AfterValidator(partial(_column, "iu"))],
    FloatArray: Annotated[Any, AfterValidator(partial(_column, "f"))],
    IntArray | None: Annotated[Any, AfterValidator(lambda value: value is None or _column("iu", value))],
    BoolArray: Annotated[Any, AfterValidator(partial(_column, "b"))],
}  # fmt: skip


def sound(made: T) -> T:
    """Return a record, a dataclass, as it is.

    Raises:
        ValueError: a field does not hold what the record declares; a margin alone may be infinite.
    """
    names = [field.name for field in fields(made)]  # type: ignore[arg-type]
    try:
        _adapter(type(made)).validate_python(tuple(getattr(made, name) for name in names))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{names[int(first['loc'][0])]} of {type(made).__name__}"
        raise ValueError(f"{where}: {first['msg']}") from None
    return made


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    hints = get_type_hints(kind)
    known = [
        float if field.name == "margin" else _AS.get(hint := hints[field.name], Any) or hint
        for field in fields(kind)
    ]
    return TypeAdapter(tuple[tuple(known)], config=ConfigDict(strict=True))  # type: ignore[arg-type, misc]
