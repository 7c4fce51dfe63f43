"""Operators on images, and on numbers in a box of any shape."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.registered import making, registered
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.operators import suits
from lmfuzz.operators.pictures import GaussianBlur, MeanBlur, MedianBlur, Move, Rotation
from lmfuzz.operators.pixels import (
    Brightness,
    Contrast,
    CutOut,
    GaussianNoise,
    Mix,
    Multiplicative,
    Noise,
    Pixels,
    SaltPepper,
    Step,
)
from lmfuzz.protocols import MutationContext, Operator
from lmfuzz.types import Batch

VARIANTS = (
    "mean_blur:largest=31", "gaussian_blur:largest=31", "median_blur:largest=31", "move:replicate=false",
    "move:most=1000,replicate=false", "rotate:most=180,replicate=false",
)  # fmt: skip
ON_BOXES = registered("box")
ON_IMAGES: Mapping[str, Callable[[], Operator]] = {
    **registered("image"),
    **{text: making(text) for text in VARIANTS},
}
OPERATORS = {**ON_BOXES, **ON_IMAGES}
BYTES = 1 / 255
RANGES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-2.5, 0.5)]


def rows_of(space: BoxSpace, many: int, seed: int) -> Batch:
    """Legal rows: random values, some of them at the ends of the range, with all kinds of parents."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.2, 1.2, (many, *space.shape)).astype(np.float32)
    batch = space.batch(space.settle(space.low + (space.high - space.low) * values))
    return replace(
        batch,
        parent=rng.integers(-1, 10**12, size=many),
        operator=rng.integers(-1, 99, size=many, dtype=np.int32),
        origin=rng.integers(10**6, size=many),
    )


def locked(batch: Batch) -> Batch:
    """The same rows in arrays that cannot be written to."""
    for array in (batch.data, batch.lengths, batch.parent, batch.operator, batch.origin):
        array.flags.writeable = False
    return batch


def near(space, pool=None, seed=0) -> MutationContext:
    pool = rows_of(space, 5, seed + 1) if pool is None else pool
    return MutationContext(space, locked(pool), np.random.default_rng(seed))


def copies(space: BoxSpace, image, many: int) -> Batch:
    return locked(space.batch(np.broadcast_to(np.asarray(image, np.float32), (many, *space.shape)).copy()))


def change(operator: Operator, space: BoxSpace, image, many: int, pool=None, seed=0):
    """The values (many, *shape) of changed copies of one row."""
    return operator(copies(space, image, many), near(space, pool, seed)).data


def grey(height: int, width: int, step: float = 0.0, low: float = 0.0, high: float = 1.0) -> BoxSpace:
    return BoxSpace((height, width, 1), low, high, step)


@st.composite
def images(draw):
    """A space of images."""
    low, high = draw(st.sampled_from(RANGES))
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3])))
    return BoxSpace(shape, low, high, draw(st.sampled_from([0, (high - low) / 255])))


@st.composite
def boxes(draw):
    """A space of numbers in any shape."""
    low, high = draw(st.sampled_from(RANGES))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    return BoxSpace(shape, low, high, draw(st.sampled_from([0, (high - low) / 255, (high - low) / 2])))


every_operator = pytest.mark.parametrize("name", OPERATORS)
examples = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@every_operator
@examples
@given(data=st.data())
def test_makes_legal_rows_in_the_same_order_from_rows_pool_and_seed(name, data):
    space = data.draw(images() | boxes() if name in ON_BOXES else images())
    many, seed = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 10**6))
    rows = locked(rows_of(space, many, seed))
    changed = OPERATORS[name]()(rows, near(space, seed=seed))
    assert space.legal(changed).all()
    assert changed.data.shape == rows.data.shape
    assert changed.data.dtype == np.float32
    for field in ("lengths", "parent", "operator", "origin"):
        assert (getattr(changed, field) == getattr(rows, field)).all()
    again = OPERATORS[name]()(rows, near(space, seed=seed))
    assert (again.data == changed.data).all()


