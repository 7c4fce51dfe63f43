"""TriggerFinder: its operators' chain, what it keeps, and what it remembers of every seed."""

import numpy as np
import pytest

from helpers.duel import Duel, Run, rows_of, same_when_resumed
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import SearchContext
from lmfuzz.search.triggerfinder import PAPER, TriggerFinder

SPACE = BoxSpace((2,))


def plus(amount):
    """Adds to the first value, so that rows tell which operator made them; notes its calls."""

    def add(rows, near):
        add.calls += 1
        data = rows.data.copy()
        data[:, 0] += amount
        return rows.changed(near.space.settle(data))

    add.calls = 0
    return add


def finder(operators=7, seeds=1, names=None, **parameters):
    corpus = Corpus(SPACE)
    names = names or [f"plus{i}" for i in range(operators)]
    context = SearchContext(
        SPACE, SPACE.batch(np.zeros((seeds, 2))), {n: plus((i + 1) / 100) for i, n in enumerate(names)},
        ("d",), corpus, np.random.default_rng(0),
    )  # fmt: skip
    return context, TriggerFinder(context, **parameters)


def answer(search, batch, base, twin, margin=-1.0):
    """Tell the same two rows of probabilities (C,) for every row of the batch."""
    trace = {
        f"{name}/probabilities": np.tile(np.array(shares, np.float32), (len(batch), 1))
        for name, shares in (("base", base), ("twin", twin))
    }
    search.tell(batch, trace, np.full((len(batch), 1), margin, np.float32), np.zeros(len(batch), bool))


def begun(seeds=1, **parameters):
    """A finder whose seeds were run: d is 0.01."""
    context, search = finder(seeds=seeds, **parameters)
    answer(search, search.ask(seeds), [0.9, 0.1], [0.89, 0.11])
    return context, search


# --- the operators' chain ---


def chain_draws(last, count=40_000, operators=7):
    """How often (K,) each rank was drawn after the operator of rank ``last``."""
    _, search = finder(operators, seeds=count)
    best_first = np.roll(np.arange(operators), 2)  # rank -> operator
    search._tries[:] = 100
    search._successes[:, best_first] = np.arange(operators, 0, -1) * 10
    search._last[:] = best_first[last]
    drawn = search._choose(np.arange(count))
    return np.bincount(np.argsort(best_first)[drawn], minlength=operators) / count


@pytest.mark.parametrize("last", [0, 3, 6])
def test_proposals_are_accepted_by_metropolis_and_hastings_rule(last):
    expected = np.minimum(1, (6 / 7) ** (np.arange(7) - last))
    np.testing.assert_allclose(chain_draws(last), expected / expected.sum(), atol=0.012)


def test_better_operators_are_drawn_more_often():
    shares = chain_draws(0)
    assert (np.diff(shares) < 0).all()
    assert shares[0] > 2 * shares[6]


def test_the_first_operator_and_ties_are_drawn_evenly():
    _, search = finder(seeds=20_000)
    first = np.bincount(search._choose(np.arange(20_000)), minlength=7) / 20_000
    np.testing.assert_allclose(first, 1 / 7, atol=0.012)
    search._last[:] = 2  # all of them have no record, so that the rank of the last one is any
    tied = np.bincount(search._choose(np.arange(20_000)), minlength=7) / 20_000
    np.testing.assert_allclose(np.delete(tied, 2), tied[np.arange(7) != 2].mean(), atol=0.012)


def test_operators_are_called_once_per_batch_and_named_as_the_campaign_does():
    names = ["other", *PAPER, "another"]
    context, search = finder(seeds=200, names=names)
    answer(search, search.ask(200), [0.9, 0.1], [0.9, 0.1])
    for _ in range(5):
        before = [operator.calls for operator in context.operators.values()]
        start = search._data[:, 0].copy()
        batch = search.ask(200)
        np.testing.assert_allclose(batch.data[:, 0] - start, (batch.operator + 1) / 100, atol=1e-6)
        after = [operator.calls for operator in context.operators.values()]
        assert np.array_equal(np.subtract(after, before), [0, 1, 1, 1, 1, 1, 1, 1, 0])
        answer(search, batch, [0.9, 0.1], [0.85, 0.15])
    assert np.allclose(search._tries.sum(axis=1), 5)
    _, any_operator = finder(seeds=200, names=names, paper=False)
    answer(any_operator, any_operator.ask(200), [0.9, 0.1], [0.9, 0.1])
    assert set(any_operator.ask(200).operator.tolist()) == set(range(9))


# --- what is kept ---

