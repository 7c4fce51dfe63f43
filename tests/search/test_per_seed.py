"""Campaigns per seed: who is done, what it cost, and searches that do not hear of one another's seeds."""

from dataclasses import replace

import numpy as np
import pytest

from lmfuzz.inputs.bounds import Edits
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators import OPERATORS
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import SearchContext
from lmfuzz.search import SEARCHES
from lmfuzz.search.per_seed import PerSeed
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.storage.serialize import decode, encode
from lmfuzz.types import Batch

SPACE = TextSpace(tuple("abcdefgh"), 2, 12)
SEEDS = ("aaaa", "bbbb", "cccc", "dddd", "abab")
NAMES = ("random", "walk", "tensorfuzz", "directed")


def setting(queries=None, edits=None, seed=0):
    seeds = Batch.of([SPACE.encode(text) for text in SEEDS])
    operators = {name: OPERATORS.build(parse(name)) for name in ("substitute", "insert", "delete")}
    bound = Edits(edits, SPACE, seeds) if edits else None
    return SearchContext(
        SPACE, seeds, operators, ("h", "crash"), Corpus(SPACE), np.random.default_rng(seed), bound=bound,
        queries=queries,
    )  # fmt: skip


def per_seed(name, around):
    return PerSeed(around, lambda alone: SEARCHES.build(parse(name), alone))


def graded(batch):
    """Hits where the letter of a seed other than ``abab`` is gone; graded by how many are left."""
    letters = np.array([0, 1, 2, 3, 99])[batch.origin]
    valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
    left = ((batch.data == letters[:, None]) & valid).sum(axis=1)
    margins = np.where(letters == 99, -1, 0.5 - left)
    return np.stack([margins, np.full(len(batch), -np.inf)], axis=1).astype(np.float32)


def turn(search, size):
    batch = search.ask(size)
    if len(batch):
        novel = batch.data.sum(axis=1) % 3 == 0
        search.tell(batch, {"text": np.array(SPACE.texts(batch), object)}, graded(batch), novel)
    return batch


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_is_searched_until_it_is_done(name):
    around = setting(queries=400)
    search, seen = per_seed(name, around), np.zeros(len(SEEDS), int)
    for _ in range(2000):
        batch = turn(search, 32)
        if not len(batch):
            break
        assert len(batch) <= 32
        assert SPACE.legal(batch).all()
        bred = batch.parent >= 0
        np.add.at(seen, batch.origin[bred], 1)
        ancestors = around.corpus[batch.parent[bred]].origin
        assert (ancestors == batch.origin[bred]).all(), "a row's parent descends from the same seed"
    assert len(search.ask(32)) == 0
    trials = search.outcomes
    assert not trials.solved[4]
    assert trials.queries[4] == seen[4] == 400
    assert (trials.queries <= seen).all()
    if name == "directed":
        assert trials.solved[:4].all()
    assert np.isnan(trials.distance[~trials.solved]).all()
    assert (trials.distance[trials.solved] >= 4).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_follow_after_a_resume(name):
    around = setting(queries=300)
    search = per_seed(name, around)
    for _ in range(6):
        turn(search, 24)
    state = decode(encode(search.state()))
    corpus = Corpus(SPACE)
    corpus.add(around.corpus[slice(None)])
    rng = np.random.default_rng()
    rng.bit_generator.state = around.rng.bit_generator.state
    other = per_seed(name, replace(around, corpus=corpus, rng=rng))
    other.restore(state)
    for _ in range(6):
        one, two = turn(search, 24), turn(other, 24)
        assert SPACE.texts(one) == SPACE.texts(two)
        assert (one.parent == two.parent).all()
        assert (one.origin == two.origin).all()


@pytest.mark.parametrize("name", NAMES)
def test_edits_bound_every_row(name):
    search, seeds = per_seed(name, setting(queries=60, edits=2)), [SPACE.encode(text) for text in SEEDS]
    while len(batch := turn(search, 32)):
        assert all(SPACE.distance(batch.row(i), seeds[o]) <= 2 for i, o in enumerate(batch.origin.tolist()))


def test_queries_are_counted_up_to_the_first_hit():
    trials = SeedOutcomes(setting(queries=5))
    seeds = Batch.of([SPACE.encode(text) for text in SEEDS])
    trials.note(seeds, np.array([[-1], [2], [-1], [-3], [np.nan]], np.float32))
    assert trials.natural.tolist() == [False, True, False, False, False]
    assert trials.queries.sum() == 0
    rows = Batch.of([SPACE.encode("hh")] * 6, parent=0)
    rows = replace(rows, origin=np.array([0, 2, 0, 0, 2, 3]))
    trials.note(rows, np.array([[-1], [-2], [1], [3], [-0.5], [-1]], np.float32))
    assert trials.queries.tolist() == [2, 0, 2, 1, 0]
    assert trials.solved.tolist() == [True, False, False, False, False]
    assert trials.distance[0] == SPACE.distance(SPACE.encode("hh"), seeds.row(0))
    assert trials.open.tolist() == [2, 3, 4]
    trials.note(rows[[5, 5, 5, 5]], np.full((4, 1), -1, np.float32))
    assert trials.open.tolist() == [2, 4]
    again = SeedOutcomes(setting(queries=5))
    again.restore(decode(encode(trials.state())))
    assert again.open.tolist() == [2, 4]
