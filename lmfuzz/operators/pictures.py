"""Operators on whole images: filters, shifts and rotations."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.operators.pixels import ImageOperator
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Array, Batch

LARGEST_KERNEL = 31
BELLS = {3: [1, 2, 1], 5: [1, 4, 6, 4, 1], 7: [2, 7, 14, 18, 14, 7, 2]}  # OpenCV's small Gaussian kernels


def _ndimage() -> Any:
    """Return scipy's filters, loaded when they are first used: a list of operators need not wait for them."""
    from scipy import ndimage

    return ndimage


def _each(images: Array, drawn: Array, change: Callable[[Array, Any], Array]) -> Array:
    """Return images (B, H, W, C) changed by what was ``drawn`` for each (B,), equal draws together."""
    changed = np.empty_like(images)
    for value in np.unique(drawn):
        here = drawn == value
        changed[here] = change(images[here], value.item())
    return changed


def _mean(images: Array, size: int) -> Array:
    return np.asarray(_ndimage().uniform_filter(images, (1, size, size, 1), mode="mirror"))


@dataclass(frozen=True)
class MeanBlur(ImageOperator):
    """Blur: every value becomes the mean of a square of 1 to ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819); a square of one pixel changes nothing.
    """

    largest: Annotated[int, Field(ge=2, le=LARGEST_KERNEL)] = 5

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        return _each(rows.data, context.rng.integers(1, self.largest + 1, size=len(rows)), _mean)


@dataclass(frozen=True)
class OddBlur(ImageOperator):
    """Blur with a kernel of 1, 3 ... ``largest`` pixels each way; one pixel changes nothing.

    Raises UsageError if ``largest`` is even, below 3 or above 31.
    """

    largest: int = 7

    def __post_init__(self) -> None:
        if not (3 <= self.largest <= LARGEST_KERNEL and self.largest % 2):
            raise UsageError(f"largest must be an odd number from 3 to {LARGEST_KERNEL}, not {self.largest}")

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        sizes = 1 + 2 * context.rng.integers((self.largest + 1) // 2, size=len(rows))
        return _each(rows.data, sizes, self._blurred)

    @abstractmethod
    def _blurred(self, images: Array, size: int) -> Array:
        """Return images (N, H, W, C) blurred with a kernel of ``size`` pixels each way."""


class GaussianBlur(OddBlur):
    """Blur with a Gaussian kernel of 1, 3 ... ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819); the deviation follows from the size, as in OpenCV.
    """

    def _blurred(self, images: Array, size: int) -> Array:
        distances = np.arange(size) - size // 2
        weights = np.array(BELLS.get(size, np.exp(-0.5 * (distances / (0.15 * size + 0.35)) ** 2)))
        for axis in (1, 2):
            images = _ndimage().correlate1d(images, weights / weights.sum(), axis, mode="mirror")
        return images


class MedianBlur(OddBlur):
    """Blur: every value becomes the median of a square of 1, 3 ... ``largest`` pixels each way.

    TriggerFinder's (arXiv 2112.02819). Row by row it needs little memory, and a third of scipy's time.
    """

    def _blurred(self, images: Array, size: int) -> Array:
        around, middle = size // 2, size * size // 2
        padded = np.pad(images, [(0, 0), (around, around), (around, around), (0, 0)], mode="edge")
        squares = sliding_window_view(padded, (size, size), (1, 2))  # (N, H, W, C, size, size)
        lines = (line.reshape(*line.shape[:3], -1) for line in squares.swapaxes(0, 1))
        return np.stack([np.partition(line, middle)[..., middle] for line in lines], axis=1)


@dataclass(frozen=True)
class Move(ImageOperator):
    """Move an image by up to ``most`` pixels down or up, and right or left.

    What comes in is the edge's values, or the lowest value if ``replicate`` is false.
    """

    most: Annotated[int, Field(ge=1, le=1000)] = 3
    replicate: bool = True

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        many, (height, width, _) = len(rows), space.shape
        far = np.minimum(self.most, [[[height - 1]], [[width - 1]]])  # farther, nothing of the image is left
        down, right = context.rng.integers(-far, far + 1, size=(2, many, 1))
        y, x = np.arange(height) - down, np.arange(width) - right  # (B, H), (B, W): where values come from
        row, column = y.clip(0, height - 1), x.clip(0, width - 1)
        data: Array = rows.data[np.arange(many)[:, None, None], row[:, :, None], column[:, None, :]]
        if not self.replicate:
            data[(row != y)[:, :, None] | (column != x)[:, None, :]] = space.low
        return data


@dataclass(frozen=True)
class Rotation(ImageOperator):
    """Rotate an image around its middle by up to ``most`` degrees, one way or the other.

    What comes in is the edge's values, or the lowest value if ``replicate`` is false.
    """

    most: Annotated[float, Field(gt=0, le=180)] = 15.0
    replicate: bool = True

    def _values(self, rows: Batch, space: BoxSpace, context: MutationContext) -> Array:
        mode = "nearest" if self.replicate else "grid-constant"
        angles = context.rng.uniform(-self.most, self.most, len(rows))
        turn = partial(_ndimage().rotate, axes=(2, 1), reshape=False, order=1, mode=mode, cval=space.low)
        return _each(rows.data, angles, turn)
