"""Operators on rows of numbers: Noise, Step and Mix on a box of any shape, the others on images.

Every row of a batch draws its own parameters. What papers give in bytes, 0 to 255, refers to the box from
``low`` to ``high``; ``unit`` converts it. Values are rounded to the grid of the space, and to whole bytes if
an operator says so.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil, log, prod
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, Spans
from lmfuzz.operators.splice import borrowed
from lmfuzz.plugins.bounds import Fraction
from lmfuzz.protocols import ForBoxes, ForImages, MutationContext
from lmfuzz.types import Array, Batch, FloatArray, per_row


class BoxOperator(ForBoxes, ABC):
    """Change numbers: a subclass computes values, which are then moved to the nearest legal ones."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; raise UsageError if they are not of the operator's kind."""
        space = context.box
        if self.rows == "image" and not space.image:
            raise UsageError(
                f"an operator on images changes rows of shape (height, width, 1 or 3), not {space.shape}; "
                "take noise, step or mix with --operator"
            )
        return rows.changed(space.settle(self._values(rows, space, context).reshape(rows.data.shape)))

    @abstractmethod
    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        """Return the new values of all rows, in any shape and not yet legal."""


class ImageOperator(ForImages, BoxOperator):
    """Change images in the same way."""


def _width(space: BoxSpace) -> float:
    return space.high - space.low


def unit(space: BoxSpace) -> float:
    """Return what 1 in the papers' bytes, 0 to 255, is in this space."""
    return _width(space) / 255


def _flat(rows: Batch, space: BoxSpace) -> FloatArray:
    """Return a copy of the rows' values (B, N)."""
    return rows.data.reshape(len(rows), prod(space.shape)).copy()


def _uniform(low: float, high: float, rows: Batch, context: MutationContext) -> FloatArray:
    """Return a random number per row, float32 (B, 1, ..., 1)."""
    return per_row(context.rng.uniform(low, high, size=len(rows)), rows.data.ndim).astype(np.float32)


@dataclass(frozen=True)
class Noise(BoxOperator):
    """Add Gaussian noise to every value, with a deviation of ``sigma`` times the width of the box.

    This is TensorFuzz's (Odena & Goodfellow 2018) mutation of images, whose values go from 0 to 1.
    """

    sigma: Fraction = 0.2

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        noise = context.rng.standard_normal(rows.data.shape, np.float32)
        return np.asarray(rows.data + self.sigma * _width(space) * noise)


@dataclass(frozen=True)
class Step(BoxOperator):
    """Move one value by a step of any order of magnitude, ``least`` to ``most`` of the box's width.

    The logarithm of the size is uniform, so that a function of few numbers is searched widely and finely.
    A step is never smaller than the space's, and leads inwards from a value at the end of the range.
    """

    least: Fraction = 1e-6
    most: Fraction = 1.0

    def __post_init__(self) -> None:
        if self.least >= self.most:
            raise UsageError(f"least must be less than most, {self.most}, not {self.least}")

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        many, data = len(rows), _flat(rows, space)
        where = np.arange(many), context.rng.integers(data.shape[1], size=many)
        value = data[where]
        least = max(self.least, space.step / _width(space))
        size = _width(space) * np.exp(context.rng.uniform(log(least), log(max(self.most, least)), many))
        up = ((context.rng.random(many) < 0.5) & (value < space.high)) | (value <= space.low)
        data[where] = value + np.where(up, size, -size)
        return data


class Mix(BoxOperator):
    """Put a block or a side of a pool row into a row, or replace the row by a point between the two.

    A block is a span of every axis (a rectangle of an image with all its channels); a side is all that comes
    before or after a cut of one axis. Which of the three, where and how much is drawn for every row.
    """

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        many, other = len(rows), borrowed(len(rows), context).data
        kind = context.rng.integers(3, size=many)
        side, blend = kind == 1, kind == 2
        axis = context.rng.integers(len(space.cuttable), size=many)
        front = context.rng.random(many) < 0.5
        spans = []
        for i, (start, stop) in enumerate(_spans(space, 1, many, context.rng)):
            cut, through = side & (axis == i), side & (axis != i)
            start = np.where(through | (cut & front), 0, start)
            spans.append((start, np.where(through | (cut & ~front), space.shape[i], stop)))
        blended = rows.data + _uniform(0, 1, rows, context) * (other - rows.data)
        crossed = np.where(space.block(spans), other, rows.data)
        return np.where(per_row(blend, rows.data.ndim), blended, crossed)


