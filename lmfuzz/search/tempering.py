"""Tempered chains: rows climb one margin side by side, the cold ones greedily, the hot ones freely."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, Resumable, State

COLDEST, HOTTEST = 0.03, 1.5  # temperatures in nats of margin, spaced geometrically
MEMORY = 50  # batches over which the scale is averaged
USUAL = 0.2  # nats: mutants of prompts change the gap of a phrase by 0.2 to 1 in the median


class Chains(Resumable):
    """Hold M rows, each at its own temperature, coldest first: parallel tempering on one margin.

    Every chain gets some mutants per turn; the best of them takes its parent's place by Metropolis' rule.
    Then neighbouring temperatures swap rows by the replica-exchange rule (Swendsen & Wang 1986): a good row
    that a hot chain finds moves to a cold one, which refines it.

    Attributes:
        rows: the M rows.
        margins: float64 (M,), their margins.
        scale: factor of the temperatures, at most 1. Margins need not be nats, so that it follows by how
            much mutants change them.
    """

    kept = ("rows", "margins", "scale", "_averaged")
    stored_as: ClassVar[Mapping[str, str]] = {"_averaged": "felt"}

    def __init__(self, rows: Batch, margins: FloatArray, scale: float = 1.0) -> None:
        self.rows, self.margins, self.scale = rows, margins.astype(np.float64), scale
        self._averaged = 0  # batches that the scale is an average of

    def restore(self, state: State) -> None:
        """Continue from ``state``; raise ValueError unless every row has a margin."""
        super().restore(state)
        if len(self.rows) != len(self.margins) or not 0 < self.scale <= 1:
            raise ValueError("rows of chains and their margins do not go together")

    @property
    def temperatures(self) -> FloatArray:
        """Return the temperature of each chain (M,), coldest first."""
        steps = np.linspace(0, 1, len(self)) if len(self) > 1 else np.zeros(1)
        return self.scale * COLDEST * (HOTTEST / COLDEST) ** steps

    def rescale(self, changes: FloatArray) -> None:
        """Adapt the scale to ``changes`` (B,), by how much mutants changed the margins of their parents."""
        if not len(changes):
            return
        self._averaged = min(self._averaged + 1, MEMORY)
        usual = float(np.median(np.abs(changes))) / USUAL
        self.scale = min(1.0, max(1e-4, self.scale + (usual - self.scale) / self._averaged))

    def __len__(self) -> int:
        return len(self.margins)

    def parents(self, size: int) -> IntArray:
        """Return the chain that each of ``size`` mutants is made from: all in turn, repeatedly."""
        return np.arange(size) % len(self)

    def accept(self, mutants: Batch, margins: FloatArray, rng: np.random.Generator) -> BoolArray:
        """Let each chain's best mutant compete with its row, and return which mutants (B,) took its place.

        Args:
            mutants: made from ``parents(B)``; ``parent`` is what the row will be said to descend from.
            margins: float64 (B,).
            rng: source of the acceptance draws.
        """
        size, chains = len(margins), len(self)
        tries = np.full(-(-size // chains) * chains, -np.inf)
        tries[:size] = margins
        best = tries.reshape(-1, chains).argmax(axis=0) * chains + np.arange(chains)
        gain = tries[best] - self.margins
        taken = np.log(rng.random(chains) + 1e-300) * self.temperatures < gain
        at, won = np.flatnonzero(taken), best[taken]
        self.rows.data[at, : mutants.data.shape[1]] = mutants.data[won]
        self.rows.lengths[at] = mutants.lengths[won]
        self.rows.parent[at] = mutants.parent[won]
        self.margins[at] = margins[won]
        return np.isin(np.arange(size), won)

    def exchange(self, rng: np.random.Generator) -> None:
        """Offer every pair of neighbouring temperatures a swap, from the hot end to the cold one."""
        order = list(range(len(self)))
        margins, cold = self.margins.tolist(), (1 / self.temperatures).tolist()
        dice = rng.random(len(order)).tolist()
        for i in range(len(order) - 2, -1, -1):
            gain = (cold[i] - cold[i + 1]) * (margins[i + 1] - margins[i])
            if gain >= 0 or dice[i] < math.exp(gain):
                order[i], order[i + 1] = order[i + 1], order[i]
                margins[i], margins[i + 1] = margins[i + 1], margins[i]
        self.rows, self.margins = self.rows[np.array(order)], self.margins[order]

    def renew(self, rows: Batch, margins: FloatArray) -> None:
        """Replace the hottest chains by ``rows``; what the cold ones have reached stays."""
        hottest = slice(len(self) - len(rows), None)
        self.rows.data[hottest, : rows.data.shape[1]] = rows.data
        for name in ("lengths", "parent", "operator", "origin"):
            getattr(self.rows, name)[hottest] = getattr(rows, name)
        self.margins[hottest] = margins
