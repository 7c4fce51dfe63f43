"""DiffChaser: generations, who survives them, and what counts as a query."""

import numpy as np
import pytest

from helpers.duel import SHAPE, Duel, Run, rows_of, same_when_resumed
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import SearchContext
from lmfuzz.search.diffchaser import DiffChaser
from lmfuzz.types import Batch

NEVER = Duel(apart=0)  # a twin that is the base


def chaser(**parameters):
    return lambda around: DiffChaser(around, **{"population": 30, **parameters})


def started(duel=NEVER, seeds=4, step=0.0, most=None, queries=None, rng=0, **parameters):
    """A run whose seeds were run."""
    run = Run.of(chaser(**parameters), duel, seeds, step, most, queries, rng=rng)
    run.turn()
    return run


def test_a_generation_is_run_once_but_for_the_elite():
    run = started(elite=3)
    sizes = [len(run.turn(60)) for _ in range(4)]
    assert sizes == [60, 54, 54, 54], "two populations fit"
    assert run.search.outcomes.queries.tolist() == [222 // 2, 222 // 2, 0, 0]


def test_a_generation_that_does_not_fit_is_handed_out_over_several_batches():
    run = started()
    batches = [run.turn(12) for _ in range(6)]
    assert [len(batch) for batch in batches] == [12, 12, 6, 12, 12, 5]
    assert all((batch.origin == 0).all() for batch in batches)


def test_the_first_generation_are_mutants_of_the_seed():
    run = started(population=400, rate=0.1, step=1 / 255)
    batch = run.turn(400)
    changed = batch.data != run.context.seeds.data[0]
    assert 0.09 < changed.mean() < 0.11
    values = np.rint(255 * batch.data[changed]).astype(int)
    assert values.min() <= 2
    assert values.max() >= 253
    assert len(set(values.tolist())) > 240, "any legal value"
    assert (batch.parent == 0).all()


@pytest.mark.parametrize("kind", ["uncertainty", "target"])
def test_the_elite_stays_and_gets_no_worse(kind):
    run, best, elite = started(fitness=kind, elite=2), np.inf, np.zeros((2, *SHAPE))
    for generation in range(12):
        batch = run.turn(30)
        assert len(batch) == (28 if generation else 30)
        members, known = run.search._members[0], run.search._fitness[0]
        if generation:
            np.testing.assert_array_equal(members[:2], elite)
            np.testing.assert_array_equal(members[2:], batch.data)
        assert known.min() <= best
        best, elite = known.min(), members[np.argsort(known, kind="stable")[:2]]
    assert best < 0.05


def test_fitness_is_the_bases_uncertainty():
    for k in (2, 3):
        run = started(k=k)
        batch = run.turn(30)
        shares = np.sort(run.duel.run(batch)["base/probabilities"].astype(np.float64), axis=1)
        np.testing.assert_allclose(run.search._fitness[0], shares[:, -1] - shares[:, -k])
    run = started(fitness="target")
    seed = run.duel.run(run.context.seeds)["base/probabilities"][0]
    shares = run.duel.run(run.turn(30))["base/probabilities"].astype(np.float64)
    second = seed.argsort()[-2]
    np.testing.assert_allclose(run.search._fitness[0], shares.max(axis=1) - shares[:, second])


def test_children_are_crossed_of_fit_members():
    run = started(population=200, rate=0.0, tournament=8)
    run.search._ids = np.array([0])
    members = np.random.default_rng(5).random((1, 200, *SHAPE), np.float32)
    ranks = np.arange(200.0)[None]
    bred, known = run.search._next(run.search._ids, members, ranks)
    np.testing.assert_array_equal(bred[0, 0], members[0, 0])
    assert known[0, 0] == 0
    from_whom = np.array([
        [int(np.flatnonzero(members[0, :, i, j, 0] == child[i, j, 0])[0]) for i in range(6) for j in range(5)]
        for child in bred[0, 1:]
    ])  # fmt: skip
    parents = [set(child.tolist()) for child in from_whom]
    assert all(len(pair) <= 2 for pair in parents)
    assert np.mean([len(pair) == 2 for pair in parents]) > 0.9
    share = np.mean([(child == min(child)).mean() for child in from_whom if len(set(child.tolist())) == 2])
    assert 0.45 < share < 0.55
    chosen = np.array([rank for pair in parents for rank in pair])
    assert 200 / 9 * 0.8 < chosen.mean() < 200 / 9 * 1.2, "the best of eight is on average at a ninth"


def test_a_seed_ends_at_its_first_hit_and_the_next_takes_its_place():
    run = Run.of(chaser(population=40), Duel(apart=0.1), seeds=6, queries=4000)
    run.to_the_end(80)
    trials = run.search.outcomes
    assert (trials.solved | trials.natural).mean() > 0.8
    assert (trials.queries[trials.solved] % 39 != 0).any(), "hits stand anywhere in a generation"
    again = Run.of(chaser(population=40), Duel(apart=0.1), seeds=6, queries=4000)
    hits = []
    while len(batch := again.turn(80)):
        margins = again.duel.margins(again.duel.run(batch))[:, 0]
        hits += [int(o) for o, m, p in zip(batch.origin, margins, batch.parent, strict=True) if m > 0 <= p]
    assert set(hits) == set(np.flatnonzero(trials.solved).tolist())


@pytest.mark.parametrize("size", [1, 7, 45, 1000])
def test_queries_never_exceed_what_there_is(size):
    run = Run.of(chaser(), NEVER, seeds=3, queries=70)
    assert run.to_the_end(size) == 3 + 3 * 70
    assert run.search.outcomes.queries.tolist() == [70] * 3


@pytest.mark.parametrize("step", [0.0, 1 / 255])
def test_a_bound_is_kept(step):
    run = Run.of(chaser(), seeds=4, step=step, most=0.2, queries=300)
    run.to_the_end()
    assert run.search.outcomes.queries.max() > 30


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("most", [None, 0.2])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(before, most):
    same_when_resumed(chaser(), before, duel=Duel(apart=0.003), seeds=3, most=most)


def test_the_same_seed_makes_the_same_search_and_another_another():
    one, same, other = (started(rng=seed) for seed in (1, 1, 2))
    turns = [[rows_of(run.turn()) for _ in range(5)] for run in (one, same, other)]
    assert turns[0] == turns[1] != turns[2]


def test_no_number_is_the_least_fit():
    run = started()
    batch = run.search.ask(30)
    shares = run.duel.run(batch)["base/probabilities"]
    shares[::2] = np.nan
    run.search.tell(batch, {"base/probabilities": shares}, np.full((30, 1), np.nan), np.zeros(30, bool))
    assert np.isinf(run.search._fitness[0, ::2]).all()
    assert np.isfinite(run.search._fitness[0, 1::2]).all()
    run.turn(30)


def test_wrong_use():
    text = TextSpace(("a", "b"))
    around = SearchContext(text, Batch.of([np.array([0])]), {}, ("d",), None, np.random.default_rng(0))
    with pytest.raises(UsageError, match="take directed for texts"):
        DiffChaser(around)
    with pytest.raises(UsageError, match="elite must be less than the population of 30, not 30"):
        started(elite=30)
