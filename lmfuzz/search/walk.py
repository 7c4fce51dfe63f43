"""The second baseline: accept every mutant."""

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.types import Batch


class Walk(MutationSearch):
    """Walk randomly from seeds: each mutant is the next parent, whatever it led to.

    There are as many walks side by side as a batch has rows. The steps of a walk are not kept, so that the
    parent of a finding is the seed at which its walk began.
    """

    traits = SearchTraits(each=1)  # per seed, a walk is one step after the other
    kept = ("_mutator", "_walks")

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self._walks = context.seeds[:0]  # the last row of each

    def _propose(self, size: int) -> Batch:
        if len(self._walks) != size:
            self._walks = self._context.corpus.parents(self._rng.integers(self._mutator.seeded, size=size))
        self._walks = self._mutator.change(self._walks, self._mutator.borrow(size))
        return self._walks
