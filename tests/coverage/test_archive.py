import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.coverage import index
from lmfuzz.coverage.archive import MANY, Archive
from lmfuzz.errors import UsageError


def one_at_a_time(points, where, radius, admitted=()):
    """The definition: float64, row by row, against everything admitted before."""
    kept = [p.astype(np.float64) for p in admitted]
    novel = []
    for point, wanted in zip(points, where, strict=True):
        far = wanted and np.isfinite(point).all()
        if far and kept:
            far = (((np.stack(kept) - point.astype(np.float64)) ** 2).sum(axis=-1) > radius * radius).all()
        if far:
            kept.append(point.astype(np.float64))
        novel.append(bool(far))
    return np.array(novel, bool)


def hard_points(seed, rows, dimensions, radius, scale, offset):
    """Clusters far from the origin, pairs at the radius to within float32's last digits, duplicates, gaps."""
    rng = np.random.default_rng(seed)
    centres = offset + scale * rng.standard_normal((max(1, rows // 6), dimensions))
    points = centres[rng.integers(len(centres), size=rows)]
    direction = rng.standard_normal((rows, dimensions))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = radius * rng.choice([0, 0.3, 0.5, 1 - 1e-7, 1, 1 + 1e-7, 1.5, 4], size=(rows, 1))
    points = (points + length * direction).astype(np.float32)
    again = rng.random(rows) < 0.2
    points[again] = points[rng.integers(rows, size=again.sum())]
    broken = rng.random(rows) < 0.1
    points[broken, rng.integers(dimensions, size=broken.sum())] = rng.choice([np.nan, np.inf, -np.inf])
    return points, rng.random(rows) < 0.9


def admit_all(archive, points, where, cuts):
    ends = [0, *sorted(c for c in cuts if c < len(points)), len(points)]
    parts = [archive.admit(points[a:b], where[a:b]) for a, b in pairwise(ends)]
    return np.concatenate(parts)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(0, 300),
    dimensions=st.sampled_from([1, 2, 7, 8, 33, 130]),
    radius=st.sampled_from([0.0, 1e-20, 1e-3, 0.7, 30.0]),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]),
    offset=st.sampled_from([0.0, 100.0]),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    block=st.sampled_from([1, 7, 2048]),
)
def test_decisions_are_those_of_one_exact_search_after_another(
    seed, rows, dimensions, radius, scale, offset, cuts, block
):
    points, where = hard_points(seed, rows, dimensions, radius, scale, offset)
    expected = one_at_a_time(points, where, radius)
    archive = Archive(radius, dimensions, approximate=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_BLOCK", block)
        assert (admit_all(archive, points, where, cuts) == expected).all()
    assert len(archive) == expected.sum()
    assert (archive.points() == points[expected]).all()


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10**6),
    tail=st.integers(5, 60),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    wait=st.booleans(),
)
def test_nmslib_changes_no_decision(seed, tail, cuts, wait):
    points, where = hard_points(seed, 400, 6, 0.5, 1.0, 0.0)
    expected = one_at_a_time(points, where, 0.5)
    archive = Archive(0.5, 6, tail=tail)
    got = []
    for part in np.split(np.arange(400), sorted(cuts)):
        got.append(archive.admit(points[part], where[part]))
        if wait:
            archive._segments.wait()
            archive._segments.follow(archive._index.points)
    assert (np.concatenate(got) == expected).all()
    if wait and len(cuts) > 3 and len(archive) > 2 * tail:
        assert archive._segments.covered
    archive.close()
    assert not archive.admit(points, where).any()


def grown(archive, points, step=64):
    for start in range(0, len(points), step):
        archive.admit(points[start : start + step], np.ones(len(points[start : start + step]), bool))
        archive._segments.wait()
    archive._segments.follow(archive._index.points)
    archive._segments.wait()


def test_segments_are_merged_by_doubling_and_answer_for_the_rows_they_cover(monkeypatch):
    points = np.random.default_rng(0).standard_normal((1300, 8)).astype(np.float32) * 10
    archive = Archive(1e-3, 8, tail=64)
    grown(archive, points)
    segments = archive._segments.segments
    sizes = [s.stop - s.start for s in segments]
    assert segments[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(segments))
    assert sum(sizes) >= 1300 - 2 * 64
    assert 2 <= len(sizes) <= 6
    assert sizes == sorted(sizes, reverse=True)

    asked = []
    monkeypatch.setattr(index.Index, "near", lambda _, queries, squared: asked.append(len(queries)) or True)
    covered = archive._segments.covered
    archive.admit(points[:covered], np.ones(covered, bool))
    assert sum(asked) < 0.02 * covered  # nearly all are settled without the exact search


def test_large_segments_are_not_merged(monkeypatch):
    from lmfuzz.coverage import nmslib_index

    monkeypatch.setattr(nmslib_index, "_LARGEST", 128)
    points = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    segments = nmslib_index.Segments(32)
    for _ in range(20):
        segments.follow(points)
        segments.wait()
    assert [s.stop - s.start for s in segments.segments] == [128] * 7 + [104]


