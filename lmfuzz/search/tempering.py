"""Tempered chains: rows climb one margin side by side, the cold ones greedily, the hot ones freely."""

import math

import numpy as np

from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State

COLDEST, HOTTEST = 0.03, 1.5  # temperatures in nats of margin, spaced geometrically
MEMORY = 50  # batches over which the scale is averaged
USUAL = 0.2  # nats: mutants of prompts change the gap of a phrase by 0.2 to 1 in the median


class Chains:
    """M rows, each at its own temperature, coldest first: parallel tempering on one margin.

    Every chain has some mutants per turn; the best of them takes its parent's place by Metropolis' rule.
    Then neighbouring temperatures swap rows by the replica-exchange rule (Swendsen & Wang 1986): what a
    hot chain stumbles on ends up in a cold one, which refines it.

    scale: what the temperatures are multiplied with, at most 1. Margins need not be nats: the scale follows
    by how much mutants change them.
    """

    def __init__(self, rows: Batch, margins: FloatArray, scale: float = 1.0, felt: int = 0) -> None:
        self.rows, self.margins = rows, margins.astype(np.float64)
        self.scale, self._felt = scale, felt

    @property
    def temperatures(self) -> FloatArray:
        """One per chain (M,), coldest first."""
        steps = np.linspace(0, 1, len(self)) if len(self) > 1 else np.zeros(1)
        return self.scale * COLDEST * (HOTTEST / COLDEST) ** steps

    def feel(self, changes: FloatArray) -> None:
        """Let the scale follow by how much mutants changed the margins of their parents (B,)."""
        if not len(changes):
            return
        self._felt = min(self._felt + 1, MEMORY)
        usual = float(np.median(np.abs(changes))) / USUAL
        self.scale = min(1.0, max(1e-4, self.scale + (usual - self.scale) / self._felt))

    def __len__(self) -> int:
        return len(self.margins)

    def parents(self, size: int) -> IntArray:
        """Which chain each of ``size`` mutants is made of: all in turn, as often as it takes."""
        return np.arange(size) % len(self)

    def accept(self, mutants: Batch, margins: FloatArray, rng: np.random.Generator) -> BoolArray:
        """Let each chain's best mutant challenge its row; which mutants (B,) took its place.

        mutants: bred from ``parents(B)``; the ``parent`` of each is what its row is to descend from.
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
        accepted = np.zeros(size, bool)
        accepted[won] = True
        return accepted

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

    def state(self) -> State:
        """The rows, their margins and the scale of the temperatures."""
        rows = {name: getattr(self.rows, name) for name in Batch.__slots__}
        return {"rows": rows, "margins": self.margins, "scale": self.scale, "felt": self._felt}

    @classmethod
    def from_state(cls, state: State) -> "Chains":
        """The chains as they were."""
        rows = Batch(**{name: np.array(array) for name, array in state["rows"].items()})
        return cls(rows, np.array(state["margins"]), state["scale"], state["felt"])
