import numpy as np
import pytest

from lmfuzz.coverage.features import OutputCells, Trajectory, hidden_last, hidden_mean
from lmfuzz.types import PAD, take

H, T = 12, 20


def seen(texts, steps=None, seed=0):
    """A trace of rows whose output is ``texts``, one symbol per character, with random states."""
    rng = np.random.default_rng(seed)
    tokens = np.full((len(texts), T), PAD, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = [ord(c) for c in text[:T]]
    steps = rng.standard_normal((len(texts), T, H)) if steps is None else steps
    return {
        "text": np.array(texts, dtype=object),
        "tokens": tokens,
        "entropy": np.where(tokens == PAD, np.nan, 0.7).astype(np.float32),
        "logprob": np.where(tokens == PAD, np.nan, -0.1).astype(np.float32),
        "hidden_last": rng.standard_normal((len(texts), 80)).astype(np.float32),
        "hidden_mean": rng.standard_normal((len(texts), H)).astype(np.float32),
        "hidden_steps": steps.astype(np.float32),
    }


FULL = ["abcdefghijklmnopqrst"] * 40
FEATURES = [hidden_last(), hidden_last(0), hidden_mean(), Trajectory(), OutputCells(), OutputCells(False)]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: type(f).__name__)
def test_every_feature_gives_one_finite_float32_point_per_row_whatever_its_neighbours(feature):
    trace = seen(FULL)
    assert feature.needs <= trace.keys()
    for seeds in (slice(0, 40), slice(0, 1)):
        feature.fit(take(trace, seeds))
        points = feature(trace)
        assert points.dtype == np.float32
        assert points.shape == (40, feature(take(trace, [3])).shape[1])
        assert np.isfinite(points).all()
        np.testing.assert_allclose(feature(take(trace, [7, 3])), points[[7, 3]], atol=2e-5)


