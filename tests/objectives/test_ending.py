import numpy as np
import pytest

from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.never_ends import NeverEnds
from lmfuzz.plugins.grammar import parse
from lmfuzz.types import PAD, Batch

NAN, INF = np.nan, np.inf


def shown(*rows):
    """Rows (ended, probabilities of the end); None is a step after the end."""
    width = max(len(steps) for _, steps in rows)
    padded = [[*steps, *[None] * (width - len(steps))] for _, steps in rows]
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[NAN if p is None else p for p in row] for row in padded], np.float32))
    return Batch.of([np.zeros(1, np.int32)] * len(rows)), {
        "ended": np.array([ended for ended, _ in rows]),
        "end_logprob": logs,
        "tokens": np.array([[PAD if p is None else 7 for p in row] for row in padded], np.int32),
    }


def margins(*rows, below=0.01):
    got = NeverEnds(below)(*shown(*rows))
    assert got.shape == (len(rows), 1)
    assert got.dtype == np.float32
    return got[:, 0].tolist()


def test_a_hit_has_not_ended_and_was_never_near_to_it():
    got = margins(
        (False, [0.001, 0.005]), (False, [0.001, 0.5]), (True, [0.001, 0.9]), (True, [0.001, 0.002])
    )
    assert [margin > 0 for margin in got] == [True, False, False, False]


def test_margins_are_the_distance_of_the_likeliest_end_to_the_limit():
    got = margins((False, [1e-4, 1e-6]), (False, [1e-3]), (False, [0.1, 1e-9]), (True, [1e-9, 1.0]))
    assert got == pytest.approx([1, 0.5, -0.5, -1], rel=1e-5)


def test_no_row_that_ended_is_a_hit_and_no_margin_is_0():
    assert margins((True, [1e-9]), (True, [0.009])) == pytest.approx([-1e-6] * 2)
    assert [m > 0 for m in margins((False, [0.0099999]), (False, [0.0100001]))] == [True, False]


def test_margins_climb_as_the_end_gets_less_likely():
    got = margins(*((False, [p, 1e-8]) for p in np.geomspace(0.9, 1e-6, 40)))
    assert (np.diff(got) > 0).all()


def test_a_step_without_a_number_is_unscored_unless_it_does_not_matter():
    got = margins(
        (False, [NAN, 0.001]), (False, [0.0, 0.001]), (False, [NAN, 0.5]), (True, [NAN, 0.5]), (True, [NAN]),
        (False, [NAN, NAN]), (False, [None]),
    )  # fmt: skip
    assert np.isnan([got[0], got[1], got[5], got[6]]).all()
    assert got[2] == got[3] < 0
    assert got[4] == -INF


def test_what_stands_after_the_end_does_not_count():
    assert margins((False, [0.001, 0.002]), (True, [0.5]))[1] < 0
    batch, trace = shown((False, [0.001, 0.002, None, None]), (False, [0.001] * 4))
    assert NeverEnds()(batch, trace)[0, 0] > 0


def test_evidence_says_how_likely_the_end_was_at_most_and_where():
    found = NeverEnds().evidence(*shown((False, [0.001, 0.0042, 0.002, None])), 0, 0)
    assert found.signature == "no end of text"
    assert found.words == (
        "no end of text in 3 steps; it was likeliest at step 2, with a probability of 0.0042"
    )


def test_it_is_known_by_name():
    built = OBJECTIVES.build(parse("never_ends:below=0.2"))
    assert type(built) is NeverEnds
    assert built.below == 0.2
    assert ObjectiveSet({"x": built}).targets == ("never_ends", "crash")
    assert ObjectiveSet({"x": built}).needs == {"ended", "end_logprob", "tokens"}
