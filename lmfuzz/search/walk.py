"""The second baseline: accept every mutant."""

from collections.abc import Sequence

import numpy as np

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.types import Batch, BoolArray, FloatArray, State, Trace


class Walk:
    """Random walks from seeds: each mutant is the next parent, whatever it led to.

    As many walks go on side by side as a batch has rows. A walk's steps are not kept, so a finding
    names the seed its walk began at as its parent.
    """

    focus: Sequence[int] = ()
    traits = SearchTraits(each=1)  # per seed, a walk is one step after the other

    def __init__(self, context: SearchContext) -> None:
        self._mutator = Mutator(context)
        self._context = context
        self._rows: Batch | None = None  # where every walk stands

    def ask(self, size: int) -> Batch:
        """Seeds first, then the next step of every walk."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        rng, corpus = self._context.rng, self._context.corpus
        if self._rows is None or len(self._rows) != size:
            self._rows = corpus.parents(rng.integers(self._mutator.seeded, size=size))
        self._rows = self._mutator.change(self._rows, self._mutator.lend(size))
        return self._rows

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Nothing is learnt."""

    def state(self) -> State:
        """Where every walk stands."""
        rows = self._rows
        walks = {} if rows is None else {name: getattr(rows, name) for name in Batch.__slots__}
        return {"breeder": self._mutator.state(), "walks": walks}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._mutator.restore(state["breeder"])
        self._rows = (
            Batch(**{k: np.asarray(v) for k, v in state["walks"].items()}) if state["walks"] else None
        )
