"""Root finding on lines: where between two inputs do models change their labels?"""

from math import prod

import numpy as np

from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.types import BoolArray, FloatArray, IntArray, Resumable, per_row

EDGE = 0.005  # share of a bracket that a point keeps from its ends, so that the bracket gets smaller
FINEST = 1e-6  # of a line's length: nearer points are the same row in float32
BENT = 4  # the line is bent if a margin is this many times the models' difference there


def leads(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Return by how much M models prefer ``labels`` (B,) to each class: float64 (B, M, C).

    It is inf for the label itself. Of ``logits`` (B, M, C), a NaN counts as 0.
    """
    logits = np.nan_to_num(logits.astype(np.float64), posinf=1e30, neginf=-1e30)
    rows = np.arange(len(labels))
    ahead = np.asarray(logits[rows, :, labels][:, :, None] - logits)
    ahead[rows, :, labels] = np.inf
    return ahead


def least(ahead: FloatArray) -> FloatArray:
    """Return the margins (..., M) of leads (..., M, C): above 0 if a model gives that label."""
    return np.asarray(ahead.min(axis=-1))


def crossings(near: FloatArray, far: FloatArray) -> FloatArray:
    """Return where each model changes its label, from 0 to 1, between two points with leads (..., M, C).

    Each lead is taken to be linear, and the first to fall below 0 counts. Their minimum, the margin, is not
    linear: it has a kink wherever the runner-up changes.
    """
    near = np.maximum(near, 0)
    with np.errstate(invalid="ignore"):  # inf - inf, for the label itself
        where = np.where(far < 0, near / np.where(far < 0, near - far, 1), 1)
    return np.asarray(where.min(axis=-1))


class Lines(Resumable):
    """Hold for each of S seeds a line to a far end, and a bracket in which two models change their labels.

    A point on a line is t, 0 at the seed and 1 at the far end. A bracket consists of two points: the margins
    add up to more than 0 at the first, and to less at the second.

    Attributes:
        far: float32 (S, *shape), the far ends.
        span: float64 (S, 2), the bracket.
        ahead: float64 (S, 2, 2, C), leads of both models at both ends of the bracket.
        moved: int64 (S,), the end that moved last, -1 if none has.
        tries: int64 (S,), points asked for on this line.
    """

    kept = ("span", "ahead", "moved", "tries")

    def __init__(self, space: BoxSpace, seeds: FloatArray, classes: int) -> None:
        many = len(seeds)
        self._space, self._seeds = space, seeds
        self.far, self.span = np.zeros_like(seeds), np.zeros((many, 2))
        self.ahead = np.zeros((many, 2, 2, classes))
        self.moved, self.tries = np.zeros(many, np.int64), np.zeros(many, np.int64)
        self._at = np.zeros(many)  # the point asked for last
        # On a grid every value is rounded up at a place of its own on the line, so that they change one
        # after the other: 4.2 queries on average with bytes if all are rounded alike, 3.7 with this.
        places = np.arange(prod(space.shape)) * 0.6180339887 % 1
        self._stagger = (0.01 + 0.98 * places.reshape(space.shape)).astype(np.float32)

    def begin(self, ids: IntArray, far: FloatArray, at_seed: FloatArray, at_far: FloatArray) -> None:
        """Begin lines from these seeds to far ends (n, *shape), given the leads (n, 2, C) at both ends."""
        self.far[ids], self.span[ids] = far, (0, 1)
        self.ahead[ids, 0], self.ahead[ids, 1] = at_seed, at_far
        self.tries[ids], self.moved[ids] = 0, -1

    def aim(self, ids: IntArray) -> FloatArray:
        """Return the rows (n, *shape) to try next: midway between the models' estimated label changes."""
        start, stop = self.span[ids].T
        share = crossings(self.ahead[ids, 0], self.ahead[ids, 1]).mean(axis=1)
        self._at[ids] = start + (stop - start) * np.clip(share, EDGE, 1 - EDGE)
        self.tries[ids] += 1
        space, near = self._space, self._seeds[ids]
        rows = near + per_row(self._at[ids], near.ndim) * (self.far[ids] - near)
        if space.step:
            rows = space.low + space.step * np.floor((rows - space.low) / space.step + self._stagger)
        return space.settle(rows.astype(np.float32))

    def tell(self, ids: IntArray, ahead: FloatArray) -> None:
        """Narrow the brackets by the leads (n, 2, C) at the points asked for last.

        On a bent line the same end would move again and again. What is known about the other end then counts
        for less, as in the method of Anderson & Björck (1973).
        """
        margins = least(ahead)
        f = margins.sum(axis=1)
        side = (f < 0).astype(np.int64)
        again = np.flatnonzero((self.moved[ids] == side) & (np.abs(f) > BENT * np.ptp(margins, axis=1)))
        shrink = 1 - f[again] / least(self.ahead[ids[again], side[again]]).sum(axis=1)
        self.ahead[ids[again], 1 - side[again]] *= np.where(shrink > 0, shrink, 0.5)[:, None, None]
        self.ahead[ids, side], self.span[ids, side], self.moved[ids] = ahead, self._at[ids], side

    def spent(self, ids: IntArray) -> BoolArray:
        """Return which brackets (n,) hold no row between their ends, or nothing but ties of one model."""
        axes = tuple(range(1, self.far.ndim))
        change = np.abs(self.far[ids] - self._seeds[ids]).sum(axis=axes)
        finest = self._space.step / np.maximum(change, 1e-9) if self._space.step else FINEST
        tied = (least(self.ahead[ids]) == 0).all(axis=1).any(axis=1)
        return np.asarray(tied | (np.diff(self.span[ids])[:, 0] <= finest))
