"""States as text: JSON that can hold arrays, and never code."""

import base64
import json
from typing import Any

import numpy as np

from lmfuzz.types import State


def encode(state: State) -> str:
    """Return a state as JSON; an array becomes its dtype, shape and bytes."""
    return json.dumps(state, default=_array)


def decode(text: str) -> Any:
    """Return what ``encode`` was given, with lists for tuples."""
    return json.loads(text, object_hook=_unpacked)


def _array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        packed = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {"__array__": [value.dtype.str, list(value.shape), packed]}
    raise TypeError(f"a state can hold arrays, numbers, texts, lists and dicts, not {type(value).__name__}")


def _unpacked(value: dict[str, Any]) -> Any:
    if "__array__" not in value:
        return value
    dtype, shape, packed = value["__array__"]
    return np.frombuffer(base64.b64decode(packed), np.dtype(dtype)).reshape(shape).copy()
