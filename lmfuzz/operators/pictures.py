"""Operators on whole images: filters, and changes of place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.operators.pixels import image_space, unit
from lmfuzz.protocols import ForImages, MutationContext
from lmfuzz.types import Array, Batch

LARGEST_KERNEL = 31
LARGEST_FLOAT_MEDIAN = 5  # cv2's median of larger kernels takes bytes only


@cache
def _cv2() -> Any:
    """OpenCV, loaded when it is first used: a list of operators need not wait for it."""
    import cv2

    cv2.setNumThreads(1)  # images are small, and every process has its one core
    return cv2


def _odd_kernel(largest: int) -> None:
    """UsageError when ``largest`` is no size of a kernel that has a middle and changes something."""
    if not (3 <= largest <= LARGEST_KERNEL and largest % 2):
        raise UsageError(f"largest must be an odd number between 3 and {LARGEST_KERNEL}, not {largest}")


def _each(rows: Batch, context: MutationContext, drawn: Array, change: Callable[..., Array]) -> Batch:
    """Copies of images changed one by one: cv2 has no filter of batches, and needs microseconds each.

    ``change`` takes an image (H, W, C) and what was drawn for it; it may drop the axis of one channel.
    """
    space = image_space(context)
    changed = [change(image, value) for image, value in zip(rows.data, drawn.tolist(), strict=True)]
    return rows.changed(space.settle(np.array(changed, np.float32).reshape(rows.data.shape)))


@dataclass(frozen=True)
class MeanBlur(ForImages):
    """Blurs: every value becomes the mean of a square, of 1 to ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819).
    """

    largest: Annotated[int, Field(ge=2, le=LARGEST_KERNEL)] = 5

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a square of one pixel changes nothing."""
        sizes = context.rng.integers(1, self.largest + 1, size=len(rows))
        return _each(rows, context, sizes, lambda image, size: _cv2().blur(image, (size, size)))


@dataclass(frozen=True)
class GaussianBlur(ForImages):
    """Blurs with a Gaussian kernel of 1, 3 ... ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819); the deviation follows from the size, as in OpenCV.
    """

    largest: int = 7

    def __post_init__(self) -> None:
        _odd_kernel(self.largest)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a kernel of one pixel changes nothing."""
        sizes = 1 + 2 * context.rng.integers((self.largest + 1) // 2, size=len(rows))
        return _each(rows, context, sizes, lambda image, size: _cv2().GaussianBlur(image, (size, size), 0))


@dataclass(frozen=True)
class MedianBlur(ForImages):
    """Every value becomes the median of a square of 1, 3 ... ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819). From 7 on, values are rounded to bytes first.
    """

    largest: int = 7

    def __post_init__(self) -> None:
        _odd_kernel(self.largest)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a square of one pixel changes nothing."""
        space = image_space(context)
        low, byte = np.float32(space.low), np.float32(unit(space))

        def median(image: Array, size: int) -> Array:
            if size <= LARGEST_FLOAT_MEDIAN:
                small: Array = _cv2().medianBlur(image, size)
                return small
            whole = np.rint((image - low) / byte).astype(np.uint8)
            blurred: Array = low + byte * _cv2().medianBlur(whole, size)
            return blurred

        sizes = 1 + 2 * context.rng.integers((self.largest + 1) // 2, size=len(rows))
        return _each(rows, context, sizes, median)


@dataclass(frozen=True)
class Move(ForImages):
    """Moves an image by up to ``most`` pixels down or up and right or left.

    What comes in is the edge's values, or the lowest value where ``replicate`` is false.
    """

    most: Annotated[int, Field(ge=1, le=1000)] = 3
    replicate: bool = True

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space, many = image_space(context), len(rows)
        height, width, _ = space.shape
        far = np.minimum(self.most, [[[height - 1]], [[width - 1]]])  # farther, nothing of the image is left
        down, right = context.rng.integers(-far, far + 1, size=(2, many, 1))
        y, x = np.arange(height) - down, np.arange(width) - right  # (B, H), (B, W): where values come from
        row, column = y.clip(0, height - 1), x.clip(0, width - 1)
        data = rows.data[np.arange(many)[:, None, None], row[:, :, None], column[:, None, :]]
        if not self.replicate:
            data[(row != y)[:, :, None] | (column != x)[:, None, :]] = space.low
        return rows.changed(space.settle(data))


@dataclass(frozen=True)
class Rotation(ForImages):
    """Rotates an image around its middle by up to ``most`` degrees, one way or the other.

    What comes in is the edge's values, or the lowest value where ``replicate`` is false.
    """

    most: Annotated[float, Field(gt=0, le=180)] = 15.0
    replicate: bool = True

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        space = image_space(context)
        height, width, _ = space.shape
        middle = (width - 1) / 2, (height - 1) / 2
        edge = _cv2().BORDER_REPLICATE if self.replicate else _cv2().BORDER_CONSTANT
        lowest = [space.low] * 4

        def rotated(image: Array, degrees: float) -> Array:
            turn = _cv2().getRotationMatrix2D(middle, degrees, 1)
            size = (width, height)
            turned: Array = _cv2().warpAffine(image, turn, size, borderMode=edge, borderValue=lowest)
            return turned

        return _each(rows, context, context.rng.uniform(-self.most, self.most, len(rows)), rotated)
