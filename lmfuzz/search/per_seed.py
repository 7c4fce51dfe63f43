"""Any search, run for each seed by itself: what it learns about one seed does not help another."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from lmfuzz.inputs.corpus import Corpus
from lmfuzz.protocols import Search, SearchContext, SearchTraits
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace, alike, join, take


class Descendants:
    """Show the rows of a corpus that descend from one seed; their ids count from 0, the seed."""

    def __init__(self, whole: Corpus, ids: Sequence[int]) -> None:
        self.whole, self.ids = whole, list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, ids: IntArray | slice) -> Batch:
        """Return rows as Corpus does."""
        return self.whole[np.array(self.ids)[ids]]

    def parents(self, ids: IntArray) -> Batch:
        """Return rows to be mutated as Corpus does."""
        return replace(self[ids], parent=np.asarray(ids, np.int64))

    def add(self, batch: Batch) -> IntArray:
        """Keep rows as Corpus does."""
        start = len(self.ids)
        self.ids += self.whole.add(self.outside(batch)).tolist()
        return np.arange(start, len(self.ids))

    def outside(self, batch: Batch) -> Batch:
        """Return the rows with the ids of their parents in the whole corpus."""
        ids = np.array(self.ids)
        return replace(batch, parent=np.where(batch.parent < 0, batch.parent, ids[batch.parent]))


class PerSeed:
    """Run one search per seed, all in the same batches, until each hits or its queries are spent.

    Args:
        context: what the searches are given.
        make: makes a search from a context with a single seed. Each is asked for as many rows at once as its
            traits say: a walk takes one step after the other.
    """

    traits = SearchTraits(per_seed=True)

    def __init__(self, context: SearchContext, make: Callable[[SearchContext], Search]) -> None:
        self._context, self._make = context, make
        self.outcomes = SeedOutcomes(context)
        self.focus: Sequence[int] = ()
        self._parts: dict[int, tuple[Search, Descendants]] = {}  # seed -> its search and part of the corpus
        self._turn = 0  # the seed that is next
        self._asked: list[tuple[int, Batch]] = []  # what each search was asked, with its own ids
        if not len(context.corpus):
            context.corpus.add(context.seeds)

    def ask(self, size: int) -> Batch:
        """Return rows of as many seeds as fit, in turns; none when every seed is done."""
        self._asked, free, focus = [], size, set[int]()
        seeds, left = self.outcomes.open, self.outcomes.left
        for seed in np.roll(seeds, -int(np.searchsorted(seeds, self._turn))).tolist():
            if seed not in self._parts:
                self._parts[seed] = self._part(seed)
            search, _ = self._parts[seed]
            most = min(traits_of(search).each, size, int(left[seed]))
            if most > free:
                break
            rows = search.ask(most)
            focus |= set(search.focus)
            self._asked.append((seed, rows))
            free, self._turn = free - len(rows), seed + 1
        if self._turn > seeds.max(initial=-1):
            self._turn = 0
        self.focus = sorted(focus)
        if not self._asked:
            return self._context.seeds[:0]
        return join([self._parts[seed][1].outside(rows) for seed, rows in self._asked])

    def _part(self, seed: int, ids: Sequence[int] = ()) -> tuple[Search, Descendants]:
        context = self._context
        own: Any = Descendants(context.corpus, ids or [seed])
        pool = context.seeds if context.pool is None else context.pool
        return self._make(replace(context, seeds=context.seeds[[seed]], corpus=own, pool=pool)), own

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
        """Return the states of the searches under way, and what became of the seeds."""
        parts = [[seed, own.ids, search.state()] for seed, (search, own) in self._parts.items()]
        return {"trials": self.outcomes.state(), "turn": self._turn, "parts": parts}

    def restore(self, state: State) -> None:
        """Continue from ``state``."""
        self.outcomes.restore(state["trials"])
        self._turn = alike(self._turn, state["turn"])
        for seed, ids, inner in state["parts"]:
            if not alike([], [seed, *ids]) or max(ids) >= len(self._context.corpus):
                raise ValueError("a search has rows that are not in the corpus")
            self._parts[seed] = self._part(seed, ids)
            self._parts[seed][0].restore(inner)


def traits_of(search: Any) -> SearchTraits:
    """Return the traits of a search or a class of searches; in 0.3.0 each was an attribute of its own."""
    if isinstance(traits := getattr(search, "traits", None), SearchTraits):
        return traits
    names = [field.name for field in fields(SearchTraits) if hasattr(search, field.name)]
    return SearchTraits(**{name: getattr(search, name) for name in names})
