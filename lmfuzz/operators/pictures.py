"""Operators on whole images: filters, and changes of place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.operators.pixels import image_space
from lmfuzz.protocols import ForImages, MutationContext
from lmfuzz.types import Array, Batch

LARGEST_KERNEL = 31
BELLS = {3: [1, 2, 1], 5: [1, 4, 6, 4, 1], 7: [2, 7, 14, 18, 14, 7, 2]}  # OpenCV's, of small kernels


def _ndimage() -> Any:
    """Scipy's filters, loaded when they are first used: a list of operators need not wait for them."""
    from scipy import ndimage

    return ndimage


def _odd_kernel(largest: int) -> None:
    """UsageError when ``largest`` is no size of a kernel that has a middle and changes something."""
    if not (3 <= largest <= LARGEST_KERNEL and largest % 2):
        raise UsageError(f"largest must be an odd number between 3 and {LARGEST_KERNEL}, not {largest}")


def _each(rows: Batch, context: MutationContext, drawn: Array, change: Callable[..., Array]) -> Batch:
    """Copies of images, changed by what was drawn for each.

    ``change`` takes the images (N, H, W, C) for which the same was drawn, and what that is.
    """
    space, changed = image_space(context), np.empty_like(rows.data)
    for value in np.unique(drawn):
        here = drawn == value
        changed[here] = change(rows.data[here], value.item())
    return rows.changed(space.settle(changed))


def _mean(images: Array, size: int) -> Array:
    means: Array = _ndimage().uniform_filter(images, (1, size, size, 1), mode="mirror")
    return means


def _bell(images: Array, size: int) -> Array:
    """Images blurred with OpenCV's Gaussian kernel of ``size`` pixels each way."""
    distances = np.arange(size) - size // 2
    weights = np.array(BELLS.get(size, np.exp(-0.5 * (distances / (0.15 * size + 0.35)) ** 2)))
    for axis in (1, 2):
        images = _ndimage().correlate1d(images, weights / weights.sum(), axis, mode="mirror")
    return images


def _median(images: Array, size: int) -> Array:
    """Medians of squares; this takes a third of the time of scipy's, and row by row little memory."""
    around, middle = size // 2, size * size // 2
    padded = np.pad(images, [(0, 0), (around, around), (around, around), (0, 0)], mode="edge")
    squares = sliding_window_view(padded, (size, size), (1, 2))  # (N, H, W, C, size, size)
    lines = (line.reshape(*line.shape[:3], -1) for line in squares.swapaxes(0, 1))
    return np.stack([np.partition(line, middle)[..., middle] for line in lines], axis=1)


@dataclass(frozen=True)
class MeanBlur(ForImages):
    """Blurs: every value becomes the mean of a square, of 1 to ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819).
    """

    largest: Annotated[int, Field(ge=2, le=LARGEST_KERNEL)] = 5

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a square of one pixel changes nothing."""
        sizes = context.rng.integers(1, self.largest + 1, size=len(rows))
        return _each(rows, context, sizes, _mean)


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
        return _each(rows, context, sizes, _bell)


@dataclass(frozen=True)
class MedianBlur(ForImages):
    """Every value becomes the median of a square of 1, 3 ... ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819).
    """

    largest: int = 7

    def __post_init__(self) -> None:
        _odd_kernel(self.largest)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a square of one pixel changes nothing."""
        sizes = 1 + 2 * context.rng.integers((self.largest + 1) // 2, size=len(rows))
        return _each(rows, context, sizes, _median)


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
        lowest, mode = image_space(context).low, "nearest" if self.replicate else "grid-constant"
        angles = context.rng.uniform(-self.most, self.most, len(rows))
        turn = partial(_ndimage().rotate, axes=(2, 1), reshape=False, order=1, mode=mode, cval=lowest)
        return _each(rows, context, angles, turn)