@every_operator
@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 7, 1), (7, 5, 3)])
@pytest.mark.parametrize("step", [0, BYTES])
def test_changes_most_rows_each_in_its_own_way(name, shape, step):
    space = BoxSpace(shape, step=step)
    row = rows_of(space, 1, 2).data[0]
    changed = change(OPERATORS[name](), space, row, 100)
    assert np.mean((changed != row).any(axis=(1, 2, 3))) >= 0.5
    assert len({one.tobytes() for one in changed}) >= (4 if "blur" in name else 30)


@every_operator
def test_no_rows_give_no_rows(name):
    space = BoxSpace((6, 4, 3))
    changed = OPERATORS[name]()(rows_of(space, 3, 0)[:0], near(space))
    assert len(changed) == 0
    assert changed.data.shape == (0, 6, 4, 3)


@every_operator
def test_is_described_in_its_first_line(name):
    first = type(OPERATORS[name]()).__doc__.splitlines()[0]
    assert 20 < len(first) < 110
    assert first.endswith((".", ";"))


@every_operator
def test_what_is_no_image_is_refused_in_a_sentence_or_changed(name):
    operator, space = OPERATORS[name](), BoxSpace((4, 2))
    assert suits(operator, space, None) is (name in ON_BOXES)
    if name in ON_BOXES:
        assert (operator(rows_of(space, 40, 0), near(space)).data != rows_of(space, 40, 0).data).any()
    else:
        with pytest.raises(UsageError, match=r"images changes rows of shape .* not \(4, 2\); take noise"):
            operator(rows_of(space, 3, 0), near(space))


@every_operator
def test_texts_are_refused(name):
    rows = Batch.of([np.arange(3)])
    with pytest.raises(UsageError, match="cannot change texts"):
        OPERATORS[name]()(rows, MutationContext(TextSpace(tuple("abc")), rows, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (lambda: Step(least=0.1, most=0.01), r"least must be less than most, 0.01, not 0.1"),
        (lambda: GaussianBlur(largest=4), "largest must be an odd number from 3 to 31, not 4"),
        (lambda: MedianBlur(largest=33), "largest must be an odd number from 3 to 31, not 33"),
    ],
)
def test_nonsense_parameters_are_refused(make, right):
    with pytest.raises(UsageError, match=right):
        make()


@pytest.mark.parametrize("shape", [(20, 20, 1), (400,), (5, 4, 5, 4)])
def test_noise_is_gaussian_in_widths_of_the_box(shape):
    space = BoxSpace(shape, -100, 300)
    noise = change(Noise(sigma=0.05), space, np.full(shape, 100), 100) - 100
    assert abs(noise.mean()) < 0.5
    assert noise.std() == pytest.approx(20, rel=0.02)
    assert np.mean(np.abs(noise) > 40) == pytest.approx(0.0455, abs=0.005)


def test_step_moves_one_value_by_any_order_of_magnitude():
    space = BoxSpace((3,), -10, 10)
    moved = change(Step(), space, [0, 1, -1], 3000).astype(np.float64) - [0, 1, -1]
    assert ((moved != 0).sum(axis=1) <= 1).all()  # a step may be too small for a float32
    assert np.mean((moved != 0).any(axis=1)) > 0.95
    sizes = moved[:, 0][moved[:, 0] != 0]
    assert np.mean(sizes > 0) == pytest.approx(0.5, abs=0.05)
    orders, _ = np.histogram(np.log10(np.abs(sizes) / 20), bins=[-6, -4, -2, 0.01])
    assert orders.sum() == len(sizes)
    assert (np.abs(orders / len(sizes) - 1 / 3) < 0.05).all()


@pytest.mark.parametrize("step", [0.25, BYTES])
def test_step_is_at_least_the_grid_s_and_leads_inwards_from_the_ends(step):
    space = BoxSpace((2, 2), step=step)
    row = np.array([[0, 1], [0, 1]], np.float32)
    for most in (1.0, 1e-5):
        moved = change(Step(most=most), space, row, 200) != row
        assert (moved.sum(axis=(1, 2)) == 1).all()


