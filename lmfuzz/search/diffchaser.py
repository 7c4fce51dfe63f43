"""DiffChaser (Xie et al., IJCAI 2019), the baseline of TriggerFinder: a genetic algorithm per seed."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.plugins.bounds import Share
from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.seed_outcomes import SeedOutcomes
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace

BASE = "base/probabilities"
STATE = ("second", "ids", "members", "fitness", "waiting")


class DiffChaser:
    """A population per seed, drawn towards what the base is unsure of; it never compares the two models.

    The first generation are ``population`` mutants of the seed. In the next the ``elite`` fittest stay, and
    every other member is a child of two that won a ``tournament`` of so many members: each value is the
    second parent's with probability ``crossover``, and with probability ``rate`` any legal one. Members are
    run once, so that the elite costs no further queries.

    fitness, the smaller the better, of the base's probabilities P: ``uncertainty``, the largest less the
    ``k``-th largest, or ``target``, the largest less that of the seed's second class.
    """

    focus: Sequence[int] = ()
    traits = SearchTraits(frozenset({BASE}), per_seed=True)

    def __init__(
        self, context: SearchContext, population: int = 1000, elite: int = 1, tournament: int = 4,
        crossover: Share = 0.5, rate: Share = 0.01, fitness: Literal["uncertainty", "target"] = "uncertainty",
        k: int = 2,
    ) -> None:  # fmt: skip
        if not isinstance(context.space, BoxSpace):
            raise UsageError("diffchaser crosses images or other numbers; take directed for texts")
        if not 0 <= elite < population or tournament < 1 or k < 2:
            raise UsageError(
                f"an elite of {elite} must be smaller than the population of {population}, a tournament at"
                f" least 1, not {tournament}, and k at least 2, not {k}"
            )
        self._context, self._space, self._rng = context, context.space, context.rng
        self._size, self._elite, self._tournament = population, elite, tournament
        self._crossover, self._rate, self._fitness_of, self._k = crossover, rate, fitness, k
        self.outcomes, self._mutator = SeedOutcomes(context), Mutator(context)
        self._second = np.zeros(len(context.seeds), np.int64)  # the seeds' second class
        self._ids = np.zeros(0, np.int64)  # the n seeds under way
        self._members = np.zeros((0, population, *self._space.shape), np.float32)
        self._fitness = np.zeros((0, population))  # inf for those who were not run
        self._waiting = np.zeros(0, np.int64)  # members still to be run, counted through all populations
        self._asked = self._waiting

    def ask(self, size: int) -> Batch:
        """Seeds first, then the members of as many populations as fit, in as many batches as they take."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        self._close()
        if not len(self._waiting) and not self._breed(max(1, size // self._size)):
            return self._context.seeds[:0]
        at = self._waiting // self._size  # whose they are
        place = np.arange(len(at)) - np.searchsorted(at, at)  # the how manieth of these
        asked = np.flatnonzero(place < self.outcomes.left[self._ids[at]])[:size]
        self._asked, self._waiting = self._waiting[asked], np.delete(self._waiting, asked)
        rows = self._context.corpus.parents(self._ids[at[asked]])
        return rows.changed(self._members.reshape(-1, *self._space.shape)[self._asked])

    def _close(self) -> None:
        """Forget the members that were to be run for seeds that are done."""
        done = ~np.isin(self._ids, self.outcomes.open)
        self._waiting = self._waiting[~done[self._waiting // self._size]]

    def _breed(self, room: int) -> bool:
        """The next generation for ``room`` seeds, new ones in the place of those done; False if all are."""
        seeds = self.outcomes.open
        stay = np.isin(self._ids, seeds)
        fresh = seeds[~np.isin(seeds, self._ids)][: max(0, room - int(stay.sum()))]
        first = self._context.seeds.data[fresh][:, None].repeat(self._size, axis=1)
        bred, fitness = self._next(self._ids[stay], self._members[stay], self._fitness[stay])
        self._members = np.concatenate([bred, self._mutated(fresh, first)])
        self._fitness = np.concatenate([fitness, np.full((len(fresh), self._size), np.inf)])
        self._ids = np.concatenate([self._ids[stay], fresh])
        known = np.arange(self._size) < np.where(np.isin(self._ids, fresh), 0, self._elite)[:, None]
        self._waiting = np.flatnonzero(~known)
        return len(self._ids) > 0

    def _next(self, ids: IntArray, members: FloatArray, fitness: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The elite and the children of populations (n, m, *shape), with the fitness (n, m) that is known."""
        if not len(ids):
            return members, fitness
        many, size = fitness.shape
        every = np.arange(many)[:, None]
        elite = fitness.argsort(axis=1, kind="stable")[:, : self._elite]
        rivals = self._rng.integers(size, size=(2, many, size - self._elite, self._tournament))
        won = fitness[every[..., None], rivals].argmin(axis=3)
        one, other = members[every, np.take_along_axis(rivals, won[..., None], axis=3)[..., 0]]
        children = np.where(self._drawn(one.shape, self._crossover), other, one)
        known = np.full((many, size), np.inf)
        known[:, : self._elite] = np.take_along_axis(fitness, elite, axis=1)
        return np.concatenate([members[every, elite], self._mutated(ids, children)], axis=1), known

    def _drawn(self, shape: tuple[int, ...], share: float) -> BoolArray:
        """True with probability ``share``, at every place by itself."""
        return self._rng.random(shape, np.float32) < share

    def _mutated(self, ids: IntArray, members: FloatArray) -> FloatArray:
        """Rows (n, m, *shape) of these seeds with some values drawn anew, within the bound."""
        space, changed = self._space, members.copy()
        places = self._drawn(members.shape, self._rate)
        changed[places] = self._values(int(places.sum()))
        rows = self._context.corpus.parents(ids.repeat(members.shape[1]))
        rows = rows.changed(space.settle(changed.reshape(-1, *space.shape)))
        bound = self._context.bound
        held = rows if bound is None else bound.hold(rows, self._rng)
        return held.data.reshape(members.shape)

    def _values(self, count: int) -> FloatArray:
        """Legal values (count,), all equally likely."""
        space = self._space
        if not space.step:
            return self._rng.uniform(space.low, space.high, size=count)
        values = int((space.high - space.low) / space.step + 1e-6) + 1
        return space.low + space.step * self._rng.integers(values, size=count)

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn how fit the members are that were asked for last."""
        self.outcomes.note(batch, margins)
        base = trace[BASE].astype(np.float64)
        ordered = base.argsort(axis=1, kind="stable")
        if batch.parent[0] < 0:
            self._second[batch.origin] = ordered[:, -2]
            return
        second = ordered[:, -min(self._k, base.shape[1])]
        if self._fitness_of == "target":
            second = self._second[batch.origin]
        fitness = base.max(axis=1) - base[np.arange(len(base)), second]
        self._fitness.reshape(-1)[self._asked] = np.nan_to_num(fitness, nan=np.inf)

    def state(self) -> State:
        """Everything, with all members of the populations under way."""
        return {
            "trials": self.outcomes.state(), "breeder": self._mutator.state(),
            **{name: getattr(self, f"_{name}") for name in STATE},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.outcomes.restore(state["trials"])
        self._mutator.restore(state["breeder"])
        for name in STATE:
            setattr(self, f"_{name}", np.array(state[name]))
