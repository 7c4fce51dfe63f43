"""Which operators pay? A bandit over their yields."""

import numpy as np

from lmfuzz.types import BoolArray, IntArray, State

MEMORY = 5_000.0  # mutants per operator after which older ones count for less
EVEN = 0.25  # share of draws that ignore the yields: rare large steps pay late


class Bandit:
    """Thompson sampling (Thompson 1933) of operators: a mutant either paid or did not.

    A quarter of the draws is uniform: an operator whose steps are seldom good, but far (splice, tail), is
    what gets a search out of a valley, and yields alone would starve it.
    """

    def __init__(self, operators: int, rng: np.random.Generator) -> None:
        self._paid = np.ones(operators)
        self._tried = np.full(operators, 2.0)
        self._rng = rng

    def draw(self, count: int) -> IntArray:
        """``count`` operator ids."""
        rng = self._rng
        beliefs = rng.beta(self._paid, self._tried - self._paid, size=(count, len(self._paid)))
        even = rng.random(count) < EVEN
        return np.where(even, rng.integers(len(self._paid), size=count), beliefs.argmax(axis=1))

    def reward(self, operators: IntArray, paid: BoolArray) -> None:
        """The mutants (B,) that these operators made, and which of them paid."""
        size = len(self._paid)
        self._tried += np.bincount(operators, minlength=size)
        self._paid += np.bincount(operators, weights=paid, minlength=size)
        fade = np.minimum(1.0, MEMORY / self._tried)
        self._tried = np.maximum(self._tried * fade, 2.0)
        self._paid = np.clip(self._paid * fade, 1e-3, self._tried - 1e-3)

    def state(self) -> State:
        """Counts, for resume."""
        return {"paid": self._paid, "tried": self._tried}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._paid, self._tried = np.array(state["paid"]), np.array(state["tried"])