def test_mix_takes_blocks_sides_and_points_between():
    space = grey(6, 8)
    mine, theirs = np.full((6, 8, 1), 0.25), np.full((6, 8, 1), 0.75)
    changed = change(Mix(), space, mine, 600, copies(space, theirs, 3))[..., 0]
    blended = (changed == changed[:, :1, :1]).all(axis=(1, 2)) & (changed[:, 0, 0] < 0.75)
    assert np.mean(blended) == pytest.approx(1 / 3, abs=0.06)
    assert changed[blended].min() >= 0.25
    assert len(np.unique(changed[blended])) > 100
    sides = 0
    for image in changed[~blended]:
        y, x = np.nonzero(image == 0.75)
        inside = np.zeros((6, 8), bool)
        inside[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        assert (image == np.where(inside, 0.75, 0.25)).all()
        sides += inside.any(axis=0).all() or inside.any(axis=1).all()
    assert sides > 200


@pytest.mark.parametrize("step", [0, BYTES])
def test_mix_crosses_numbers_and_borrows_from_the_whole_pool(step):
    space = BoxSpace((4,), step=step)
    pool = space.batch(np.array([[0.2] * 4, [0.4] * 4, [0.6] * 4], np.float32))
    changed = change(Mix(), space, [0, 0, 0, 0], 300, pool)
    for value in (0.2, 0.4, 0.6):
        here = np.abs(changed - value) < 1e-6
        assert (here.any(axis=1) & (changed == 0).any(axis=1)).any()


def test_mix_keeps_the_channels_of_an_image_together():
    space = BoxSpace((5, 5, 3))
    changed = change(Mix(), space, np.zeros((5, 5, 3)), 100, copies(space, np.ones((5, 5, 3)), 1))
    assert (changed == changed[..., :1]).all()


def test_gaussian_noise_makes_half_of_the_pixels_one_byte_darker():
    for space in (grey(20, 20, BYTES), grey(20, 20), grey(20, 20, 2 / 255, -1, 1)):
        units = 255 / (space.high - space.low)
        value = space.low + 100 / units
        noise = (change(GaussianNoise(), space, np.full((20, 20, 1), value), 100) - value) * units
        assert (np.abs(noise - np.rint(noise)) < 1e-3).all()
        noise = np.rint(noise)
        assert set(np.unique(noise)) <= {-2, -1, 0, 1}
        assert np.mean(noise == -1) == pytest.approx(0.5, abs=0.02)
        assert np.mean(noise == 1) == pytest.approx(0.0008, abs=0.0005)  # 1 / sqrt(0.1) = 3.16 deviations


def test_gaussian_noise_has_the_asked_variance():
    noise = change(GaussianNoise(variance=64), grey(20, 20), np.full((20, 20, 1), 0.5), 50) - 0.5
    assert 255 * noise.std() == pytest.approx(8, rel=0.03)


@pytest.mark.parametrize(("amount", "half"), [(0.004, 2), (0.1, 40), (1.0, 392)])
def test_salt_and_pepper_are_as_many_as_asked(amount, half):
    changed = change(SaltPepper(amount), grey(28, 28), np.full((28, 28, 1), 0.5), 200).reshape(200, -1)
    salt, pepper = (changed == 1).sum(axis=1), (changed == 0).sum(axis=1)
    assert ((salt + pepper) == (changed != 0.5).sum(axis=1)).all()
    assert salt.max() <= half >= pepper.max()
    drawn = 784 * (1 - (1 - 1 / 784) ** half)  # places that are drawn at least once
    assert pepper.mean() == pytest.approx(drawn, rel=0.05)
    assert salt.mean() == pytest.approx(drawn * (1 - 1 / 784) ** half, rel=0.05)


def test_multiplicative_noise_is_proportional_and_has_a_mean_and_variance_of_its_own_per_image():
    space = grey(30, 30, low=-1)
    image = np.full((30, 30, 1), -1.0)
    image[:, 10:20], image[:, 20:] = -0.8, -0.6  # 0, 0.2 and 0.4 above black
    noise = change(Multiplicative(), space, image, 200)[..., 0] - image[..., 0]
    assert (noise[:, :, :10] == 0).all()
    some, twice = noise[:, :, 10:20].reshape(200, -1) / 0.2, noise[:, :, 20:].reshape(200, -1) / 0.4
    assert np.abs(some.mean(axis=1) - twice.mean(axis=1)).max() < 0.08
    assert some.mean(axis=1).min() == pytest.approx(-0.5, abs=0.06)
    assert some.mean(axis=1).max() == pytest.approx(0.5, abs=0.06)
    assert some.var(axis=1).min() < 0.005
    assert some.var(axis=1).max() == pytest.approx(0.05, abs=0.012)
    assert some.var(axis=1).mean() == pytest.approx(0.025, abs=0.004)


@pytest.mark.parametrize("most", [9, 1])
def test_pixels_sets_at_most_so_many_values_to_bytes(most):
    row = np.full((12, 12, 3), 0.1234)  # is no byte
    changed = change(Pixels(most), BoxSpace((12, 12, 3)), row, 500)
    set_ = changed != np.float32(0.1234)
    counts = set_.sum(axis=(1, 2, 3))
    assert counts.max() == most
    assert counts.mean() == pytest.approx(most / 2, abs=0.3)
    bytes_ = changed[set_] * 255
    assert np.abs(bytes_ - np.rint(bytes_)).max() < 1e-3
    assert bytes_.mean() == pytest.approx(127.5, abs=12)
    assert (set_.any(axis=(0, 1, 2))).all()


blurs = pytest.mark.parametrize(
    "name", ["mean_blur", "gaussian_blur", "median_blur", "mean_blur:largest=31", "median_blur:largest=31"]
)


@blurs
@pytest.mark.parametrize("space", [grey(9, 6), BoxSpace((6, 9, 3), step=BYTES), grey(7, 7, low=-1)])
def test_a_blur_of_a_constant_is_that_constant(name, space):
    value = space.settle(np.full((1, *space.shape), 51 / 255, np.float32))[0]
    assert np.abs(change(OPERATORS[name](), space, value, 20) - value).max() < 1e-6


class Drawn:
    """A generator that draws what it was given."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values)

    def integers(self, *_: object, **__: object) -> np.ndarray:
        return self.values

    uniform = integers


@pytest.mark.parametrize(
    ("operator", "drawn", "published"),
    [
        (
            MeanBlur(),
            (2, 3, 4, 5),
            [
                "78787c7778787c774848868e4f4f4b4ca2a26124",
                "81878e945560667266687274715d4b3797774c2c",
                "7070718270707182636362627474676667675847",
                "68656c72746f71766765605e6f6c636854554e4d",
            ],
        ),
        (
            GaussianBlur(9),
            (1, 2, 3, 4),
            [
                "787a7977607081824b5a6a6d78674738a2814224",
                "70757b7d676d777a5f62656671665247806e4b39",
                "6d6f74766b6d70726867656468645a556b645650",
                "6d6e70716b6c6d6d6867656566645f5c65625b58",
            ],
        ),
        (
            MedianBlur(),
            (1, 2, 3),
            [
                "cd2e3c3c2e2e556e2e556e6e9f554328b19f281d",
                "2e3c3c3c55433c3c7a55433c9f6e55439f6e281d",
                "6e3c3c3c7a433c3c95553c3c9f6e3c3c9f6e4328",
            ],
        ),
        (
            Rotation(30),
            (-30, 10),
            ["2d7b24280e5bbf6b75337495a55a4766980a2329", "8a1e435664c3c68a1528535c76754a28acb24815"],
        ),
        (
            Rotation(30, False),
            (-30, 10),
            ["097b24150a5bbf6b75337495a55a47474f0a2308", "6a1c433a64c3c6751528535c64754a2874b24410"],
        ),
    ],
)
@pytest.mark.parametrize("channels", [[1], [1, 0, 1]])
def test_filters_are_opencvs_on_bytes(operator, drawn, published, channels):
    image = np.random.default_rng(3).integers(256, size=(5, 4, 1)) * channels
    space = BoxSpace(image.shape, step=BYTES)
    rows, context = copies(space, image / 255, len(drawn)), replace(near(space), rng=Drawn(*drawn))
    changed = operator(rows, context).data * 255
    expected = np.stack([np.frombuffer(bytes.fromhex(one), np.uint8) for one in published])
    apart = np.abs(changed - expected.reshape(-1, 5, 4, 1) * channels)
    assert apart.max() < 1.01  # OpenCV 5.0.0 rounds bytes its way


def test_mean_blur_of_one_point_is_a_square():
    image = np.zeros((9, 9, 1))
    image[4, 4] = 1
    changed = change(MeanBlur(largest=3), grey(9, 9), image, 60)[..., 0]
    counts = (changed > 0).sum(axis=(1, 2))
    assert set(counts.tolist()) == {1, 4, 9}
    assert np.abs(changed.max(axis=(1, 2)) * counts - 1).max() < 1e-6


def test_median_blur_removes_a_point():
    image = np.full((9, 9, 1), 0.5)
    image[4, 4] = 1
    changed = change(MedianBlur(), grey(9, 9), image, 40)
    kept = (changed[:, 4, 4] == 1).ravel()
    assert 0 < kept.sum() < 20
    assert np.abs(changed[~kept] - 0.5).max() <= 0.5 / 255 + 1e-6


def test_brightness_moves_every_value_by_the_same():
    space = grey(8, 8, low=-1)
    image = rows_of(space, 1, 4).data[0] * 0.4
    by = change(Brightness(most=0.25), space, image, 200) - image
    assert np.ptp(by.reshape(200, -1), axis=1).max() < 1e-6
    assert by.min() == pytest.approx(-0.5, abs=0.02)
    assert by.max() == pytest.approx(0.5, abs=0.02)


def test_contrast_keeps_the_mean_and_scales_what_is_around_it():
    image = 0.5 + 0.2 * (rows_of(grey(8, 8), 1, 4).data[0] - 0.5)
    changed = change(Contrast(most=2), grey(8, 8), image, 200)
    assert np.abs(changed.mean(axis=(1, 2, 3)) - image.mean()).max() < 1e-6
    factors = changed.std(axis=(1, 2, 3)) / image.std()
    assert factors.min() == pytest.approx(0.5, abs=0.02)
    assert factors.max() == pytest.approx(2, abs=0.04)
    assert np.mean(factors < 1) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("replicate", [True, False])
def test_move_moves_whole_pixels(channels, replicate):
    space = BoxSpace((7, 9, channels), low=-1)
    image = rows_of(space, 1, 5).data[0]
    changed = change(Move(most=2, replicate=replicate), space, image, 300)
    padded = np.pad(
        image, [(2, 2), (2, 2), (0, 0)], **({"mode": "edge"} if replicate else {"constant_values": -1})
    )
    moved = {padded[y : y + 7, x : x + 9].tobytes() for y in range(5) for x in range(5)}
    assert {one.tobytes() for one in changed} == moved


def test_rotation_turns_around_the_middle_both_ways():
    space = grey(21, 21)
    image = np.zeros((21, 21, 1))
    image[10, 10:] = 1  # from the middle to the right
    changed = change(Rotation(most=45), space, image, 200)[..., 0]
    assert (changed[:, 10, 10] > 0.3).all()
    ends = changed[:, :, 17].argmax(axis=1)  # seven pixels to the right of the middle
    angles = np.degrees(np.arctan2(10 - ends, 7))
    assert angles.min() == pytest.approx(-45, abs=5)
    assert angles.max() == pytest.approx(45, abs=5)


def test_rotation_fills_corners_with_the_edge_or_the_lowest_value():
    space = BoxSpace((11, 11, 3), low=-1)
    white = np.ones((11, 11, 3))
    assert (change(Rotation(), space, white, 20) > 0.999).all()
    corners = change(Rotation(most=45, replicate=False), space, white, 50)[:, 0, 0]
    assert (corners.min(axis=1) == corners.max(axis=1)).all()
    assert corners.min() == -1


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_is_one_value_in_a_rectangle_of_up_to_half_of_each_side(channels):
    space = BoxSpace((10, 7, channels), low=-1)
    image = rows_of(space, 1, 6).data[0] * 0.5 + 0.3333
    changed = change(CutOut(), space, image, 300)
    values, sizes = [], []
    for one in changed:
        y, x = np.nonzero((one != image).any(axis=2))
        inside = one[y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert len(y) == inside.shape[0] * inside.shape[1]
        assert (inside == inside[0, 0, 0]).all()
        values.append(float(inside[0, 0, 0]))
        sizes.append(inside.shape[:2])
    assert {height for height, _ in sizes} == {1, 2, 3, 4, 5}
    assert {width for _, width in sizes} == {1, 2, 3, 4}
    assert np.mean(np.array(values) == -1) == pytest.approx(0.5, abs=0.1)
    assert len(set(values)) > 100
