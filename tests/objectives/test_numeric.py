import numpy as np
import pytest

from lmfuzz.errors import UsageError
from lmfuzz.objectives.numeric import Entropy, Nonfinite
from lmfuzz.types import PAD, Batch, take

NAN, INF = np.nan, np.inf


def rows(n):
    return Batch.of([np.zeros(1, np.int32)] * n)


def overflow(*pairs):
    magnitudes, places = zip(*pairs, strict=True)
    return rows(len(pairs)), {
        "magnitude": np.array(magnitudes, np.float32),
        "nonfinite": np.array(places, dtype=object),
    }


def test_nonfinite_is_graded_by_the_distance_to_overflow():
    largest = np.finfo(np.float32).max
    margins = Nonfinite()(*overflow((0, ""), (1, ""), (2.0**64, ""), (largest, ""), (INF, "logits, step 3")))
    assert margins.shape == (5, 1)
    assert margins.dtype == np.float32
    assert margins[:3, 0] == pytest.approx([-1, -1, -0.5], abs=1e-6)
    assert -1e-6 < margins[3, 0] < 0
    assert margins[4, 0] > 0


@pytest.mark.parametrize("magnitude", [INF, NAN, 3.0])
def test_a_place_is_a_hit_whatever_the_magnitude(magnitude):
    assert Nonfinite()(*overflow((magnitude, "logits, step 3")))[0, 0] > 0


def test_what_was_not_measured_is_not_safe():
    margins = Nonfinite()(*overflow((NAN, ""), (INF, "")))
    assert np.isnan(margins[0, 0])
    assert margins[1, 0] > 0


def test_half_precision_overflows_sooner_but_only_infinity_is_a_hit():
    margins = Nonfinite(overflow=65504)(*overflow((256, ""), (1e6, "")))
    assert margins[0, 0] == pytest.approx(-0.5, abs=1e-3)
    assert -1e-3 < margins[1, 0] < 0


def test_nonfinite_signs_the_place_and_tells_the_step():
    batch, trace = overflow(
        (NAN, "layer 1 cell, step 3 of the output"), (NAN, "layer 1 cell, prompt"), (INF, "")
    )
    found = [Nonfinite().evidence(batch, trace, row, 0) for row in range(3)]
    assert [e.signature for e in found] == ["layer 1 cell", "layer 1 cell", "somewhere"]
    assert "step 3" in found[0].words
    assert "prompt" in found[1].words


def steps(*entropies, texts=None):
    """Rows of entropies; None is a step after the end."""
    width = max(map(len, entropies))
    padded = [[*row, *[None] * (width - len(row))] for row in entropies]
    return rows(len(entropies)), {
        "entropy": np.array([[NAN if e is None else e for e in row] for row in padded], np.float32),
        "tokens": np.array([[PAD if e is None else 7 for e in row] for row in padded], np.int32),
        "text": np.array(texts or ["x" * len(row) for row in entropies], dtype=object),
    }


def test_entropy_finds_collapse_and_uniform_anywhere_in_the_output():
    objective = Entropy(low=0.1, high=3, window=4)
    assert objective.targets == ("entropy/collapse", "entropy/uniform")
    collapsed = [1.5] * 5 + [0.01] * 4 + [1.5] * 3
    uniform = [1.5] * 5 + [4.0] * 4 + [1.5] * 3
    margins = objective(*steps([1.5] * 12, collapsed, uniform))
    assert margins.dtype == np.float32
    assert (margins > 0).tolist() == [[False, False], [True, False], [False, True]]
    assert np.isfinite(margins).all()
    assert (np.abs(margins) <= 1).all()


def test_entropy_agrees_with_plain_means():
    draws = np.random.default_rng(0).gamma(0.3, 1.0, size=(50, 30))
    margins = Entropy(low=0.05, high=1.2, window=7)(*steps(*draws.tolist()))
    windows = np.lib.stride_tricks.sliding_window_view(draws.astype(np.float32), 7, axis=1).mean(axis=2)
    assert ((margins[:, 0] > 0) == (windows.min(axis=1) < 0.05)).all()
    assert ((margins[:, 1] > 0) == (windows.max(axis=1) > 1.2)).all()
    assert 0 < (margins[:, 0] > 0).sum() < 50
    assert 0 < (margins[:, 1] > 0).sum() < 50


def test_entropy_margins_climb():
    margins = Entropy(low=0.1, high=3, window=4)(
        *steps(*([e] * 4 for e in (0.0, 0.05, 0.2, 1.0, 2.9, 3.1, 4.0)))
    )
    assert (np.diff(margins[:, 0]) < 0).all()
    assert (np.diff(margins[:, 1]) > 0).all()


def test_an_output_shorter_than_the_window_is_no_hit_of_unknown_distance():
    objective = Entropy(low=0.1, high=0, window=4)
    assert objective.targets == ("entropy/collapse",)
    assert objective(*steps([0.0] * 3, [0.0] * 8))[:, 0].tolist() == [-INF, pytest.approx(1)]
    assert objective(*steps([0.0] * 3))[:, 0].tolist() == [-INF]
    assert objective(*steps([0.0] * 4, [1.0] * 9))[0, 0] > 0, "the end belongs to no window"


def test_a_generated_step_without_entropy_is_unscored_unless_another_window_hits():
    collapse_first = [0.0] * 4 + [NAN] * 4
    never = [1.0] * 4 + [NAN] * 4
    margins = Entropy(low=0.1, high=3, window=4)(*steps(collapse_first, never, [NAN] * 8, [INF] * 8))
    assert margins[0, 0] > 0
    assert np.isnan(margins[0, 1])
    assert np.isnan(margins[1:]).all()


def test_entropy_evidence_names_the_window():
    batch, trace = steps([1.5] * 5 + [0.01] * 4 + [4.0] * 4, texts=["abcdefghijklm"])
    objective = Entropy(low=0.1, high=3, window=4)
    low, high = (objective.evidence(batch, trace, 0, column) for column in (0, 1))
    assert (low.signature, low.span) == ("collapse", (5, 9))
    assert (high.signature, high.span) == ("uniform", (9, 13))
    assert low.words == "0.01 nats on average over steps 6 to 9"
    trace["text"][0] = "tokens of several characters"
    assert objective.evidence(batch, trace, 0, 0).span is None


def test_only_uniform():
    objective = Entropy(low=0, high=3, window=2)
    batch, trace = steps([1.0, 4.0, 4.0])
    assert objective.targets == ("entropy/uniform",)
    assert objective(batch, trace).shape == (1, 1)
    assert objective.evidence(batch, take(trace, slice(0, 1)), 0, 0).signature == "uniform"


@pytest.mark.parametrize("wrong", [{"low": 0, "high": 0}, {"low": 3, "high": 2}])
def test_entropy_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError, match="must be"):
        Entropy(**wrong)
