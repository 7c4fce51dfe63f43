"""The first baseline: mutate seeds, and only seeds."""

from lmfuzz.protocols import SearchTraits
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.types import Batch


class Random(MutationSearch):
    """Mutate seeds drawn uniformly, and learn nothing: the baseline of every claim."""

    traits = SearchTraits(each=100)

    def _propose(self, size: int) -> Batch:
        return self._mutator.mutate(self._rng.integers(self._mutator.seeded, size=size))
