"""The first baseline: mutate seeds, and only seeds."""

from collections.abc import Sequence

from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.types import Batch, BoolArray, FloatArray, State, Trace


class Random:
    """Mutates seeds drawn uniformly; learns nothing. The baseline of every claim."""

    focus: Sequence[int] = ()
    traits = SearchTraits(each=100)

    def __init__(self, context: SearchContext) -> None:
        self._mutator = Mutator(context)
        self._rng = context.rng

    def ask(self, size: int) -> Batch:
        """Seeds first, then mutants of seeds."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        return self._mutator.mutate(self._rng.integers(self._mutator.seeded, size=size))

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Nothing is learnt."""

    def state(self) -> State:
        """How far the seeds were asked for."""
        return self._mutator.state()

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._mutator.restore(state)