def test_a_restored_archive_goes_on_identically():
    points, where = hard_points(1, 600, 5, 0.5, 1.0, 0.0)
    through = Archive(0.5, 5, tail=50)
    first = through.admit(points[:300], where[:300])
    resumed = Archive(0.5, 5, tail=50)
    resumed.restore(np.concatenate([through.points()[:7], through.points(7)]))
    assert (resumed.points() == points[:300][first]).all()
    resumed._segments.wait()  # one of them is answered by nmslib, the other perhaps not yet
    decisions = resumed.admit(points[300:], where[300:])
    assert decisions.any()
    assert (decisions == through.admit(points[300:], where[300:])).all()
    assert (resumed.points() == through.points()).all()
    with pytest.raises(ValueError, match="empty"):
        resumed.restore(points[:1])
    with pytest.raises(ValueError, match="finite"):
        Archive(0.5, 5).restore(np.full((1, 5), np.nan, np.float32))


def test_the_radius_is_euclidean_and_exactly_at_it_is_not_novel():
    archive = Archive(0.5, 2)
    three = np.array([[0, 0], [0.5, 0], [0.50001, 0]], np.float32)
    assert archive.admit(three, np.ones(3, bool)).tolist() == [True, False, True]


def test_an_archive_keeps_what_it_has_when_it_grows():
    points = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    archive = Archive(0.0, 3, approximate=False)
    for part in np.split(points, 50):
        before = archive.points()
        assert archive.admit(part, np.ones(100, bool)).all()
        assert (archive.points()[: len(before)] == before).all()
    assert (archive.points() == points).all()
    assert not archive.admit(points, np.ones(5000, bool)).any()


def test_points_too_small_for_float32_squares_are_told_apart():
    rows = np.full((3, 33), 2e-23, np.float32)
    rows[2] *= 2
    archive = Archive(1e-24, 33, approximate=False)
    for row, novel in zip(rows, [True, False, True], strict=True):
        assert archive.admit(row[None], np.ones(1, bool)) == novel


def test_a_sum_that_overflows_half_way_decides_nothing():
    point = np.full((64, 40), 2e17, np.float32)
    query = np.float32(1e21) * np.array([[-1] * 16 + [1] * 17 + [0] * 7] * 64, np.float32)
    apart = np.linalg.norm(query[0].astype(np.float64) - point[0])
    for radius, novel in ((apart * (1 + 1e-9), False), (apart * (1 - 1e-9), True)):
        archive = Archive(radius, 40, approximate=False)
        archive.restore(point)
        assert archive.admit(query, np.ones(64, bool))[0] == novel


def test_points_too_large_for_float32_squares_are_told_apart():
    archive = Archive(1e15, 2, approximate=False)
    rows = np.array([[3e25, 3e25], [3e25, 3e25], [-3e25, 3e25], [3e38, -3e38], [3e38, -3e38]], np.float32)
    assert archive.admit(rows, np.ones(5, bool)).tolist() == [True, False, True, True, False]


def test_wrong_shapes_and_radii_are_refused():
    archive = Archive(1.0, 3)
    with pytest.raises(ValueError, match=r"\(B, 3\)"):
        archive.admit(np.zeros((2, 4), np.float32), np.ones(2, bool))
    with pytest.raises(ValueError, match="where"):
        archive.admit(np.zeros((2, 3), np.float32), np.ones(3, bool))
    for radius in (-1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="radius"):
            Archive(radius, 3)


def test_the_process_exits_well_and_silently_while_a_graph_is_built():
    script = """
import time
import numpy as np
from lmfuzz.coverage.archive import MANY, Archive

class Last:
    def __del__(self, sleep=time.sleep):  # while the interpreter shuts down
        sleep(0.4)

last = Last()
archive = Archive(0.0, 16, tail=100)
archive.restore(np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32))
time.sleep(0.02)  # the build is now inside nmslib; shutting down in the middle of it must not abort
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("approximate", [False, True])
def test_rows_that_meet_a_state_again_are_counted(approximate: bool) -> None:
    """Ten states on a line, far apart; what is near one of them was made near it, also in one batch."""
    rng = np.random.default_rng(0)
    states = rng.integers(10, size=400)
    states[0] = 11  # which nothing meets again
    points = (10 * states + rng.uniform(-0.2, 0.2, 400))[:, None].astype(np.float32)
    archive = Archive(1.0, 1, approximate=approximate, tail=4)
    half = [archive.admit(points[i : i + 7], np.ones(len(points[i : i + 7]), bool)) for i in range(0, 21, 7)]
    resumed = Archive(1.0, 1, approximate=approximate, tail=4)
    resumed.restore(archive.points(), archive.visits)
    archive.close()
    resumed.admit(points[21:], np.ones(379, bool))
    resumed.close()
    met = np.rint(resumed.points()[:, 0] / 10).astype(int)
    seen = np.bincount(states, minlength=12)
    assert sum(novel.sum() for novel in half) == len(archive.visits)
    assert sorted(met) == sorted(np.flatnonzero(seen))
    assert resumed.visits.tolist() == np.minimum(seen[met], MANY).tolist()


def test_visits_that_nobody_counted_are_not_known() -> None:
    archive = Archive(1.0, 1)
    archive.restore(np.zeros((1, 1), np.float32))
    assert archive.visits.tolist() == [0]
