"""Any search, for each seed by itself: what it finds for one seed tells nothing of another."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmfuzz.inputs.corpus import Corpus
from lmfuzz.protocols import Search, SearchContext, SearchTraits
from lmfuzz.search.adapt import traits_of
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace, join, take


class Share:
    """The part of a corpus that descends from one seed; its ids count from 0, the seed."""

    def __init__(self, whole: Corpus, ids: Sequence[int]) -> None:
        self.whole, self.ids = whole, list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, ids: IntArray | slice) -> Batch:
        """As Corpus."""
        return self.whole[np.array(self.ids)[ids]]

    def parents(self, ids: IntArray) -> Batch:
        """As Corpus."""
        return replace(self[ids], parent=np.asarray(ids, np.int64))

    def add(self, batch: Batch) -> IntArray:
        """As Corpus."""
        start = len(self.ids)
        self.ids += self.whole.add(self.outside(batch)).tolist()
        return np.arange(start, len(self.ids))

    def outside(self, batch: Batch) -> Batch:
        """The rows with parents as the whole corpus numbers them."""
        ids = np.array(self.ids)
        return replace(batch, parent=np.where(batch.parent < 0, batch.parent, ids[batch.parent]))


class PerSeed:
    """One search per seed, all of them advanced in the same batches, until it hits or its queries are spent.

    make: makes a search from a context whose only seed is one of the campaign's. Each is asked for as many
    rows at once as its traits say: a walk takes one step after the other.
    """

    traits = SearchTraits(per_seed=True)

    def __init__(self, context: SearchContext, make: Callable[[SearchContext], Search]) -> None:
        self._context, self._make = context, make
        self.outcomes = SeedOutcomes(context)
        self.focus: Sequence[int] = ()
        self._parts: dict[int, tuple[Search, Share]] = {}  # by seeds: a search, what it sees of the corpus
        self._turn = 0  # the seed whose turn it is
        self._asked: list[tuple[int, Batch]] = []  # what each search was asked, with its own ids
        if not len(context.corpus):
            context.corpus.add(context.seeds)

    def ask(self, size: int) -> Batch:
        """Rows of as many seeds as there is room for, in turns; none when every seed is done."""
        self._asked, room, focus = [], size, set[int]()
        seeds, left = self.outcomes.open, self.outcomes.left
        for seed in np.roll(seeds, -int(np.searchsorted(seeds, self._turn))).tolist():
            if seed not in self._parts:
                self._parts[seed] = self._part(seed)
            search, _ = self._parts[seed]
            most = min(traits_of(search).each, size, int(left[seed]))
            if most > room:
                break
            rows = search.ask(most)
            focus |= set(search.focus)
            self._asked.append((seed, rows))
            room, self._turn = room - len(rows), seed + 1
        if self._turn > seeds.max(initial=-1):
            self._turn = 0
        self.focus = sorted(focus)
        if not self._asked:
            return self._context.seeds[:0]
        return join([self._parts[seed][1].outside(rows) for seed, rows in self._asked])

    def _part(self, seed: int, ids: Sequence[int] = ()) -> tuple[Search, Share]:
        context = self._context
        share: Any = Share(context.corpus, ids or [seed])
        pool = context.seeds if context.pool is None else context.pool
        alone = replace(context, seeds=context.seeds[seed : seed + 1], corpus=share, pool=pool)
        return self._make(alone), share

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Let each seed's search learn from its own rows."""
        self.outcomes.note(batch, margins)
        start = 0
        for seed, rows in self._asked:
            own = slice(start, start + len(rows))
            self._parts[seed][0].tell(rows, take(trace, own), margins[own], novel[own])
            start += len(rows)
        for seed in {seed for seed, _ in self._asked} - set(self.outcomes.open.tolist()):
            del self._parts[seed]  # it is done

    def state(self) -> State:
        """Every search under way, and what became of the seeds."""
        parts = [[seed, share.ids, search.state()] for seed, (search, share) in self._parts.items()]
        return {"trials": self.outcomes.state(), "turn": self._turn, "parts": parts}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.outcomes.restore(state["trials"])
        self._turn = state["turn"]
        for seed, ids, inner in state["parts"]:
            self._parts[seed] = self._part(seed, ids)
            self._parts[seed][0].restore(inner)
