"""What every registered feature promises, whatever it looks at.

One that cannot be made by its name alone, or needs a channel that is not shown here, has a line to add.
"""

import numpy as np
import pytest

from lmfuzz.coverage import FEATURES
from lmfuzz.coverage.per_seed import Apart
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import FixesRadius
from lmfuzz.types import take

ROWS, STEPS, UNITS = 40, 12, 16
NEEDS = {"channels": 'channels:names=["logits", "hidden_mean"]'}  # what cannot be made by its name alone


def shown():
    """All channels that there are features of, for rows whose outputs have as many tokens."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(97, 123, size=(ROWS, STEPS), dtype=np.int32)
    trace = {
        "text": np.array(["".join(map(chr, row)) for row in tokens.tolist()], object), "tokens": tokens,
        "entropy": rng.random((ROWS, STEPS)), "logprob": -rng.random((ROWS, STEPS)),
        "hidden_last": rng.standard_normal((ROWS, 80)), "hidden_mean": rng.standard_normal((ROWS, UNITS)),
        "hidden_steps": rng.standard_normal((ROWS, STEPS, UNITS)), "logits": rng.standard_normal((ROWS, 10)),
        "origin": np.arange(ROWS),
    }  # fmt: skip
    return {
        name: array.astype(np.float32) if array.dtype == float else array for name, array in trace.items()
    }


def fitted(name, trace, rows=slice(None)):
    feature = FEATURES.build(parse(NEEDS.get(name, name)))
    feature.fit(take(trace, rows))
    return feature


every_feature = pytest.mark.parametrize("name", FEATURES.table)


@every_feature
def test_it_gives_every_row_a_finite_point_by_the_channels_that_it_names(name):
    trace = shown()
    for seeds in (slice(None), slice(1)):
        feature = fitted(name, trace, seeds)
        assert isinstance(feature.needs, frozenset)
        points = feature({channel: trace[channel] for channel in feature.needs})
        assert points.dtype == np.float32
        assert points.shape == (ROWS, feature(take(trace, [3])).shape[1])
        assert np.isfinite(points).all()


@every_feature
def test_a_point_depends_on_its_row_alone(name):
    trace = shown()
    feature = fitted(name, trace)
    points = feature(trace)
    for rows in ([7, 3], [0], list(range(ROWS))[::-1]):
        np.testing.assert_allclose(feature(take(trace, rows)), points[rows], atol=2e-5)


@every_feature
def test_what_is_fitted_on_the_same_is_the_same(name):
    trace = shown()
    np.testing.assert_array_equal(fitted(name, trace)(trace), fitted(name, trace)(trace))


@every_feature
def test_rows_that_differ_have_other_points_and_equal_ones_the_same(name):
    trace = shown()
    points = fitted(name, trace)(trace)
    assert len(np.unique(points, axis=0)) > 1
    twice = fitted(name, trace)(take(trace, [4, 4]))
    np.testing.assert_allclose(twice[0], twice[1], atol=2e-5)


@every_feature
def test_a_row_that_is_not_finite_has_no_finite_point_and_spoils_no_other(name):
    trace = shown()
    feature = fitted(name, trace)
    broken = {channel: array.copy() for channel, array in trace.items()}
    for array in broken.values():
        if array.dtype.kind == "f":
            array[2] = np.nan
    points, rest = feature(broken), np.arange(ROWS) != 2
    assert not np.isfinite(points[2]).all()
    np.testing.assert_allclose(points[rest], feature(trace)[rest], atol=2e-5)


@every_feature
def test_a_radius_that_it_fixes_is_a_distance(name):
    feature = fitted(name, shown())
    assert isinstance(feature, FixesRadius) is hasattr(feature, "radius")
    if isinstance(feature, FixesRadius) and feature.radius is not None:
        assert 0 < feature.radius < np.inf


@every_feature
def test_it_serves_campaigns_per_seed(name):
    trace = shown()
    apart = Apart(fitted(name, trace))
    assert apart(trace).shape == (ROWS, apart(take(trace, [0])).shape[1])
