"""Operators on rows of numbers: Noise, Step and Mix on a box of any shape, the others on images.

Every row of a batch draws its own parameters. What papers say in units of bytes, 0 to 255, is meant of
the box from ``low`` to ``high``: ``unit`` converts it. Values are rounded to the
grid of the space, and to whole bytes where an operator says so.
"""

from dataclasses import dataclass
from math import ceil, log, prod
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.operators.splice import borrowed
from lmfuzz.plugins.bounds import Fraction
from lmfuzz.protocols import ForBoxes, ForImages, MutationContext
from lmfuzz.types import Array, Batch, BoolArray, FloatArray, IntArray

Spans = list[tuple[IntArray, IntArray]]  # per axis: start and stop (B,)


def image_space(context: MutationContext) -> BoxSpace:
    """The space of images; UsageError where rows are something else."""
    space = context.box
    if not space.image:
        raise UsageError(
            f"an operator on images cannot change rows of shape {space.shape}, images being (height, width, "
            "1 or 3); take noise, step or mix with --operator"
        )
    return space


def _width(space: BoxSpace) -> float:
    return space.high - space.low


def unit(space: BoxSpace) -> float:
    """What 1 in the papers' bytes, 0 to 255, is in this space."""
    return _width(space) / 255


def _flat(rows: Batch, space: BoxSpace) -> FloatArray:
    """A copy of the rows' values with one axis each (B, N)."""
    return rows.data.reshape(len(rows), prod(space.shape)).copy()


def _uniform(low: float, high: float, rows: Batch, context: MutationContext) -> FloatArray:
    """A number per row, float32 (B, 1, ..., 1) so that it goes with the rows' values."""
    drawn = context.rng.uniform(low, high, size=(len(rows), *[1] * (rows.data.ndim - 1)))
    return drawn.astype(np.float32)


@dataclass(frozen=True)
class Noise(ForBoxes):
    """Adds Gaussian noise to every value: ``sigma`` is its deviation in widths of the box.

    TensorFuzz's (Odena & Goodfellow 2018) mutation of images, whose values go from 0 to 1.
    """

    sigma: Fraction = 0.2

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        noise = context.rng.standard_normal(rows.data.shape, np.float32)
        return rows.changed(context.box.settle(rows.data + self.sigma * _width(context.box) * noise))


@dataclass(frozen=True)
class Step(ForBoxes):
    """Moves one value by a step of any order of magnitude, ``least`` to ``most`` of the box's width.

    The logarithm of the size is uniform, so that a function of few numbers is searched widely and finely.
    A step is never smaller than the space's, and leads inwards from a value at the end of the range.
    """

    least: Fraction = 1e-6
    most: Fraction = 1.0

    def __post_init__(self) -> None:
        if self.least >= self.most:
            raise UsageError(f"least must be less than most, {self.most}, not {self.least}")

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space, many = context.box, len(rows)
        data = _flat(rows, space)
        where = np.arange(many), context.rng.integers(data.shape[1], size=many)
        value = data[where]
        least = max(self.least, space.step / _width(space))
        size = _width(space) * np.exp(context.rng.uniform(log(least), log(max(self.most, least)), many))
        up = ((context.rng.random(many) < 0.5) & (value < space.high)) | (value <= space.low)
        data[where] = value + np.where(up, size, -size)
        return rows.changed(space.settle(data.reshape(rows.data.shape)))


