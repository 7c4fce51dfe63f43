"""Root finding on lines: where between two inputs do models change their labels?"""

from math import prod

import numpy as np

from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.types import BoolArray, FloatArray, IntArray, State

EDGE = 0.005  # share of a bracket that a point keeps from its ends, so that the bracket gets smaller
FINEST = 1e-6  # of a line's length: nearer points are the same row in float32
BENT = 4  # how many times what parts the models a margin is, where it says that the line is bent
BRACKETS = ("span", "ahead", "moved", "tries")


def leads(logits: FloatArray, labels: IntArray) -> FloatArray:
    """How far M models put ``labels`` (B,) before each class: of logits (B, M, C), inf before themselves.

    A logit that is NaN says nothing, and counts as 0.
    """
    logits = np.nan_to_num(logits.astype(np.float64), posinf=1e30, neginf=-1e30)
    rows = np.arange(len(labels))
    ahead: FloatArray = logits[rows, :, labels][:, :, None] - logits
    ahead[rows, :, labels] = np.inf
    return ahead


def least(ahead: FloatArray) -> FloatArray:
    """The margins (..., M) of leads (..., M, C): the least is above 0 where a model gives that label."""
    margin: FloatArray = ahead.min(axis=-1)
    return margin


def crossings(near: FloatArray, far: FloatArray) -> FloatArray:
    """Where each model changes its label, from 0 to 1, between two points with leads (..., M, C).

    Each lead is taken to be linear, and the first to fall below 0 counts. Of their minimum, the margin,
    that is not true: it has a kink wherever the runner-up changes.
    """
    near = np.maximum(near, 0)
    with np.errstate(invalid="ignore"):  # inf - inf, of the label itself
        where = np.where(far < 0, near / np.where(far < 0, near - far, 1), 1)
    first: FloatArray = where.min(axis=-1)
    return first


class Lines:
    """For each of S seeds a line to a far end, and a bracket on it in which two models change their labels.

    Points are told by t, 0 at the seed and 1 at the far end. A bracket is two of them, the margins at the
    first add up to more than 0 and at the second to less.
    """

    def __init__(self, space: BoxSpace, seeds: FloatArray, classes: int) -> None:
        many = len(seeds)
        self._space, self._seeds = space, seeds
        self.far = np.zeros_like(seeds)
        self.span = np.zeros((many, 2))
        self.ahead = np.zeros((many, 2, 2, classes))  # leads of both models at both ends of the bracket
        self.moved = np.zeros(many, np.int64)  # which end moved last, -1 where none has
        self.tries = np.zeros(many, np.int64)  # points asked for on this line
        self._at = np.zeros(many)  # the last of them
        # On a grid every value is rounded up at a place of its own on the line, so that they change one
        # after the other: 4.2 queries on average with bytes where all were rounded alike, 3.7 with this.
        places = np.arange(prod(space.shape)) * 0.6180339887 % 1
        self._stagger = (0.01 + 0.98 * places.reshape(space.shape)).astype(np.float32)

    def begin(self, ids: IntArray, far: FloatArray, at_seed: FloatArray, at_far: FloatArray) -> None:
        """Lines of these seeds to far ends (n, *shape), with the leads (n, 2, C) at both ends."""
        self.far[ids], self.span[ids] = far, (0, 1)
        self.ahead[ids, 0], self.ahead[ids, 1] = at_seed, at_far
        self.tries[ids], self.moved[ids] = 0, -1

    def aim(self, ids: IntArray) -> FloatArray:
        """The rows (n, *shape) to try next: amid the points where the models seem to change their labels."""
        start, stop = self.span[ids].T
        share = crossings(self.ahead[ids, 0], self.ahead[ids, 1]).mean(axis=1)
        self._at[ids] = start + (stop - start) * np.clip(share, EDGE, 1 - EDGE)
        self.tries[ids] += 1
        space, near = self._space, self._seeds[ids]
        rows = near + self._at[ids].reshape(-1, *[1] * len(space.shape)) * (self.far[ids] - near)
        if space.step:
            rows = space.low + space.step * np.floor((rows - space.low) / space.step + self._stagger)
        return space.settle(rows.astype(np.float32))

    def tell(self, ids: IntArray, ahead: FloatArray) -> None:
        """Narrow the brackets by the leads (n, 2, C) at the points asked for last.

        Where a line is bent, the same end would move again and again; as in the method of Anderson & Björck
        (1973) what is known of the other end then counts for less.
        """
        margins = least(ahead)
        f = margins.sum(axis=1)
        side = (f < 0).astype(np.int64)
        again = np.flatnonzero((self.moved[ids] == side) & (np.abs(f) > BENT * np.ptp(margins, axis=1)))
        shrink = 1 - f[again] / least(self.ahead[ids[again], side[again]]).sum(axis=1)
        self.ahead[ids[again], 1 - side[again]] *= np.where(shrink > 0, shrink, 0.5)[:, None, None]
        self.ahead[ids, side], self.span[ids, side], self.moved[ids] = ahead, self._at[ids], side

    def spent(self, ids: IntArray) -> BoolArray:
        """Which brackets (n,) hold no row but their ends', or nothing but ties of one of the models."""
        axes = tuple(range(1, self.far.ndim))
        change = np.abs(self.far[ids] - self._seeds[ids]).sum(axis=axes)
        finest = self._space.step / np.maximum(change, 1e-9) if self._space.step else FINEST
        tied = (least(self.ahead[ids]) == 0).all(axis=1).any(axis=1)
        spent: BoolArray = tied | (np.diff(self.span[ids])[:, 0] <= finest)
        return spent

    def state(self, ids: IntArray) -> State:
        """All of it, of the far ends those of ``ids``."""
        return {"ids": ids, "far": self.far[ids], **{name: getattr(self, name) for name in BRACKETS}}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.far[state["ids"]] = state["far"]
        for name in BRACKETS:
            setattr(self, name, np.array(state[name]))
