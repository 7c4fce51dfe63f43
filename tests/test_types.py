"""Batches, spaces and traces: rows stay what they were however they are taken and joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.rng import Streams
from lmfuzz.types import PAD, SEED, Batch, join, take, unknown

texts = st.lists(st.text("abc ", max_size=6), min_size=1, max_size=8)
quick = settings(max_examples=50, deadline=None, derandomize=True, database=None)
SPACE = TextSpace(tuple("abc "), 1, 6)


def batch_of(rows, parent=SEED, operator=SEED):
    return Batch.of([SPACE.encode(row) for row in rows], parent, operator)


@quick
@given(texts)
def test_a_batch_gives_back_the_rows_it_was_made_of(rows):
    batch = batch_of(rows)
    assert len(batch) == len(rows)
    assert [SPACE.decode(batch.row(i)) for i in range(len(rows))] == SPACE.texts(batch) == rows
    assert (batch.data.dtype, batch.lengths.dtype) == (np.int32, np.int32)
    assert (batch.parent.dtype, batch.operator.dtype) == (np.int64, np.int32)
    assert (batch.parent == SEED).all()
    assert (batch.operator == SEED).all()


def test_a_batch_without_rows():
    batch = Batch.of([])
    assert len(batch) == 0
    assert SPACE.texts(batch) == []
    assert SPACE.legal(batch).tolist() == []


@quick
@given(texts, st.data())
def test_rows_are_taken_by_mask_ids_and_slice(rows, data):
    batch = batch_of(rows, 3, 1)
    ids = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    start = data.draw(st.integers(0, len(rows)))
    assert SPACE.texts(batch[ids]) == [rows[i] for i in ids]
    assert SPACE.texts(batch[np.array(ids, int)]) == [rows[i] for i in ids]
    assert SPACE.texts(batch[mask]) == [row for row, taken in zip(rows, mask, strict=True) if taken]
    assert SPACE.texts(batch[start:]) == rows[start:]
    assert batch[mask].parent.tolist() == [3] * mask.sum()


@quick
@given(texts, st.integers(0, 7))
def test_a_row_alone_has_no_padding(rows, i):
    i %= len(rows)
    alone = batch_of(rows, 5, 2).alone(i)
    assert SPACE.texts(alone) == [rows[i]]
    assert alone.data.shape == (1, max(1, len(rows[i])))
    assert (alone.parent.tolist(), alone.operator.tolist()) == ([5], [2])


@quick
@given(st.lists(texts, min_size=1, max_size=4))
def test_joined_batches_hold_all_rows_in_order(parts):
    joined = join([batch_of(rows, k, k + 1) for k, rows in enumerate(parts)])
    assert SPACE.texts(joined) == [row for rows in parts for row in rows]
    assert joined.parent.tolist() == [k for k, rows in enumerate(parts) for _ in rows]
    assert joined.operator.tolist() == [k + 1 for k, rows in enumerate(parts) for _ in rows]
    assert joined.data.dtype == np.int32


def test_taking_rows_of_a_trace_takes_them_of_every_channel():
    trace = {"a": np.arange(4), "b": np.arange(8).reshape(4, 2)}
    taken = take(trace, np.array([True, False, False, True]))
    assert taken["a"].tolist() == [0, 3]
    assert taken["b"].tolist() == [[0, 1], [6, 7]]


# --- spaces ---


def test_a_character_outside_the_alphabet_is_named():
    assert SPACE.knows("ab c")
    assert not SPACE.knows("abd")
    with pytest.raises(UsageError, match="'d'"):
        SPACE.encode("abdé")


def test_an_output_ends_at_its_padding():
    assert SPACE.decode(np.array([0, 1, PAD, 2, PAD])) == "ab"
    assert SPACE.decode(np.array([PAD])) == ""
    assert SPACE.decode(np.array([], np.int32)) == ""


def test_symbols_may_be_several_characters_long():
    space = TextSpace(("ab", "c"))
    assert space.decode(np.array([1, 0, 1])) == "cabc"
    rows = Batch.of([np.array([0, 0]), np.array([1]), np.array([1, 0, 1])])
    assert space.texts(rows) == ["abab", "c", "cabc"]


def test_symbols_may_be_any_characters_and_padding_is_not_read():
    space = TextSpace(tuple("a\U0001f600é\x00\n\ufeff"))
    rows = ["\U0001f600a\U0001f600", "\x00", "", "\ufeffé\n\x00"]
    batch = Batch.of([space.encode(row) for row in rows])
    batch.data[1, 1:], batch.data[2, :] = 10**6, -7
    assert space.texts(batch) == [space.decode(batch.row(i)) for i in range(4)] == rows


@pytest.mark.parametrize(
    ("row", "legal"),
    [
        ([], False),
        ([0], False),
        ([0, 1], True),
        ([3, 3, 3], True),
        ([0] * 4, False),
        ([0, 4], False),
        ([-1, 0], False),
    ],
)
def test_a_row_is_legal_inside_its_lengths_and_alphabet(row, legal):
    space = TextSpace(tuple("abc "), 2, 3)
    batch = Batch.of([np.array(row, np.int32), np.array([0, 0], np.int32)])
    assert space.legal(batch).tolist() == [legal, True]


def test_padding_is_always_legal():
    batch = batch_of(["a", "abc"])
    batch.data[0, 1:] = [99, -5]
    assert SPACE.legal(batch).all()


# --- channels ---


def test_channels_that_nobody_provides_are_listed_in_order():
    have = {"text", "phrase_gap/"}
    assert unknown(["text", "phrase_gap/fw/fie", "phrase_gap/"], have) == []
    assert unknown(["z", "hidden", "a/b", "text"], have) == ["a/b", "hidden", "z"]


# --- streams of random numbers ---


def test_streams_are_the_same_for_a_seed_and_a_name_and_differ_otherwise():
    def draws(seed, name, before=()):
        streams = Streams(seed)
        for other in before:
            streams[other].random(100)
        return tuple(streams[name].random(4))

    assert draws(1, "search") == draws(1, "search", before=("decode", "seeds"))
    distinct = {draws(seed, name) for seed in (0, 1, 2**63 - 1) for name in ("search", "seeds", "")}
    assert len(distinct) == 9


def test_streams_go_on_after_a_restore():
    unbroken = Streams(5)
    unbroken["a"].random(3)
    unbroken["b"].normal(size=7)
    state = unbroken.state()
    want = [unbroken[name].random(4).tolist() for name in ("a", "b", "c")]
    resumed = Streams(5)
    resumed["b"].random(1)
    resumed.restore(state)
    assert [resumed[name].random(4).tolist() for name in ("a", "b", "c")] == want
