"""TensorFuzz (Odena & Goodfellow 2018): coverage-guided search."""

from typing import Literal

import numpy as np

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.types import Batch, BoolArray, FloatArray, Trace

RECENT = 5  # the published code's `recent` sampler: one of the last five elements, or a random one
# Section 4.4: add, delete or substitute a random character; section 4.1: noise on every pixel.
PAPER = ("insert", "delete", "substitute", "noise")


class TensorFuzz(MutationSearch):
    """Mutate rows of a corpus that grows by every row with a new state; margins play no role.

    Each batch is made from one parent (section 3).

    Args:
        context: what the search is given.
        sampler: ``recent`` draws one of {the last five rows, one random row}, ``uniform`` any row.
        paper: whether to use only the paper's operators, which insert, delete or substitute one character or
            add noise, if the campaign has them.
    """

    # Mutants of one parent: the published code's batch. Rows that hit do not join the corpus (section 3).
    traits = SearchTraits(each=100, covers_hits=False)

    def __init__(
        self, context: SearchContext, sampler: Literal["recent", "uniform"] = "recent", paper: bool = True
    ) -> None:
        super().__init__(context, PAPER if paper else ())
        self._sampler = sampler

    def _propose(self, size: int) -> Batch:
        return self._mutator.mutate(np.full(size, self._parent()))

    def _parent(self) -> int:
        rng, size = self._rng, len(self._context.corpus)
        if self._sampler == "uniform":
            return int(rng.integers(size))
        last = range(max(0, size - RECENT), size)
        return int(rng.choice([*last, rng.integers(size)]))

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Keep the rows with a new state; seeds are in the corpus already."""
        new = novel & (batch.parent >= 0)
        if new.any():
            self._context.corpus.add(batch[new])
