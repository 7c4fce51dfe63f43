"""DiffChaser (Xie et al., IJCAI 2019), the baseline of TriggerFinder: a genetic algorithm per seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.plugins.bounds import Count, Several, Share, Whole
from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace

BASE = "base/probabilities"


@dataclass(eq=False, repr=False)
class DiffChaser(MutationSearch):
    """Evolve a population per seed towards inputs of which the base is unsure.

    It never compares the two models. The first generation consists of mutants of the seed. Members are run
    once, so that the elite costs no further queries.

    Attributes:
        context: what the search is given.
        population: members per seed.
        elite: how many of the fittest stay for the next generation; all others are children of two parents.
        tournament: how many random members compete to become a parent.
        crossover: probability that a value of a child is the second parent's.
        rate: probability that a value of a child becomes any legal one.
        fitness: what to minimize, of the base's probabilities: ``uncertainty``, the largest less the ``k``-th
            largest, or ``target``, the largest less that of the seed's second class.
        k: for ``uncertainty``.
    """

    traits = SearchTraits(frozenset({BASE}), per_seed=True)
    kept = ("outcomes", "_mutator", "_second", "_ids", "_members", "_fitness", "_waiting")

    context: SearchContext
    population: Several = 1000
    elite: Whole = 1
    tournament: Count = 4
    crossover: Share = 0.5
    rate: Share = 0.01
    fitness: Literal["uncertainty", "target"] = "uncertainty"
    k: Several = 2

    def __post_init__(self) -> None:
        if not isinstance(self.context.space, BoxSpace):
            raise UsageError("diffchaser crosses images or other numbers; take directed for texts")
        if self.elite >= self.population:
            raise UsageError(f"elite must be less than the population of {self.population}, not {self.elite}")
        super().__init__(self.context)
        self._space, self.outcomes = self.context.space, SeedOutcomes(self.context)
        self._second = np.zeros(len(self.context.seeds), np.int64)  # the seeds' second class
        self._ids = np.zeros(0, np.int64)  # the n seeds under way
        self._members = np.zeros((0, self.population, *self._space.shape), np.float32)
        self._fitness = np.zeros((0, self.population))  # inf for members that were not run
        self._waiting = np.zeros(0, np.int64)  # members still to be run, counted through all populations
        self._asked = self._waiting

    def restore(self, state: State) -> None:
        """Continue from ``state``; raise ValueError unless every seed under way has a population."""
        super().restore(state)
        many, left = len(self._ids), self._waiting.max(initial=-1)
        if {len(self._members), len(self._fitness)} != {many} or left >= many * self.population:
            raise ValueError("seeds and their populations differ in number")

    def _propose(self, size: int) -> Batch:
        """Return members of as many populations as fit; a generation may take several batches."""
        self._drop_done()
        if not len(self._waiting) and not self._breed(max(1, size // self.population)):
            return self._context.seeds[:0]
        at = self._waiting // self.population  # the population of each member
        place = np.arange(len(at)) - np.searchsorted(at, at)  # its place among those that wait there
        asked = np.flatnonzero(place < self.outcomes.left[self._ids[at]])[:size]
        self._asked, self._waiting = self._waiting[asked], np.delete(self._waiting, asked)
        rows = self._context.corpus.parents(self._ids[at[asked]])
        return rows.changed(self._members.reshape(-1, *self._space.shape)[self._asked])

    def _drop_done(self) -> None:
        """Forget the waiting members of seeds that are done."""
        done = ~np.isin(self._ids, self.outcomes.open)
        self._waiting = self._waiting[~done[self._waiting // self.population]]

    def _breed(self, most: int) -> bool:
        """Make the next generation of up to ``most`` seeds, and return False if all seeds are done.

        New seeds take the place of those that are done.
        """
        seeds = self.outcomes.open
        stay = np.isin(self._ids, seeds)
        fresh = seeds[~np.isin(seeds, self._ids)][: max(0, most - int(stay.sum()))]
        first = self._context.seeds.data[fresh][:, None].repeat(self.population, axis=1)
        bred, fitness = self._next(self._ids[stay], self._members[stay], self._fitness[stay])
        self._members = np.concatenate([bred, self._mutated(fresh, first)])
        self._fitness = np.concatenate([fitness, np.full((len(fresh), self.population), np.inf)])
        self._ids = np.concatenate([self._ids[stay], fresh])
        known = np.arange(self.population) < np.where(np.isin(self._ids, fresh), 0, self.elite)[:, None]
        self._waiting = np.flatnonzero(~known)
        return len(self._ids) > 0

    def _next(self, ids: IntArray, members: FloatArray, fitness: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return elite and children of populations (n, m, *shape), with the fitness (n, m) that is known."""
        if not len(ids):
            return members, fitness
        many, size = fitness.shape
        every = np.arange(many)[:, None]
        elite = fitness.argsort(axis=1, kind="stable")[:, : self.elite]
        entrants = self._rng.integers(size, size=(2, many, size - self.elite, self.tournament))
        won = fitness[every[..., None], entrants].argmin(axis=3)
        one, other = members[every, np.take_along_axis(entrants, won[..., None], axis=3)[..., 0]]
        children = np.where(self._drawn(one.shape, self.crossover), other, one)
        known = np.full((many, size), np.inf)
        known[:, : self.elite] = np.take_along_axis(fitness, elite, axis=1)
        return np.concatenate([members[every, elite], self._mutated(ids, children)], axis=1), known

    def _drawn(self, shape: tuple[int, ...], share: float) -> BoolArray:
        """Return True with probability ``share``, independently at every place."""
        return self._rng.random(shape, np.float32) < share

    def _mutated(self, ids: IntArray, members: FloatArray) -> FloatArray:
        """Return rows (n, m, *shape) of these seeds with some values drawn again, within the bound."""
        space, changed = self._space, members.copy()
        places = self._drawn(members.shape, self.rate)
        changed[places] = self._values(int(places.sum()))
        rows = self._context.corpus.parents(ids.repeat(members.shape[1]))
        held = self._mutator.hold(rows.changed(space.settle(changed.reshape(-1, *space.shape))))
        return held.data.reshape(members.shape)

    def _values(self, count: int) -> FloatArray:
        """Return legal values (count,), all equally likely."""
        space = self._space
        if not space.step:
            return self._rng.uniform(space.low, space.high, size=count)
        values = int((space.high - space.low) / space.step + 1e-6) + 1
        return space.low + space.step * self._rng.integers(values, size=count)

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn how fit the members that were asked for last are."""
        self.outcomes.note(batch, margins)
        base = trace[BASE].astype(np.float64)
        ordered = base.argsort(axis=1, kind="stable")
        if batch.parent[0] < 0:
            self._second[batch.origin] = ordered[:, -2]
            return
        second = ordered[:, -min(self.k, base.shape[1])]
        if self.fitness == "target":
            second = self._second[batch.origin]
        fitness = base.max(axis=1) - base[np.arange(len(base)), second]
        self._fitness.reshape(-1)[self._asked] = np.nan_to_num(fitness, nan=np.inf)
