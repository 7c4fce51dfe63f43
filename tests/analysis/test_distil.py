"""Few seeds that cover an archive: greedy set cover on stored points, and files that --seeds reads back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.shell import Shell
from lmfuzz.analysis.distil import cover
from lmfuzz.inputs.seeds import read
from lmfuzz.storage.record import CampaignRecord


def distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.sqrt(((points[:, None].astype(float) - others[None]) ** 2).sum(axis=2))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.floats(0, 3), st.integers(1, 3), st.integers(0, 99))
def test_all_points_are_near_a_chosen_one_of_their_group(
    count: int, dimensions: int, radius: float, groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, dimensions)).astype(np.float32)
    group = rng.integers(groups, size=count)
    chosen = cover(points, radius, group)
    assert len(set(chosen.tolist())) == len(chosen)
    near = (distances(points, points[chosen]) <= radius + 1e-9) & (group[:, None] == group[chosen])
    assert near.any(axis=1).all()
    gains = [int((near[:, i] & ~near[:, :i].any(axis=1)).sum()) for i in range(len(chosen))]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) >= 1


def test_the_middle_of_a_cluster_stands_for_it() -> None:
    points = np.array([[0], [1], [2], [9], [10], [30]], np.float32)
    assert cover(points, 1.1, np.zeros(6)).tolist() == [1, 3, 5]
    assert cover(points, 0.5, np.zeros(6)).tolist() == [0, 1, 2, 3, 4, 5]
    assert cover(points, 1.1, np.array([0, 0, 1, 0, 0, 0])).tolist() == [0, 3, 2, 5]


def seeds_of(directory: Path) -> tuple[np.ndarray, list[str], float]:
    record = CampaignRecord.read(directory)
    texts = [record.space.decode(row) for row in record.states.rows]
    return record.states.points, texts, record.calibration["radius"]


def test_prompts_are_written_that_cover_the_archive(sh: Shell) -> None:
    sh.fuzz("-o", "c")
    points, texts, radius = seeds_of(Path("c"))
    code, out, _ = sh("distil", "c", "-o", "all.jsonl")
    assert code == 0
    assert f"{len(points)} rows in all.jsonl cover {len(points)} states within {radius:.3g}" in out
    code, out, _ = sh("distil", "c", "-o", "few.jsonl", "--radius", str(2 * radius))
    few = [json.loads(line)["prompt"] for line in Path("few.jsonl").read_text().splitlines()]
    assert 0 < len(few) < len(points) / 2
    chosen = [texts.index(text) for text in few]
    assert (distances(points, points[chosen]).min(axis=1) <= 2 * radius).all()
    record = CampaignRecord.read(Path("c"))
    space = record.space
    assert space.texts(read(["few.jsonl"], space).batch) == few
    assert sh("fuzz", "model.py:easy", "--seeds", "few.jsonl", "--budget", "300x", "-o", "d").code in (0, 1)


def test_numbers_are_written_as_an_array(sh: Shell) -> None:
    model = str(Path(__file__).parents[2] / "corpora/examples/broken_loss.py")
    options = ("--objective", f"{model}:Vanishing", "--budget", "500x")
    sh("fuzz", f"{model}:broken_loss", *options, "-o", "c")
    assert "does not end in .npy" in sh.refused("distil", "c", "-o", "few.jsonl")
    assert sh("distil", "c", "-o", "few.npy").code == 0
    record = CampaignRecord.read(Path("c"))
    rows = np.stack(record.states.rows)
    np.testing.assert_array_equal(np.load("few.npy"), rows)
    again = sh("fuzz", f"{model}:broken_loss", *options, "--seeds", "few.npy", "-o", "d")
    assert again.code in (0, 1), again.err


def test_a_campaign_per_seed_keeps_a_row_for_each_seed(sh: Shell) -> None:
    sh.fuzz("-o", "c", "--per-seed", "200", budget="1500x")
    assert sh("distil", "c", "-o", "few.jsonl", "--radius", "1000").code == 0
    few = [json.loads(line)["prompt"] for line in Path("few.jsonl").read_text().splitlines()]
    points, texts, _ = seeds_of(Path("c"))
    seeds = [points[texts.index(text), -1] for text in few]
    assert sorted(seeds) == sorted(set(points[:, -1]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "few.txt"), "-o few.txt does not end in .jsonl"),
        (("-o", "few.jsonl", "--radius", "-1"), "the radius must be a finite distance of at least 0, not -1"),
        (("-o", "few.jsonl", "--radius", "nan"), "the radius must be a finite distance"),
        ((), "Missing option"),
    ],
)
def test_what_cannot_be_distilled_is_one_sentence(sh: Shell, options: tuple[str, ...], words: str) -> None:
    sh.fuzz("-o", "c", budget="200x")
    assert words in sh.refused("distil", "c", *options)