def _spans(space: BoxSpace, share: float, many: int, rng: np.random.Generator) -> Spans:
    """Return a span per row on every axis, from one place to ``share`` of the axis."""
    spans: Spans = []
    for size in space.cuttable:
        length = rng.integers(1, max(1, round(size * share)) + 1, size=many)
        start = rng.integers(0, size - length + 1)
        spans.append((start, start + length))
    return spans


@dataclass(frozen=True)
class GaussianNoise(ImageOperator):
    """Add Gaussian noise of ``variance``, in units of bytes, rounded down to whole units.

    TriggerFinder's (arXiv 2112.02819). Its code cuts off the fraction of the sum, which for a byte rounds the
    noise down: at 0.1 about half of all pixels get darker by one, and hardly any brighter.
    """

    variance: Annotated[float, Field(gt=0, le=255**2)] = 0.1

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        noise = np.floor(self.variance**0.5 * context.rng.standard_normal(rows.data.shape, np.float32))
        return np.asarray(rows.data + unit(space) * noise)


@dataclass(frozen=True)
class SaltPepper(ImageOperator):
    """Set random values, ``amount`` of all, half of them to the highest and half to the lowest.

    TriggerFinder's (arXiv 2112.02819): each half is rounded up, and places are drawn with replacement.
    """

    amount: Fraction = 0.004

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        data = _flat(rows, space)
        half = ceil(self.amount * data.shape[1] / 2)
        for value in (space.high, space.low):
            places = context.rng.integers(data.shape[1], size=(len(rows), half))
            np.put_along_axis(data, places, value, axis=1)
        return data


@dataclass(frozen=True)
class Multiplicative(ImageOperator):
    """Add to every value its product with Gaussian noise of a ``mean`` and a ``variance`` up to these.

    TriggerFinder's (arXiv 2112.02819): an image's mean is drawn from -``mean`` to ``mean``, its variance
    from 0 to ``variance``. The published code then cuts off fractions of bytes; here they are rounded.
    """

    mean: Fraction = 0.5
    variance: Fraction = 0.05

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        mean = _uniform(-self.mean, self.mean, rows, context)
        sigma = np.sqrt(_uniform(0, self.variance, rows, context))
        noise = mean + sigma * context.rng.standard_normal(rows.data.shape, np.float32)
        return rows.data + (rows.data - space.low) * noise


@dataclass(frozen=True)
class Pixels(ImageOperator):
    """Set up to ``most`` random values to random bytes.

    TriggerFinder's (arXiv 2112.02819): the number is drawn from 0 to ``most``, both included.
    """

    most: Annotated[int, Field(ge=1, le=10_000)] = 9

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        many, data = len(rows), _flat(rows, space)
        row = np.arange(many).repeat(context.rng.integers(self.most + 1, size=many))
        places = context.rng.integers(data.shape[1], size=len(row))
        data[row, places] = space.low + unit(space) * context.rng.integers(256, size=len(row))
        return data


@dataclass(frozen=True)
class Brightness(ImageOperator):
    """Make an image brighter or darker, by up to ``most`` of the box's width."""

    most: Fraction = 0.25

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        return np.asarray(rows.data + _width(space) * _uniform(-self.most, self.most, rows, context))


@dataclass(frozen=True)
class Contrast(ImageOperator):
    """Stretch the values of an image around their mean, or draw them together, up to ``most`` times.

    The logarithm of the factor is uniform.
    """

    most: Annotated[float, Field(gt=1, le=255)] = 2.0

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        factor = np.exp(_uniform(-log(self.most), log(self.most), rows, context))
        mean = rows.data.mean(axis=(1, 2, 3), keepdims=True)
        return np.asarray(mean + factor * (rows.data - mean))


@dataclass(frozen=True)
class CutOut(ImageOperator):
    """Cover a rectangle, of up to ``share`` of each side, with one value: the lowest or a random one."""

    share: Fraction = 0.5

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        value = _uniform(space.low, space.high, rows, context)
        value[context.rng.random(len(rows)) < 0.5] = space.low
        inside = space.block(_spans(space, self.share, len(rows), context.rng))
        return np.where(inside, value, rows.data)
