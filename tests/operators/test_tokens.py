"""Operators on tokens: what they put where, and that a text can stay what it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.spellings import letters
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.tokens import Neighbour, Rare, Respell
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Batch

TOKENS = letters("abcd ", 30)
SIZE = len(TOKENS.symbols)
LONG = np.flatnonzero([len(text) > 1 for text in TOKENS.symbols])
examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


class Twice:
    """A lexicon in which token i is like 2 i and 2 i + 1, and two tokens are rare."""

    rare = np.array([3, 5], np.int32)

    def __init__(self):
        self.asked = []

    def neighbours(self, symbols, count):
        self.asked.append((symbols.tolist(), count))
        return (2 * symbols[:, None] + np.arange(count)).astype(np.int32) % SIZE


def around(rows, seed=0, lexicon=None, most=32, **more):
    space = TextSpace(TOKENS.symbols, 1, most, tokens=TOKENS, **more)
    return MutationContext(space, rows, np.random.default_rng(seed), None, lexicon)


def test_a_neighbour_stands_where_another_token_stood():
    rows, lexicon = Batch.of([np.arange(1, 9)] * 200), Twice()
    changed = Neighbour(count=2)(rows, around(rows, lexicon=lexicon))
    row, at = (changed.data != rows.data).nonzero()
    assert sorted(set(row.tolist())) == list(range(200))
    assert len(row) == 200
    before, after = rows.data[row, at], changed.data[row, at]
    assert set((after - 2 * before % SIZE).tolist()) == {0, 1}
    assert set(at.tolist()) == set(range(8))
    assert lexicon.asked == [(before.tolist(), 2)]  # of nothing else, once for all rows


def test_a_rare_token_is_inserted_or_written_over_another():
    rows = Batch.of([np.full(6, 9)] * 200)
    changed = Rare()(rows, around(rows, lexicon=Twice()))
    for i in range(200):
        row = changed.row(i).tolist()
        assert len(row) in (6, 7)
        assert sum(token in (3, 5) for token in row) == 1
        assert row.count(9) == len(row) - 1
    assert {int(n) for n in changed.lengths} == {6, 7}
    assert {3, 5} <= set(changed.data.ravel().tolist())


@examples
@given(
    rows=st.lists(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12), min_size=1, max_size=8),
    longest=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_a_row_that_is_respelled_has_the_same_text(rows, longest, seed):
    batch = Batch.of([np.array(row) for row in rows])
    near = around(batch, seed)
    changed = Respell(longest=longest)(batch, near)
    assert near.text.texts(changed) == near.text.texts(batch)
    for i, row in enumerate(rows):
        long = sum(token in LONG for token in row)
        more = changed.lengths[i] - len(row)
        assert (more >= 1) == (long > 0)
        assert more <= min(longest, long)


def test_all_ways_to_split_a_token_are_taken():
    known = set(TOKENS.symbols)

    def cuts(text):
        return {(text[:i], text[i:]) for i in range(1, len(text)) if {text[:i], text[i:]} <= known}

    text = max(TOKENS.symbols, key=lambda text: len(cuts(text)))
    rows = Batch.of([np.array([TOKENS.symbols.index(text)])] * 300)
    changed = Respell()(rows, around(rows))
    found = {tuple(TOKENS.symbols[i] for i in changed.row(j)) for j in range(300)}
    assert found == cuts(text)
    assert len(found) >= 2


def test_a_row_that_is_full_loses_its_front():
    rows = Batch.of([np.concatenate([[0, 1, 2], LONG[:5]])])
    near = around(rows, most=8)
    changed = Respell()(rows, near)
    before, after = near.text.texts(rows)[0], near.text.texts(changed)[0]
    assert changed.lengths.tolist() == [8]
    assert before.endswith(after)
    assert before != after


def test_what_they_need():
    rows = Batch.of([np.arange(3)])
    for operator in (Neighbour(), Rare()):
        with pytest.raises(UsageError, match="a token model that shows embeddings"):
            operator(rows, around(rows))
    characters = MutationContext(TextSpace(tuple("abc")), rows, np.random.default_rng(0))
    with pytest.raises(UsageError, match="--level token"):
        Respell()(rows, characters)
