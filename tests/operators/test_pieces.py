"""The one function that puts rows together, against one that does it symbol by symbol."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.pieces import PerSpace, Piece, concatenate, erase, places, put, spans
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Batch

SPACE = TextSpace(tuple("abcdefghij"), 3, 9)


def near(space=SPACE, seed=0):
    return MutationContext(space, Batch.of([np.zeros(3, np.int32)]), np.random.default_rng(seed))


def texts(*rows):
    return Batch.of([SPACE.encode(row) for row in rows])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), count=st.integers(1, 5))
def test_equals_a_concatenation_row_by_row(seed, size, count):
    rng = np.random.default_rng(seed)
    sources = [rng.integers(10, size=(size, rng.integers(1, 9))).astype(np.int32) for _ in range(2)]
    pieces = []
    for _ in range(count):
        source = sources[rng.integers(2)]
        start = rng.integers(source.shape[1] + 1, size=size)
        pieces.append(Piece(source, start, rng.integers(source.shape[1] - start + 1)))
    rows = Batch.of([np.zeros(1, np.int32)] * size)
    result = concatenate(rows, pieces, near(seed=seed))
    for i in range(size):
        whole = np.concatenate([p.source[i, p.start[i] : p.start[i] + p.length[i]] for p in pieces])
        row = result.row(i)
        assert len(row) == min(max(len(whole), 3), 9)  # fits the space
        kept = min(len(whole), 9)
        assert row[len(row) - kept :].tolist() == whole[len(whole) - kept :].tolist()  # keeps the end
    assert SPACE.legal(result).all()
    assert result.data.shape[1] == result.lengths.max()
    assert not result.data[np.arange(result.data.shape[1]) >= result.lengths[:, None]].any()


def test_sources_may_be_views_in_any_memory_order():
    rows = texts("abcde", "fghij")
    turned = np.asfortranarray(rows.data)
    one = np.array([1, 1])
    for source in (turned, turned[:, ::1], np.repeat(rows.data, 2, axis=1)[:, ::2]):
        result = concatenate(rows, [Piece(source, one, one + 2)], near())
        assert SPACE.texts(result) == ["bcd", "ghi"]


def test_fills_short_rows_with_random_symbols_in_front():
    rows = texts(*["abc"] * 200)
    one = np.ones(200, np.int64)
    result = SPACE.texts(concatenate(rows, [Piece(rows.data, one, one)], near()))
    assert {text[2:] for text in result} == {"b"}
    assert {text[0] for text in result} == set("abcdefghij")


def test_put_inserts_and_overwrites():
    rows, word = texts("abcdef", "abcdef", "abcdef"), texts("jj", "jj", "jj")
    two = np.full(3, 2)
    result = put(rows, np.array([1, 6, 4]), np.array([0, 0, 2]), Piece(word.data, two - 2, two), near())
    assert SPACE.texts(result) == ["ajjbcdef", "abcdefjj", "abcdjj"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(length=st.integers(3, 9), size=st.integers(1, 9), at=st.integers(0, 9), over=st.integers(0, 9))
def test_put_never_cuts_what_it_puts(length, size, at, over):
    at, over = min(at, length), min(over, length)
    rows, word = texts("abcdefghi"[:length]), Batch.of([np.full(size, 9)])
    piece = Piece(word.data, np.zeros(1, np.int64), word.lengths)
    result = put(rows, np.array([at]), np.array([over]), piece, near())
    assert "j" * size in SPACE.texts(result)[0]
    assert SPACE.legal(result).all()


def test_erase_takes_out_a_span():
    rows = texts("abcdef", "abcdef")
    assert SPACE.texts(erase(rows, np.array([0, 2]), np.array([2, 3]), near())) == ["cdef", "abf"]


def test_places_are_half_uniform_and_half_near_the_end():
    drawn = places(np.full(40_000, 1000), np.random.default_rng(0))
    assert drawn.min() >= 0
    assert drawn.max() == 999
    assert np.mean(drawn >= 1000 - 40) == pytest.approx(0.5 + 0.5 * 0.04, abs=0.02)
    assert np.mean(999 - drawn[drawn >= 900]) == pytest.approx(7 * 0.91 + 50 * 0.09, abs=1)
    assert np.mean(drawn[drawn < 900]) == pytest.approx(450, abs=10)
    assert set(places(np.array([0, 1] * 50), np.random.default_rng(1))) == {0}


def test_spans_lie_inside_their_rows():
    lengths = np.repeat(np.arange(12), 300)
    start, size = spans(lengths, 5, np.random.default_rng(0))
    assert (start >= 0).all()
    assert (start + size <= lengths).all()
    assert (size[lengths == 0] == 0).all()
    assert set(size[lengths == 3]) == {1, 2, 3}
    assert set(size[lengths == 11]) == {1, 2, 3, 4, 5}
    assert (start + size)[lengths == 11].max() == 11


def test_per_space_is_made_once_for_a_space():
    made = []
    per = PerSpace(lambda space: made.append(space) or len(space.symbols))
    other = replace(SPACE, symbols=("a",))
    assert [per(SPACE), per(SPACE), per(other), per(SPACE)] == [10, 10, 1, 10]
    assert len(made) == 3