@pytest.mark.parametrize("feature", FEATURES[:5], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_lost_alone_and_teaches_nothing(feature, value):
    trace = seen(FULL)
    clean = take(trace, slice(1, 40))
    broken = {name: array.copy() for name, array in trace.items()}
    for name in ("entropy", "hidden_last", "hidden_mean", "hidden_steps"):
        broken[name][0, 5] = value
    feature.fit(clean)
    expected = feature(clean)
    feature.fit(broken)
    points = feature(broken)
    assert not np.isfinite(points[0]).any()
    if not isinstance(feature, Trajectory):  # its k-means draws from another number of steps
        np.testing.assert_allclose(points[1:], expected, atol=2e-5)
    assert np.isfinite(points[1:]).all()


@pytest.mark.parametrize(
    "feature", [hidden_last(), hidden_mean(), Trajectory()], ids=lambda f: type(f).__name__
)
def test_of_seeds_none_of_which_is_finite_all_points_are_nan_and_others_can_still_be_placed(feature):
    trace = {name: np.full_like(a, np.nan) if a.dtype.kind == "f" else a for name, a in seen(FULL).items()}
    feature.fit(trace)
    assert not np.isfinite(feature(trace)).any()
    assert np.isfinite(feature(seen(FULL))).all()


def test_units_are_standardised_and_clipped():
    seeds = np.random.default_rng(0).standard_normal((200, 3)) * [1, 1000, 1e-3] + [0, 5000, 1]
    feature = hidden_last(0)
    feature.fit({"hidden_last": seeds.astype(np.float32)})
    points = feature({"hidden_last": seeds.astype(np.float32)})
    assert np.allclose(points.mean(axis=0), 0, atol=0.01)
    assert np.allclose(points.std(axis=0), 1, atol=0.01)
    far = feature({"hidden_last": np.array([[1e30, -1e30, 3e38]], np.float32)})
    assert far.tolist() == [[6, -6, 6]]


def test_the_noise_of_a_constant_unit_is_no_jump():
    seeds = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    seeds[:, 2] = 0.25 + 3e-8 * seeds[:, 1]
    feature = hidden_last(0)
    feature.fit({"hidden_last": seeds})
    noisy = seeds[:1] + np.float32(4e-7)
    same, moved = feature({"hidden_last": seeds[:1]}), feature({"hidden_last": noisy})
    assert np.abs(moved - same).max() < 1e-5
    feature.fit({"hidden_last": seeds[:1]})  # one seed: the units as they are
    np.testing.assert_allclose(feature({"hidden_last": seeds[:1] + 0.5}), 0.5, atol=1e-5)


def test_the_projection_is_fixed_orthogonal_and_left_out_where_it_would_not_reduce():
    trace = seen(FULL)
    plain, projected, narrow = hidden_last(0), hidden_last(64), hidden_last(80)
    for feature in (plain, projected, narrow):
        feature.fit(trace)
    assert plain(trace).shape == narrow(trace).shape == (40, 80)
    assert (plain(trace) == narrow(trace)).all()
    assert projected(trace).shape == (40, 64)
    again = hidden_last(64)
    again.fit(trace)
    assert (again(trace) == projected(trace)).all()
    units = np.eye(80, dtype=np.float32)
    seeds = {"hidden_last": np.concatenate([units, -units])}  # each of mean 0 and the same deviation
    plain.fit(seeds)
    again.fit(seeds)
    basis = again({"hidden_last": units}) / plain({"hidden_last": units})[0, 0]
    np.testing.assert_allclose(basis.T @ basis, np.eye(64), atol=1e-5)
    # so that no other machine or version of a library quietly changes the map
    np.testing.assert_allclose(
        basis[:2, :3], [[0.0145, -0.0162, 0.074], [0.0379, -0.0317, 0.1826]], atol=1e-4
    )


def walk(path, places):
    """Steps (1, T, H) that visit places[path[i]]."""
    return places[np.array(path)][None]


def test_a_trajectory_tells_states_orders_and_far_places_apart():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((4, H)) * 10
    paths = rng.integers(3, size=(60, T))
    feature = Trajectory(clusters=3)
    feature.fit(seen(["x" * T] * 60, places[paths] + 0.01 * rng.standard_normal((60, T, H))))

    def point(path, length=T):
        return feature(seen(["x" * length], walk(path, places)))[0]

    def apart(a, b):
        return np.linalg.norm(a - b)

    forth, back = [0, 1, 2, 0] * 5, [0, 2, 1, 0] * 5
    assert point(forth).shape == (3 + 1 + Trajectory.groups,)
    assert apart(point(forth), point(forth)) == 0
    states = point(forth)[:4]
    np.testing.assert_allclose(sorted(states**2), [0, 0.25, 0.25, 0.5], atol=1e-6)
    assert states[3] == 0
    np.testing.assert_allclose((point(forth)[4:] ** 2).sum(), 1, atol=1e-6)
    np.testing.assert_allclose(point(forth)[:4], point(back)[:4])
    assert apart(point(forth), point(back)) > 0.5  # the same states, in another order
    once_far, once_more = [*forth[:-1], 3], [*forth[:-1], 1]
    assert point(once_far)[3] ** 2 == pytest.approx(1 / T)
    assert apart(point(forth)[:4], point(once_far)[:4]) > 2 * apart(point(forth)[:4], point(once_more)[:4])


def test_a_trajectory_ignores_what_lies_behind_the_end():
    feature, trace = Trajectory(4), seen(["abcdefgh"] * 30)
    feature.fit(trace)
    changed = dict(trace, hidden_steps=trace["hidden_steps"].copy())
    changed["hidden_steps"][:, 8:] = np.nan
    refitted = Trajectory(4)
    refitted.fit(changed)
    for other in (feature(changed), refitted(changed)):
        assert (other == feature(trace)).all()
    assert (feature(seen([""])) == 0).all()


ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def cell(text, entropy=0.7, logprob=-0.1):
    trace = seen([text[:T]])
    trace["text"] = np.array([text], dtype=object)
    for name, value in (("entropy", entropy), ("logprob", logprob)):
        trace[name] = np.where(trace["tokens"] == PAD, np.nan, value).astype(np.float32)
    return OutputCells()(trace)[0].tolist()


@pytest.mark.parametrize(
    ("text", "period"),
    [("", 0), ("a", 0), ("no loop at all in here", 0), ("and then: " + "x" * 13, 1), ("x" * 13, 1),
     ("x" * 12, 0), ("say haha" + "ha" * 6, 2), ("abc" * 5, 3), ("abcd" * 4, 3),
     ("abcde" * 3, 0), ("abcde" * 4, 4),
     ("The king. " * 4, 5), ("The king and the queen. " * 3, 6), ("The king and the queen. " * 2, 0),
     (ALPHABET[:32] * 3, 6), (ALPHABET[:33] * 3, 0), ("ab" * 20 + "!", 0), ("long ago " * 80, 5),
     ("once upon a time " * 3 + "x" * 20, 1)],
)  # fmt: skip
def test_the_period_is_that_of_the_shortest_loop_at_the_end(text, period):
    assert cell(text)[0] == period
    # and in a batch with others of other lengths
    texts = [text, "something else entirely", "x" * 40, ""]
    assert OutputCells(False)({"text": np.array(texts, dtype=object)})[0, 0] == period


def test_length_repetition_entropy_and_probability_are_cells():
    assert [cell("abcdefghijklmnop"[:n])[1] for n in (0, 1, 2, 3, 4, 7, 8)] == [0, 1, 2, 2, 3, 3, 4]
    repeated = [cell(text)[2] for text in ("abc", "abcdefgh", "abcdeabcde", "x" * 50)]
    assert repeated == [0, 0, 1, 4]  # of "abcdeabcde"'s 7 4-grams 2 are repeated
    together = OutputCells(False)({"text": np.array(["abcdeabcde", "x" * 50, "abc"], dtype=object)})
    assert together[:, 2].tolist() == [1, 4, 0]
    assert [cell("abc", entropy=e)[3] for e in (0.0, 0.4, 0.6, 1.6, 100.0)] == [0, 0, 1, 3, 24]
    assert [cell("abc", logprob=np.log(p))[4] for p in (0.01, 0.25, 0.5, 0.99, 1.0)] == [0, 1, 2, 4, 4]
    assert cell("", entropy=1.0)[3:] == [0, 0]


def test_rows_in_different_cells_are_at_least_one_apart():
    texts = ["", "a", "abcdefgh", "x" * 30, "the same the same the same the same"]
    points = OutputCells(False)({"text": np.array(texts, dtype=object)})
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    assert (apart[~np.eye(5, dtype=bool)] >= 1).all()
    assert OutputCells.radius < 1
