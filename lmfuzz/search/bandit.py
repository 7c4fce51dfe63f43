"""Choosing operators by what they yielded so far."""

import numpy as np

from lmfuzz.types import BoolArray, IntArray, Resumable, State

MEMORY = 5_000.0  # mutants per operator after which older ones count for less
EVEN = 0.25  # share of draws that ignore the yields: rare large steps pay late


class Bandit(Resumable):
    """Draw operators by Thompson sampling (Thompson 1933): a mutant either paid or did not.

    A quarter of the draws are uniform. An operator with steps that are large but seldom good (splice, tail)
    is what gets a search out of a valley, and yields alone would starve it.
    """

    kept = ("_paid", "_tried")

    def __init__(self, operators: int, rng: np.random.Generator) -> None:
        self._paid = np.ones(operators)
        self._tried = np.full(operators, 2.0)
        self._rng = rng

    def restore(self, state: State) -> None:
        """Continue from ``state``; raise ValueError if more paid than were tried."""
        super().restore(state)
        if not ((self._paid > 0) & (self._tried > self._paid) & np.isfinite(self._tried)).all():
            raise ValueError("more mutants paid than were tried")

    def draw(self, count: int) -> IntArray:
        """Return ``count`` operator ids."""
        rng = self._rng
        beliefs = rng.beta(self._paid, self._tried - self._paid, size=(count, len(self._paid)))
        even = rng.random(count) < EVEN
        return np.where(even, rng.integers(len(self._paid), size=count), beliefs.argmax(axis=1))

    def reward(self, operators: IntArray, paid: BoolArray) -> None:
        """Learn which mutants (B,) of these ``operators`` (B,) paid."""
        size = len(self._paid)
        self._tried += np.bincount(operators, minlength=size)
        self._paid += np.bincount(operators, weights=paid, minlength=size)
        fade = np.minimum(1.0, MEMORY / self._tried)
        self._tried = np.maximum(self._tried * fade, 2.0)
        self._paid = np.clip(self._paid * fade, 1e-3, self._tried - 1e-3)