NEAR, FAR = [0.1, 0.0, 0.0, 0.0], [0.0, 0.23, 0.23, 0.24]  # of other classes
KEPT = [  # the models' largest probabilities, what is left for others; kept by the paper, by the code
    (0.9, 0.89, NEAR, True, False),  # as the seed: H does not fall
    (0.9, 0.8895, NEAR, True, False),
    (0.9, 0.885, NEAR, True, True),
    (0.9, 0.8905, NEAR, False, False),  # H falls by a half
    (0.9, 0.897, NEAR, False, True),  # which way d changes does not matter to the code
    (0.897, 0.9, NEAR, False, True),  # d is absolute: 0.003
    (0.3, 0.31, FAR, True, True),  # a new state
    (0.3, 0.3095, FAR, True, True),  # is worth a difference of 0.001
    (0.3, 0.305, FAR, False, True),  # and no more
]


@pytest.mark.parametrize(("base", "twin", "others", "paper", "code"), KEPT)
def test_what_takes_a_lineage_on(base, twin, others, paper, code):
    for fitness, expected in (("paper", paper), ("code", code)):
        _, search = finder(fitness=fitness)
        answer(search, search.ask(1), [0.9, *NEAR], [0.89, *NEAR])
        batch = search.ask(1)
        answer(search, batch, [base, *others], [twin, *others])
        assert np.array_equal(search._data[0], batch.data[0]) == expected, fitness
        assert search._successes[0, batch.operator[0]] == expected
        assert search._tries[0, batch.operator[0]] == 1
        assert (search._last[0] == batch.operator[0]) == expected


def test_a_state_is_new_once():
    _, search = begun()
    states = [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.35, 0.65], [0.12, 0.88]]
    fresh = [bool(search._cover(np.array([0]), np.array([state + state]))[0]) for state in states]
    assert fresh == [False, True, False, False, False, False]
    assert search._cover(np.array([0]), np.array([[0.5, 0.5, 0.5, 0.5]])).tolist() == [True]
    assert search._cover(np.array([0]), np.full((1, 4), np.nan)).tolist() == [False]


def test_states_are_seen_by_each_seed_for_itself_however_many():
    _, search = begun(seeds=2)
    for i in range(50):
        state = np.array([[i, -i, i, i], [0, 0, 0, 0.0]])
        assert search._cover(np.array([0, 1]), state).tolist() == [True, i == 0]
    assert search._count.tolist() == [51, 2]
    assert not search._cover(np.zeros(1, int), np.array([[7.1, -7, 7, 7]]))[0]


def test_a_lineage_goes_on_from_what_was_kept_and_only_from_that():
    _, search = begun(seeds=3)
    first = search.ask(3)
    answer(search, first, [0.9, 0.1], [0.7, 0.3])  # kept
    second = search.ask(3)
    np.testing.assert_allclose(second.data[:, 0], first.data[:, 0] + (second.operator + 1) / 100, atol=1e-6)
    answer(search, second, [0.9, 0.1], [0.9, 0.1])  # dropped
    third = search.ask(3)
    np.testing.assert_allclose(third.data[:, 0], first.data[:, 0] + (third.operator + 1) / 100, atol=1e-6)
    assert (third.parent == third.origin).all()


# --- campaigns ---


@pytest.mark.parametrize("fitness", ["paper", "code"])
@pytest.mark.parametrize("most", [None, 0.5])
def test_seeds_are_solved(fitness, most):
    run = Run.of(
        lambda around: TriggerFinder(around, fitness=fitness), Duel(apart=0.05), most=most, queries=3000
    )
    run.to_the_end()
    assert run.search.outcomes.solved.mean() > 0.9
    assert (run.search.outcomes.queries <= 3000).all()


def test_queries_are_mutants_up_to_the_hit():
    run = Run.of(TriggerFinder, Duel(apart=0.05), queries=25)
    rows = run.to_the_end(size=7)
    assert rows == len(run.context.seeds) + run.search.outcomes.queries.sum()


@pytest.mark.parametrize("before", [0, 1, 2, 3, 7, 30])
@pytest.mark.parametrize("most", [None, 0.1])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(before, most):
    same_when_resumed(TriggerFinder, before, duel=Duel(apart=0.003), seeds=30, most=most)


def test_the_same_seed_makes_the_same_search_and_another_another():
    one, same, other = (Run.of(TriggerFinder, rng=seed) for seed in (1, 1, 2))
    turns = [[rows_of(run.turn()) for _ in range(5)] for run in (one, same, other)]
    assert turns[0] == turns[1] != turns[2]


def test_no_number_is_no_progress():
    _, search = begun()
    answer(search, search.ask(1), [np.nan] * 2, [0.5, 0.5], np.nan)
    assert (search._data[0] == 0).all()
    assert len(search.ask(1)) == 1
