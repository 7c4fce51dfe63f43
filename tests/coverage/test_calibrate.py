import math

import numpy as np
import pytest

from lmfuzz.coverage.calibrate import Calibration, calibrate, measure
from lmfuzz.coverage.features import OutputCells, Trajectory, hidden_last
from lmfuzz.types import CRASH, PAD, Batch


def line(*places):
    return np.array([[p, 0] for p in places], np.float32)


def test_the_numbers_are_the_distances_they_say():
    seeds = np.cumsum(np.arange(21))  # gaps 1, 2, ..., 20: the nearest others are 1, 1, 2, ..., 20 away
    seed_points = line(*seeds)
    rerun = seed_points.copy()
    rerun[0, 1], rerun[1:, 1] = 0.8, 0.01
    mutants = line(*(seeds + 0.25))
    mutants[0] = seeds[-1] + 100, 0
    found = calibrate(seed_points, rerun, mutants)
    assert found.noise_floor == pytest.approx(0.8)
    assert found.seeds == pytest.approx(np.quantile([1, *range(1, 21)], 0.95))
    assert found.mutants == pytest.approx(0.25)
    assert found.radius == pytest.approx(4.0)  # five times the noise
    assert found.stability == pytest.approx(20 / 21)
    assert found.words() == (
        "radius 4 (noise 0.8, mutants 0.25, seeds 19); 95% of the seeds are stable"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stability", "end"),
    [
        (0.9, "; 90% of the seeds are stable"),
        (0.4, "; only 40% of the seeds lead to the same state when run again: the target is not "
        "deterministic, findings may be flaky"),
    ],
)  # fmt: skip
def test_a_target_that_is_not_deterministic_is_said(stability, end):
    assert Calibration(0.1, 1, 1, 1, stability).words().endswith(end)


@pytest.mark.parametrize(
    ("noise", "mutant", "radius"),
    [(0.0, 0.3, 0.3), (0.01, 0.3, 0.3), (0.1, 0.3, 0.5), (0.0, 5.0, 1.0), (0.4, 0.3, 1.0)],
)
def test_the_radius_is_the_mutants_distance_between_the_noise_and_the_seeds(noise, mutant, radius):
    seeds = line(0, 1, 2, 3)
    found = calibrate(seeds, seeds + np.float32([0, noise]), line(-mutant))
    assert found.seeds == 1
    assert found.radius == pytest.approx(radius, rel=1e-6)


def test_one_seed_says_nothing_of_the_distance_between_seeds():
    found = calibrate(line(0), line(0.01), line(0.5, -0.5))
    assert (found.seeds, found.mutants, found.stability) == (math.inf, 0.5, 1.0)
    assert found.radius == 0.5
    assert calibrate(line(0), line(0.01), line()[:, None].reshape(0, 2)).radius == pytest.approx(0.05)


def test_seeds_that_are_the_same_seed_say_nothing_either():
    seeds = line(0, 0, 0, 1e-7)
    found = calibrate(seeds, seeds[::-1], line(0.5))
    assert found.seeds == math.inf
    assert found.radius == pytest.approx(0.5)


def test_no_distance_at_all_still_leaves_a_radius():
    found = calibrate(line(1, 1, 1), line(1, 1, 1), line(1, 1))
    assert (found.noise_floor, found.mutants, found.stability) == (0, 0, 1)
    assert 0 < found.radius < 1e-3


def test_rows_that_are_not_finite_are_left_out_and_unstable_if_they_come_and_go():
    seeds, rerun = line(0, 1, 2, np.nan, np.inf), line(0, 1, np.nan, np.nan, 7)
    found = calibrate(seeds, rerun, line(0.25, np.nan))
    assert (found.noise_floor, found.seeds, found.mutants, found.radius) == (0, 1, 0.25, 0.25)
    assert found.stability == 0.5  # two that moved nowhere, two that were finite once
    assert found.finite == 0.4
    assert found.words().endswith("; 60.0% of the seeds lead to NaN or infinity")


def test_without_a_finite_seed_any_two_points_differ():
    found = calibrate(line(np.nan, 1), line(1, np.nan), line(1))
    assert (found.finite, found.stability) == (0, 0)
    assert 0 < found.radius < 1e-3
    assert found.words().endswith("every seed leads to NaN or infinity")
    assert calibrate(line(np.nan), line(np.nan), line(1), radius=0.5).radius == 0.5


def test_a_seed_is_sound_only_if_its_tokens_were_chosen_by_finite_numbers():
    class Unsure(Echo):
        def run(self, batch, wants):
            trace = super().run(batch, wants - {"logprob"})
            logprob = np.where(trace["tokens"] == 3, np.nan, -1).astype(np.float32)
            return {**trace, "logprob": np.where(trace["tokens"] == PAD, np.nan, logprob)}

    seeds = Batch.of([np.array(row, np.int32) for row in ([1], [3, 1], [2, 2], [2, 3])])
    assert measure(Unsure(0.0), hidden_last(0), seeds, rows(5, 1), WANTS | {"logprob"}, 8).finite == 0.5


