"""Boxes: what is legal, what is nearest, and bytes that come back as they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace, describe, described
from lmfuzz.types import SEED, join

IMAGES = BoxSpace((3, 2, 1), 0.0, 1.0, 1 / 255)
WIDE = BoxSpace((4,), -100.0, 100.0)
examples = settings(max_examples=50, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("space", [IMAGES, WIDE, BoxSpace((2, 2, 3), -1, 1, 2 / 255)])
@examples
@given(st.data())
def test_what_is_settled_is_legal_and_stays_where_it_is(space, data):
    floats = st.floats(-1e4, 1e4, width=32)
    values = data.draw(arrays.arrays(np.float32, (3, *space.shape), elements=floats))
    settled = space.settle(values)
    assert settled.dtype == np.float32
    assert space.legal(space.batch(settled)).all()
    assert (space.settle(settled) == settled).all()
    inside = np.clip(values, space.low, space.high)
    assert np.abs(settled - inside).max() <= space.step / 2 + 1e-5 * (space.high - space.low)


def test_what_is_outside_or_between_the_grid_is_not_legal():
    rows = IMAGES.batch(np.zeros((4, 3, 2, 1), np.float32))
    rows.data[1, 0, 0, 0], rows.data[2, 1, 1, 0], rows.data[3, 2, 0, 0] = 1.5, 0.5, np.nan
    assert IMAGES.legal(rows).tolist() == [True, False, False, False]
    assert BoxSpace((3, 2, 1)).legal(rows).tolist() == [True, False, True, False]


def test_seeds_count_themselves_and_rows_keep_their_shape():
    batch = IMAGES.batch(np.arange(12, dtype=np.float64).reshape(2, 3, 2, 1) / 255)
    assert (batch.origin.tolist(), batch.parent.tolist()) == ([0, 1], [SEED, SEED])
    assert batch.data.dtype == np.float32
    assert batch.row(1).shape == batch.alone(1).row(0).shape == (3, 2, 1)
    assert join([batch, batch[1:]]).data.shape == (3, 3, 2, 1)
    assert join([batch, batch[1:]]).origin.tolist() == [0, 1, 1]
    changed = batch.changed(batch.data * 0)
    assert (changed.origin.tolist(), changed.data.max()) == ([0, 1], 0)


@pytest.mark.parametrize("space", [IMAGES, WIDE, TextSpace(tuple("abc"), 2, 9)])
def test_rows_and_spaces_come_back_from_plain_data(space):
    row = np.array([0, 2, 1], np.int32) if isinstance(space, TextSpace) else space.settle(
        np.linspace(-1, 1, int(np.prod(space.shape))).reshape(space.shape)
    )  # fmt: skip
    assert space.unpack(space.pack(row)).tolist() == row.tolist()
    assert described(describe(space)) == space


def test_distances():
    a, b = IMAGES.empty(2)
    b[1, 1, 0] = 0.25
    assert IMAGES.distance(a, b) == 0.25
    text = TextSpace(tuple("abc"))
    assert text.distance(text.encode("abcab"), text.encode("bcaab")) == 2


def test_names_are_short():
    assert WIDE.name(np.array([1, 2.5, -3, 0], np.float32), 7, 0.5) == "1 2.5 -3 0"
    large = BoxSpace((28, 28, 1))
    assert large.name(large.empty(1)[0], 7, 0.25) == "seed 7 changed by 0.25"
    assert large.name(large.empty(1)[0], 7, 0) == "seed 7"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shape": ()}, "shape of a box needs axes"),
        ({"shape": (0, 2)}, "at least 1"),
        ({"shape": (1,), "low": 1.0}, "low < high"),
        ({"shape": (1,), "high": np.inf}, "finite bounds"),
        ({"shape": (1,), "step": 2.0}, "the step of a box"),
    ],
)
def test_a_box_that_holds_nothing_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        BoxSpace(**wrong)
