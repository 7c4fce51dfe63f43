"""Bounds move rows back within reach of their seeds, and leave those within as they are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bounds import Edits, Linf
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import Batch

TEXT = TextSpace(tuple("abcdefgh"), 2, 12)
examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("step", [0.0, 1 / 255])
@pytest.mark.parametrize("most", [0.1, 0.4, 1 / 255])
def test_no_value_is_farther_from_its_seeds_than_allowed(step, most):
    space, rng = BoxSpace((4, 4, 1), step=step), np.random.default_rng(0)
    seeds = space.batch(space.settle(rng.random((5, 4, 4, 1))))
    rows = replace(space.batch(rng.normal(0.5, 1, (50, 4, 4, 1))), origin=rng.integers(5, size=50))
    held = Linf(most, space, seeds).hold(rows, rng)
    assert space.legal(held).all()
    far = np.abs(held.data - seeds.data[rows.origin])
    assert far.max() <= most + 1e-6
    assert far.max() > most - max(step, 1e-6), "the bound is used to the full"
    again = Linf(most, space, seeds).hold(held, rng)
    assert (again.data == held.data).all()


def test_a_bound_below_the_pixel_step_is_refused():
    space = BoxSpace((4, 4, 1), step=1 / 255)
    with pytest.raises(UsageError, match=r"below the pixel step, 0\.003922 \(1/255\): nothing may change"):
        Linf(0.002, space, space.batch(space.empty(1)))


texts = st.lists(st.integers(0, 7), min_size=2, max_size=12)


@examples
@given(
    seeds=st.lists(texts, min_size=1, max_size=4),
    rows=st.lists(texts, min_size=1, max_size=6),
    data=st.data(),
)
def test_no_text_has_more_edits_than_allowed(seeds, rows, data):
    most, rng = data.draw(st.integers(1, 4)), np.random.default_rng(0)
    start = Batch.of([np.array(seed, np.int32) for seed in seeds])
    batch = Batch.of([np.array(row, np.int32) for row in rows])
    batch = replace(batch, origin=np.array([i % len(seeds) for i in range(len(rows))]))
    held = Edits(most, TEXT, start).hold(batch, rng)
    assert TEXT.legal(held).all()
    for i in range(len(batch)):
        seed = start.row(int(batch.origin[i]))
        before, after = TEXT.distance(batch.row(i), seed), TEXT.distance(held.row(i), seed)
        assert after <= most
        if before <= most:
            assert held.row(i).tolist() == batch.row(i).tolist()


def test_of_many_edits_some_are_kept():
    seed, row = TEXT.encode("abcdefgh"), TEXT.encode("hgfedcba")
    rows = replace(Batch.of([row] * 40), origin=np.zeros(40, np.int64))
    held = Edits(3, TEXT, Batch.of([seed])).hold(rows, np.random.default_rng(1))
    far = [TEXT.distance(held.row(i), seed) for i in range(40)]
    assert max(far) == 3
    assert np.mean(far) > 1.5
    assert len(set(TEXT.texts(held))) > 10
