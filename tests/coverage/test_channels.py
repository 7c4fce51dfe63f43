"""Channels as they are, totals, and seeds that never meet."""

import numpy as np
import pytest

from lmfuzz.coverage.channels import Channels, Total
from lmfuzz.coverage.per_seed import Apart, Archives
from lmfuzz.errors import UsageError

TRACE = {
    "a": np.array([[1.0, -2.0], [3.0, 4.0]], np.float32),
    "b": np.array([5.0, np.inf], np.float32),
    "origin": np.array([0, 7]),
}


def test_channels_stand_side_by_side():
    feature = Channels(["a", "b"], radius=0.5)
    assert (feature.needs, feature.radius) == ({"a", "b"}, 0.5)
    points = feature(TRACE)
    assert points.dtype == np.float32
    assert points.tolist() == [[1, -2, 5], [3, 4, np.inf]]
    with pytest.raises(UsageError, match="names of channels"):
        Channels([])


def test_a_total_is_the_sum_of_absolute_values():
    assert Total("a")(TRACE).tolist() == [[3], [7]]
    assert np.isinf(Total("b")(TRACE)[1, 0])


def test_rows_of_different_seeds_are_always_far_apart():
    points = np.zeros((6, 3), np.float32)
    origin = np.array([0, 1, 999, 0, 1, 1000])
    apart = Apart(Channels(["a"]))
    assert apart.needs == {"a", "origin"}
    archive, placed = Archives(0.25, 4), apart({"a": points, "origin": origin})
    novel = archive.admit(placed, np.array([True, True, True, True, True, False]))
    assert novel.tolist() == [True, True, True, False, False, False]
    again = Archives(0.25, 4)
    assert archive.visits.tolist() == [2, 2, 1]
    again.restore(placed[novel], archive.visits)
    assert len(again) == len(archive) == 3
    assert again.admit(placed, np.ones(6, bool)).tolist() == [False, False, False, False, False, True]
    assert again.visits.tolist() == [3, 3, 2, 1]
