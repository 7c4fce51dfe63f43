"""Mutants keep the order of their parents, and operators get what the search was given."""

import numpy as np
import pytest

from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import SearchContext
from lmfuzz.search.mutation import GROUPS, Mutator
from lmfuzz.types import Batch, join

SPACE = TextSpace(tuple("abcdefghij"), 1, 4)
SAMPLER = object()


class Borrow:
    """Puts the first symbol of the pool's row at its place behind the row's own; notes what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, rows, near):
        self.seen.append(near)
        assert len(near.pool) == len(rows)
        data = np.concatenate([rows.data[:, :1], near.pool.data[:, :1]], axis=1)
        return rows.changed(data, np.full(len(rows), 2, np.int32))


def made(operators):
    corpus = Corpus(SPACE)
    seeds = Batch.of([np.array([symbol]) for symbol in range(5)])
    return Mutator(SearchContext(SPACE, seeds, operators, ("t",), corpus, np.random.default_rng(0), SAMPLER))


@pytest.mark.parametrize("size", [1, 2, GROUPS, GROUPS + 1, 30])
def test_every_mutant_stands_at_its_parents_place(size):
    one, other = Borrow(), Borrow()
    mutator = made({"one": one, "other": other})
    ids, pool = np.arange(size) % 5, (3 * np.arange(size) + 1) % 5
    corpus = mutator.context.corpus
    mutants = mutator.change(corpus.parents(ids), corpus[pool])
    assert mutants.data[:, :2].tolist() == np.stack([ids, pool], axis=1).tolist()
    assert mutants.parent.tolist() == ids.tolist()
    assert set(mutants.operator.tolist()) <= {0, 1}
    seen = one.seen + other.seen
    assert len(seen) == min(GROUPS, size)
    assert all(near.sampler is SAMPLER and near.space is SPACE for near in seen)


def test_without_a_pool_operators_borrow_from_seeds_alone():
    borrow = Borrow()
    mutator = made({"borrow": borrow})
    mutator.context.corpus.add(Batch.of([np.array([9])] * 50))
    mutator.mutate(np.full(200, 7))
    pools = join([near.pool for near in borrow.seen])
    assert set(pools.data[:, 0].tolist()) == {0, 1, 2, 3, 4}


def test_operators_are_drawn_by_the_choice_given():
    mutator = made({"a": Borrow(), "b": Borrow(), "c": Borrow()})
    mutants = mutator.mutate(np.zeros(8, int), choose=lambda groups: np.full(groups, 1))
    assert mutants.operator.tolist() == [1] * 8


def test_a_corpus_that_holds_rows_already_is_left_as_it_is():
    first = made({"a": Borrow()})
    again = Mutator(first.context)
    assert len(first.context.corpus) == 5
    assert SPACE.texts(again.seeds(9)) == ["a", "b", "c", "d", "e"]
