"""What every search does the same way: seeds first, then mutants whose operators are known."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lmfuzz.protocols import Setting, Surroundings
from lmfuzz.types import Batch, IntArray, State, join

GROUPS = 3  # operators drawn per batch: each changes a group of rows at once, which keeps mutation cheap

Choice = Callable[[int], IntArray]  # how many operators to draw -> their ids


class Breeder:
    """Hands out the seeds, which get the first corpus ids, and makes mutants of corpus rows."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.seeded = len(setting.seeds)  # corpus ids below this are seeds
        self.pool = setting.seeds if setting.pool is None else setting.pool
        self.operators = list(setting.operators.values())
        self._next = 0  # the first seed not handed out yet
        if not len(setting.corpus):
            setting.corpus.add(setting.seeds)

    def seeds(self, size: int) -> Batch | None:
        """Up to ``size`` seeds that were not handed out yet, None when all were."""
        if self._next >= self.seeded:
            return None
        start, self._next = self._next, min(self._next + size, self.seeded)
        return self.setting.corpus[slice(start, self._next)]

    def uniform(self, groups: int) -> IntArray:
        """``groups`` operators, all equally likely."""
        return self.setting.rng.integers(len(self.operators), size=groups)

    def mutate(self, ids: IntArray, choose: Choice | None = None, pool: IntArray | None = None) -> Batch:
        """One mutant of every corpus row in ``ids`` (B,), in this order.

        choose: draws the operators (uniformly when it is None). pool: corpus ids (B,) of rows to borrow
        from (the setting's pool when it is None).
        """
        corpus = self.setting.corpus
        return self.change(corpus.parents(ids), self.lend(len(ids)) if pool is None else corpus[pool], choose)

    def lend(self, count: int) -> Batch:
        """``count`` rows of the pool, drawn at random."""
        return self.pool[self.setting.rng.integers(len(self.pool), size=count)]

    def change(self, rows: Batch, pool: Batch, choose: Choice | None = None) -> Batch:
        """One mutant of each of ``rows``, which may borrow from the row of ``pool`` at its place.

        All of them are within the setting's bound.
        """
        groups = np.array_split(self.setting.rng.permutation(len(rows)), min(GROUPS, len(rows)))
        return self._changed(rows, pool, groups, (choose or self.uniform)(len(groups)))

    def by(self, rows: Batch, pool: Batch, operators: IntArray) -> Batch:
        """As ``change``, but each of the rows by an operator of its own, ``operators`` (B,)."""
        chosen = np.unique(operators)
        return self._changed(rows, pool, [np.flatnonzero(operators == one) for one in chosen], chosen)

    def _changed(self, rows: Batch, pool: Batch, groups: Sequence[IntArray], chosen: IntArray) -> Batch:
        """The rows of each group changed by the operator chosen for it, in the rows' order."""
        rng, setting, parts = self.setting.rng, self.setting, []
        for group, operator in zip(groups, chosen.tolist(), strict=True):
            near = Surroundings(setting.space, pool[group], rng, setting.sampler, setting.lexicon)
            changed = self.operators[operator](rows[group], near)
            parts.append(replace(changed, operator=np.full(len(group), operator, np.int32)))
        mutants = join(parts)[np.concatenate(groups).argsort()]
        return mutants if setting.bound is None else setting.bound.hold(mutants, rng)

    def state(self) -> State:
        """How far the seeds were handed out."""
        return {"next": self._next}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._next = state["next"]
