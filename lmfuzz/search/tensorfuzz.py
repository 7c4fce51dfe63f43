"""TensorFuzz (Odena & Goodfellow 2018): coverage-guided search."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.types import Batch, BoolArray, FloatArray, State, Trace

RECENT = 5  # the published code's `recent` sampler: one of the last five elements, or a random one
# Section 4.4: add, delete or substitute a random character; section 4.1: noise on every pixel.
PAPER = ("insert", "delete", "substitute", "noise")


class TensorFuzz:
    """Mutates rows of the corpus, which grows by every row whose state is new; blind to margins.

    Each turn draws one parent and makes the whole batch from it (section 3). sampler: ``recent`` draws
    one of {the last five rows, one random row}, ``uniform`` any row. paper: only the paper's operators,
    those that insert, delete or substitute one character, where the campaign has them.
    """

    focus: Sequence[int] = ()
    traits = SearchTraits(each=100)  # mutants of one parent: the batch of the published code

    def __init__(
        self, context: SearchContext, sampler: Literal["recent", "uniform"] = "recent", paper: bool = True
    ) -> None:
        own = {name: context.operators[name] for name in PAPER if name in context.operators}
        self._ids = np.array([list(context.operators).index(name) for name in own], np.int32)
        if not paper or not own:
            own, self._ids = dict(context.operators), np.arange(len(context.operators), dtype=np.int32)
        self._mutator = Mutator(replace(context, operators=own))
        self._context, self._sampler = context, sampler

    def ask(self, size: int) -> Batch:
        """Seeds first, then mutants of one parent."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        mutants = self._mutator.mutate(np.full(size, self._parent()))
        return replace(mutants, operator=self._ids[mutants.operator])

    def _parent(self) -> int:
        rng, size = self._context.rng, len(self._context.corpus)
        if self._sampler == "uniform":
            return int(rng.integers(size))
        last = range(max(0, size - RECENT), size)
        return int(rng.choice([*last, rng.integers(size)]))

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Keep the rows whose state was new; seeds are in the corpus already."""
        new = novel & (batch.parent >= 0)
        if new.any():
            self._context.corpus.add(batch[new])

    def state(self) -> State:
        """How far the seeds were asked for; the corpus is kept by the campaign."""
        return self._mutator.state()

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._mutator.restore(state)
