"""Boundary: every seed is solved, with few queries, within the bound; and the root finding below it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.duel import CLASSES, SHAPE, Duel, Run, rows_of, same_when_resumed
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.protocols import SearchContext
from lmfuzz.search.boundary import Boundary
from lmfuzz.search.per_seed import PerSeed
from lmfuzz.search.random import Random
from lmfuzz.search.root_finding import Lines, crossings, leads, least
from lmfuzz.search.seed_outcomes import TURN, SeedOutcomes
from lmfuzz.types import Batch


@pytest.mark.parametrize(("step", "apart"), [(0.0, 0.003), (1 / 255, 0.01)])
def test_between_seeds_a_disagreement_takes_a_few_queries(step, apart):
    run = Run.of(Boundary, Duel(apart), seeds=60, step=step, queries=200)
    run.to_the_end()
    assert (run.search.outcomes.solved | run.search.outcomes.natural).all()
    assert run.counted.mean() < 4
    assert run.counted.max() < 20


def test_mutated_seeds_take_far_more():
    limit = 200
    ours = Run.of(Boundary, Duel(apart=0.003), queries=limit)
    blind = Run.of(lambda around: PerSeed(around, Random), Duel(apart=0.003), queries=limit)
    ours.to_the_end()
    blind.to_the_end()
    assert blind.counted.mean() > 10 * ours.counted.mean()


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("step", [0.0, 1 / 255])
def test_within_a_bound_a_far_end_is_found_first(gradients, step):
    run = Run.of(Boundary, step=step, most=0.3, queries=400, gradients=gradients)
    run.to_the_end()
    assert (run.search.outcomes.solved | run.search.outcomes.natural).mean() > 0.9
    assert run.counted.mean() < (12 if gradients else 60)
    assert np.nanmax(run.search.outcomes.distance) <= 0.3001


def test_a_gradient_counts_as_a_query():
    run = Run.of(Boundary, most=0.05, queries=7, gradients=True)
    rows = run.to_the_end()
    trials, gradients = run.search.outcomes, run.duel.gradient_rows
    assert gradients > 0
    assert trials.queries.sum() == rows - len(run.context.seeds) + gradients
    assert (trials.queries <= 7).all()
    assert (trials.queries[~trials.natural & ~trials.solved] == 7).all()


def test_what_cannot_be_reached_ends_with_the_queries():
    run = Run.of(Boundary, Duel(apart=0), most=0.1, queries=90)
    rows = run.to_the_end()
    assert not run.search.outcomes.solved.any()
    assert rows == len(run.context.seeds) * 91


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("most", [None, 0.6])
def test_one_seed_alone(gradients, most):
    run = Run.of(Boundary, seeds=1, most=most, queries=500, gradients=gradients)
    run.to_the_end()
    assert run.search.outcomes.solved.all()


def test_a_disagreement_that_does_not_count_is_gone_beyond():
    """Labels differ, but by less than the noise: the search goes on to where they differ by more."""
    plain, noisy = Run.of(Boundary, Duel(apart=0.02)), Run.of(Boundary, Duel(apart=0.02, noise=0.02))
    plain.to_the_end()
    noisy.to_the_end()
    assert (noisy.search.outcomes.solved | noisy.search.outcomes.natural).all()
    assert plain.counted.mean() < noisy.counted.mean() < 2 * plain.counted.mean()


def test_models_that_tie_or_give_no_numbers_are_survived():
    class Odd(Duel):
        def logits(self, data):
            logits = np.round(super().logits(data), 1)  # ties along the whole boundary
            logits[data.reshape(len(data), 30)[:, 0] > 0.9] = np.nan
            logits[data.reshape(len(data), 30)[:, 1] > 0.9, 0, 0] = np.inf
            return logits

        def margins(self, trace):
            known = np.isfinite(trace["base/logits"]).all(axis=1) & np.isfinite(trace["twin/logits"]).all(
                axis=1
            )
            margins = np.full((len(known), 1), np.nan, np.float32)
            margins[known] = super().margins({name: values[known] for name, values in trace.items()})
            return margins

    run = Run.of(Boundary, Odd(apart=0.05), queries=300)
    run.to_the_end()
    assert run.search.outcomes.solved.mean() > 0.7


@pytest.mark.parametrize("before", [0, 1, 2, 3, 5, 9])
@pytest.mark.parametrize("about", [{}, {"most": 0.1}, {"most": 0.1, "gradients": True, "step": 1 / 255}])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(before, about):
    same_when_resumed(Boundary, before, duel=Duel(apart=0.0003), seeds=30, queries=500, **about)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_batches_of_any_size(size):
    run = Run.of(Boundary, queries=100)
    run.to_the_end(size)
    assert (run.search.outcomes.solved | run.search.outcomes.natural).all()


def test_the_same_seed_makes_the_same_search():
    one, same = (Run.of(Boundary, most=0.1, queries=50) for _ in range(2))
    for _ in range(10):
        assert rows_of(one.turn()) == rows_of(same.turn())


def test_wrong_use():
    space = TextSpace(("a", "b"))
    text = SearchContext(space, Batch.of([np.array([0])]), {}, ("d",), None, np.random.default_rng(0))
    with pytest.raises(UsageError, match="take directed for texts"):
        Boundary(text)


def test_a_seed_that_is_not_solved_makes_way():
    run = Run.of(Boundary, seeds=5)
    trials = SeedOutcomes(run.context)
    assert trials.due(2).tolist() == [0, 1]
    trials.queries[:] = [TURN - 1, TURN, 3, TURN, 0]
    assert trials.due(3).tolist() == [0, 2, 4]
    trials.solved[2] = True
    assert trials.due(9).tolist() == [0, 1, 3, 4]


# --- lines ---


def test_leads_and_margins():
    logits = np.array([[[1.0, 3, 2], [5, 3, np.nan]]])
    ahead = leads(logits, np.array([1]))
    assert ahead.tolist() == [[[2, np.inf, 1], [-2, np.inf, 3]]]
    assert least(ahead).tolist() == [[1, -2]]


@given(st.integers(0, 10_000))
def test_crossings_are_exact_where_logits_are_linear(seed):
    rng = np.random.default_rng(seed)
    near, far = rng.normal(size=(2, 1, 2, CLASSES)) * 5
    near[..., 0] = near.max(axis=2) + 1
    far[..., 1] = far.max(axis=2) + 1  # another label
    label = np.zeros(1, np.int64)
    at = crossings(leads(near, label), leads(far, label))
    for model in range(2):
        point = near + at[0, model] * (far - near)
        assert abs(least(leads(point, label))[0, model]) < 1e-9


def line(step=0.0, function=None):
    """A line from all 0 to all 1, on which the lead of both models is ``function`` of t."""
    space = BoxSpace(SHAPE, step=step)
    lines, ids = Lines(space, np.zeros((1, *SHAPE), np.float32), 2), np.zeros(1, np.int64)
    ends = [np.array([[[np.inf, function(t)]] * 2]).reshape(1, 2, 2) for t in (0.0, 1.0)]
    lines.begin(ids, np.ones((1, *SHAPE), np.float32), *ends)
    return lines, ids


def walk(function, step=0.0, count=12):
    lines, ids = line(step, function)
    rows = []
    for _ in range(count):
        rows.append(lines.aim(ids))
        value = function(float(rows[-1].mean()))
        lines.tell(ids, np.array([[[np.inf, value]] * 2]).reshape(1, 2, 2))
    return lines, np.concatenate(rows)


@pytest.mark.parametrize("power", [1, 3, 9])
def test_bent_lines_are_closed_in_upon(power):
    lines, rows = walk(lambda t: 0.3 - t**power)
    assert abs(rows[-1].mean() - 0.3 ** (1 / power)) < 1e-3
    start, stop = lines.span[0]
    assert start - 1e-6 < 0.3 ** (1 / power) < stop + 1e-6


def test_on_a_grid_values_change_one_after_the_other():
    lines, ids = line(1 / 4, lambda t: 0.5 - t)
    seen = []
    for t in np.linspace(0, 1, 3001):
        lines.span[0] = t, t
        seen.append(lines.aim(ids)[0])
    steps = np.diff(np.rint(4 * np.stack(seen)).reshape(3001, -1), axis=0)
    assert (seen[0] == 0).all()
    assert (seen[-1] == 1).all()
    assert steps.min() == 0, "no value goes back"
    assert steps.sum(axis=1).max() <= 2, "nearly always one value by one step"
    assert (steps.sum(axis=1) > 0).sum() > 0.9 * 4 * 30


def test_a_line_is_spent_where_no_row_or_nothing_but_ties_is_left():
    lines, ids = line(0.0, lambda t: 0.5 - t)
    assert not lines.spent(ids)[0]
    lines.span[0] = 0.5, 0.5 + 1e-7
    assert lines.spent(ids)[0]
    lines.span[0] = 0, 1
    lines.ahead[0, :, 1, 1] = 0  # the second model at both ends
    assert lines.spent(ids)[0]
    grid, _ = walk(lambda t: 0.5001 - t, 1 / 4, 40)
    assert grid.spent(ids)[0]