def test_a_thousand_and_more_seeds_are_compared_with_all_others():
    seeds = np.random.default_rng(0).standard_normal((2100, 3)).astype(np.float32)
    apart = np.linalg.norm(seeds[:, None] - seeds, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert calibrate(seeds, seeds, seeds[:1]).seeds == pytest.approx(np.quantile(apart.min(axis=1), 0.95))


class Echo:
    """Shows each row's symbols as its state, a little disturbed by the number of its neighbours."""

    def __init__(self, noise):
        self.noise = noise
        self.batches = []

    def run(self, batch, wants):
        assert wants == {"hidden_last", "hidden_steps", "text", "tokens"}
        self.batches.append([tuple(batch.row(i)) for i in range(len(batch))])
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        tokens = np.where(valid, batch.data, PAD)
        hidden = np.zeros((len(batch), 4), np.float32)
        hidden[:, : tokens.shape[1]] = np.where(valid, batch.data, 0)
        steps = np.where(valid, batch.data, np.nan)[:, :, None].astype(np.float32)
        texts = np.array(["".join(chr(97 + s) for s in row) for row in self.batches[-1]], dtype=object)
        return {
            "hidden_last": hidden + np.float32(self.noise * len(batch)),
            "hidden_steps": steps, "text": texts, "tokens": tokens, CRASH: np.full(len(batch), "", object),
        }  # fmt: skip


WANTS = frozenset({"hidden_last", "hidden_steps", "text", "tokens"})


def rows(number, seed):
    rng = np.random.default_rng(seed)
    return Batch.of([rng.integers(9, size=rng.integers(1, 5)).astype(np.int32) for _ in range(number)])


def test_seeds_are_measured_among_themselves_and_shuffled_among_the_mutants():
    seeds, mutants = rows(20, 0), rows(13, 1)
    echo = Echo(0.01)
    found = measure(echo, hidden_last(0), seeds, mutants, WANTS, 8)
    assert [len(b) for b in echo.batches] == [8, 8, 4, 5, 5, 5, 5, 5, 5, 3]
    assert sorted(row for batch in echo.batches[3:] for row in batch) == sorted(
        tuple(b.row(i)) for b in (seeds, mutants) for i in range(len(b))
    )
    scale = np.stack([np.pad(seeds.row(i), (0, 4 - seeds.lengths[i])) for i in range(20)]).std(axis=0)
    most = 0.05 * np.linalg.norm(1 / scale)  # 8 neighbours and then 3
    assert 0.02 * np.linalg.norm(1 / scale) < found.noise_floor < 1.05 * most
    assert 0 < found.mutants < math.inf

    quiet = measure(Echo(0.0), hidden_last(0), seeds, mutants, WANTS, 8)
    assert quiet.noise_floor == 0
    assert quiet.stability == 1
    points = {tuple(seeds.row(i)) for i in range(20)}
    assert (quiet.mutants == 0) == all(tuple(mutants.row(i)) in points for i in range(13))


def test_seeds_that_crash_are_run_once():
    class Crashing(Echo):
        def run(self, batch, wants):
            trace = super().run(batch, wants)
            bad = np.array([6 in batch.row(i) for i in range(len(batch))])
            trace["hidden_last"][bad] = np.nan
            return {**trace, CRASH: np.where(bad, "boom", "").astype(object)}

    seeds, mutants = rows(20, 0), rows(13, 1)
    crashed = sum(6 in seeds.row(i) for i in range(20))
    echo = Crashing(0.0)
    found = measure(echo, hidden_last(0), seeds, mutants, WANTS, 8)
    assert 0 < crashed < 20
    assert sum(map(len, echo.batches)) == 20 + (20 - crashed) + 13
    assert found.stability == 1
    assert math.isfinite(found.radius)


def test_one_seed_is_measured_with_other_neighbours_too():
    found = measure(Echo(0.5), hidden_last(0), rows(1, 0), rows(7, 1), WANTS, 6)
    assert found.noise_floor == pytest.approx(0.5 * 3 * 2, rel=1e-4)  # four rows instead of one, 4 units


def test_outputs_that_end_sooner_in_some_batches_can_be_fitted():
    seeds = Batch.of([np.arange(n, dtype=np.int32) for n in (1, 2, 1, 4, 3)])
    found = measure(Echo(0.0), Trajectory(3), seeds, rows(5, 1), WANTS, 2)
    assert found.noise_floor == 0


def test_cells_keep_their_radius():
    found = measure(Echo(0.0), OutputCells(False), rows(9, 0), rows(9, 1), WANTS, 4)
    assert isinstance(found, Calibration)
    assert found.radius == OutputCells.radius
    assert found.stability == 1
