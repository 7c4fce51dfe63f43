"""Values checked against annotations, and the sentences about wrong ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from lmfuzz.plugins.coerce import convert, words
from lmfuzz.plugins.grammar import Value


@pytest.mark.parametrize(
    ("value", "annotation", "result"),
    [
        (3, int, 3),
        ("3", int, 3),
        ("1e3", float, 1000.0),
        (3, float, 3.0),
        (12, str, "12"),
        (True, str, "true"),
        ("yes", bool, True),
        (["a", "b"], Sequence[str], ["a", "b"]),
        (["a", "b"], tuple[str, ...], ("a", "b")),
        ("murder", list[str], ["murder"]),
        (12, list[str], ["12"]),
        (3, list[int], [3]),
        (None, float | None, None),
        ("a.txt", Path, Path("a.txt")),
        ("fast", Literal["fast", "slow"], "fast"),
        (3, Annotated[int, Field(ge=1)], 3),
        ([1, [2]], Any, [1, [2]]),
        ("x", "Unresolved", "x"),
    ],
)
def test_values_become_what_the_annotation_wants(value: Value, annotation: Any, result: Any) -> None:
    converted = convert(value, annotation)
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("value", "annotation", "sentence"),
    [
        ("four", int, 'must be a whole number, not "four"'),
        (3.5, int, "must be a whole number, not 3.5"),
        (True, int, "must be a whole number, not true"),
        (True, float, "must be a number, not true"),
        ("nan", float, 'must be a number, not "nan"'),
        ("maybe", bool, 'must be true or false, not "maybe"'),
        (["a"], str, 'must be text, not ["a"]'),
        ("[murder]", list[str], 'must be a list of texts such as ["a", "b"], not "[murder]"'),
        ("odd", Literal["fast", "slow"], "must be 'fast' or 'slow', not \"odd\""),
        (0, Annotated[int, Field(ge=1)], "must be greater than or equal to 1, not 0"),
        ("x" * 200, int, f'must be a whole number, not "{"x" * 76}...'),
        ("x", np.ndarray, "must be ndarray, which cannot be written as text"),
    ],
)
def test_wrong_values_get_a_sentence(value: Value, annotation: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match="must") as error:
        convert(value, annotation)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (list[list[int]], "a list of lists of whole numbers"),
        (str | None, "text"),
        (int | str, "a whole number or text"),
        (Mapping, "Mapping"),
        (Any, "anything"),
    ],
)
def test_types_in_words(annotation: Any, text: str) -> None:
    assert words(annotation) == text