@dataclass(frozen=True)
class Mix(ForBoxes):
    """Puts a block or a side of a pool row into a row, or a point between the two in its place.

    A block is a span of every axis (a rectangle of an image with all its channels), a side what is before
    or behind a cut of one axis. Which of the three, where and how much is drawn for every row.
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space, many = context.box, len(rows)
        other = borrowed(many, context).data
        kind = context.rng.integers(3, size=many)
        side, blend = kind == 1, kind == 2
        axis = context.rng.integers(len(_axes(space)), size=many)
        front = context.rng.random(many) < 0.5
        spans = []
        for i, (start, stop) in enumerate(_spans(space, 1, many, context.rng)):
            cut, through = side & (axis == i), side & (axis != i)
            start = np.where(through | (cut & front), 0, start)
            spans.append((start, np.where(through | (cut & ~front), space.shape[i], stop)))
        blended = rows.data + _uniform(0, 1, rows, context) * (other - rows.data)
        crossed = np.where(_block(spans, space), other, rows.data)
        return rows.changed(space.settle(np.where(_column(blend, rows.data.ndim), blended, crossed)))


def _axes(space: BoxSpace) -> tuple[int, ...]:
    """The sizes of the axes that can be cut: not the channels of an image."""
    return space.shape[:2] if space.image else space.shape


def _spans(space: BoxSpace, share: float, many: int, rng: np.random.Generator) -> Spans:
    """On every axis a span per row, of one place to ``share`` of the axis."""
    spans: Spans = []
    for size in _axes(space):
        length = rng.integers(1, max(1, round(size * share)) + 1, size=many)
        start = rng.integers(0, size - length + 1)
        spans.append((start, start + length))
    return spans


def _block(spans: Spans, space: BoxSpace) -> BoolArray:
    """Which values stand within the spans of all axes; goes with (B, *shape)."""
    dimensions = len(space.shape)
    inside: BoolArray = np.ones([1] * (dimensions + 1), bool)
    for i, (start, stop) in enumerate(spans):
        along = np.arange(space.shape[i]).reshape(-1, *[1] * (dimensions - i - 1))
        first, end = _column(start, dimensions + 1), _column(stop, dimensions + 1)
        inside = inside & (along >= first) & (along < end)
    return inside


def _column(values: Array, dimensions: int) -> Array:
    """One value per row as (B, 1, ..., 1)."""
    return values.reshape(-1, *[1] * (dimensions - 1))


@dataclass(frozen=True)
class GaussianNoise(ForImages):
    """Adds Gaussian noise of ``variance``, in units of bytes, rounded down to whole units.

    TriggerFinder's (arXiv 2112.02819). Its code cuts off the fraction of the sum, which for a byte is to
    round the noise down: at 0.1 about half of all pixels get darker by one, and hardly any brighter.
    """

    variance: Annotated[float, Field(gt=0, le=255**2)] = 0.1

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        noise = np.floor(self.variance**0.5 * context.rng.standard_normal(rows.data.shape, np.float32))
        return rows.changed(space.settle(rows.data + unit(space) * noise))


@dataclass(frozen=True)
class SaltPepper(ForImages):
    """Sets random values, ``amount`` of all, half of them to the highest and half to the lowest.

    TriggerFinder's (arXiv 2112.02819): each half is rounded up, and places are drawn with replacement.
    """

    amount: Fraction = 0.004

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        data = _flat(rows, space)
        half = ceil(self.amount * data.shape[1] / 2)
        for value in (space.high, space.low):
            places = context.rng.integers(data.shape[1], size=(len(rows), half))
            np.put_along_axis(data, places, value, axis=1)
        return rows.changed(space.settle(data.reshape(rows.data.shape)))


@dataclass(frozen=True)
class Multiplicative(ForImages):
    """Adds to every value its product with Gaussian noise, of a ``mean`` and a ``variance`` up to these.

    TriggerFinder's (arXiv 2112.02819): an image's mean is drawn from -``mean`` to ``mean``, its variance
    from 0 to ``variance``. The published code then cuts off fractions of bytes; here they are rounded.
    """

    mean: Fraction = 0.5
    variance: Fraction = 0.05

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        mean = _uniform(-self.mean, self.mean, rows, context)
        sigma = np.sqrt(_uniform(0, self.variance, rows, context))
        noise = mean + sigma * context.rng.standard_normal(rows.data.shape, np.float32)
        return rows.changed(space.settle(rows.data + (rows.data - space.low) * noise))


@dataclass(frozen=True)
class Pixels(ForImages):
    """Sets up to ``most`` random values to random bytes.

    TriggerFinder's (arXiv 2112.02819): the number is drawn from 0 to ``most``, both included.
    """

    most: Annotated[int, Field(ge=1, le=10_000)] = 9

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space, many = image_space(context), len(rows)
        data = _flat(rows, space)
        row = np.arange(many).repeat(context.rng.integers(self.most + 1, size=many))
        places = context.rng.integers(data.shape[1], size=len(row))
        data[row, places] = space.low + unit(space) * context.rng.integers(256, size=len(row))
        return rows.changed(space.settle(data.reshape(rows.data.shape)))


@dataclass(frozen=True)
class Brightness(ForImages):
    """Makes an image brighter or darker, by up to ``most`` of the box's width."""

    most: Fraction = 0.25

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        return rows.changed(
            space.settle(rows.data + _width(space) * _uniform(-self.most, self.most, rows, context))
        )


@dataclass(frozen=True)
class Contrast(ForImages):
    """Stretches the values of an image around their mean, or draws them together, up to ``most`` times."""

    most: Annotated[float, Field(gt=1, le=255)] = 2.0

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; the logarithm of the factor is uniform."""
        space = image_space(context)
        factor = np.exp(_uniform(-log(self.most), log(self.most), rows, context))
        mean = rows.data.mean(axis=(1, 2, 3), keepdims=True)
        return rows.changed(space.settle(mean + factor * (rows.data - mean)))


@dataclass(frozen=True)
class CutOut(ForImages):
    """Covers a rectangle, of up to ``share`` of each side, with one value: the lowest or a random one."""

    share: Fraction = 0.5

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        value = _uniform(space.low, space.high, rows, context)
        value[context.rng.random(len(rows)) < 0.5] = space.low
        inside = _block(_spans(space, self.share, len(rows), context.rng), space)
        return rows.changed(space.settle(np.where(inside, value, rows.data)))
