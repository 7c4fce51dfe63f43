"""Directed search: lmfuzz's own strategy, which climbs the margin of each objective separately."""

from dataclasses import dataclass, field, replace

import numpy as np

from lmfuzz.plugins.bounds import Count, Share
from lmfuzz.protocols import SearchContext
from lmfuzz.search.bandit import Bandit
from lmfuzz.search.mutation import MutationSearch
from lmfuzz.search.tempering import Chains
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, Resumable, State, Trace, join

TRIES = 4  # mutants per chain and batch: fewer chains with more tries climb faster, too few get stuck
RECENT = 1024  # rows with a new state that exploration starts from
FAR = -1e6  # stands for a margin of -inf or NaN: unknown, and worse than all that are known


@dataclass
class Niche(Resumable):
    """Hold what the search knows about one column of the margins.

    Attributes:
        chains: none until the niche is first searched.
        best: largest margin of any row.
        stuck: batches since ``record`` last rose.
        record: largest margin since the chains were started.
        hits: rows with a margin above 0.
        seeds: float32 (S,), the seeds' margins.
    """

    kept = ("best", "stuck", "record", "hits", "chains", "seeds")

    chains: Chains
    best: float = FAR
    stuck: int = 0
    record: float = FAR
    hits: int = 0
    seeds: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))


class Directed(MutationSearch):
    """Climb every objective's margin by tempered chains, and explore new states now and then.

    Each objective target is a niche. Every batch is made for one niche, drawn by how near it is to its
    target, or, with probability ``explore``, from rows with a new hidden state.
    If most seeds hit a target as they are, its batches mostly explore, too: there is nothing to climb.
    A bandit chooses the operators. Only the batch's own niche is graded, which keeps the target fast; hits
    count in any niche.

    Args:
        context: what the search is given.
        explore: probability of a batch that explores.
        patience: batches without progress after which the hotter half of the chains restart from seeds.
        borrow: share of the rows to borrow from that come from the niche's chains; the others are seeds.
    """

    kept = ("_mutator", "_climbing", "_exploring", "_niches", "_fresh")

    def __init__(
        self, context: SearchContext, explore: Share = 0.05, patience: Count = 100, borrow: Share = 0.5
    ) -> None:
        super().__init__(context)
        self.explore, self.patience, self.borrow = explore, patience, borrow
        self._climbing = Bandit(len(context.operators), self._rng)  # paid: nearer than the parent
        self._exploring = Bandit(len(context.operators), self._rng)  # paid: a new state
        self._niches = [Niche(Chains(context.seeds[:0], np.zeros(0))) for _ in context.targets]
        self._fresh: list[int] = []  # corpus ids of rows with a new state
        self._niche: int | None = None  # the one that the last batch was made for

    def restore(self, state: State) -> None:
        """Continue from ``state``; raise ValueError for rows that are not in the corpus."""
        super().restore(state)
        if max(self._fresh, default=-1) >= len(self._context.corpus):
            raise ValueError("a row with a new state is not in the corpus")

    def ask(self, size: int) -> Batch:
        """Return seeds first, graded in every column; then mutants for one niche, or for exploration."""
        self._niche, self.focus = None, range(len(self._niches))
        return super().ask(size)

    def _propose(self, size: int) -> Batch:
        self._niche = self._draw_niche()
        self.focus = () if self._niche is None else (self._niche,)
        if self._niche is None:
            return self._mutator.mutate(self._novel(size), self._exploring.draw)
        niche = self._niches[self._niche]
        if not len(niche.chains):
            niche.chains = self._start(niche, max(1, size // TRIES))
        rows = niche.chains.rows[niche.chains.parents(size)]
        return self._mutator.change(rows, self._pool(niche.chains, size), self._climbing.draw)

    def _draw_niche(self) -> int | None:
        """Return a niche, near ones often, those with hits seldom; None to explore."""
        graded = [i for i, niche in enumerate(self._niches) if niche.best > FAR]
        if not graded or self._rng.random() < self.explore:
            return None
        near = [1 / (1 + abs(min(self._niches[i].best, 0))) for i in graded]
        weights = np.array([w / (1 + 20 * self._niches[i].hits) for i, w in zip(graded, near, strict=True)])
        drawn = int(self._rng.choice(graded, p=weights / weights.sum()))
        usual = np.mean(self._niches[drawn].seeds > 0)
        return None if usual and self._rng.random() < usual else drawn

    def _novel(self, size: int) -> IntArray:
        """Return parents (B,) to explore from: half from the rows with new states, half from all."""
        fresh = self._fresh[-size:] or list(range(self._mutator.seeded))
        newest, recent = self._rng.choice(fresh, size), self._rng.random(size) < 0.5
        return np.where(recent, newest, self._rng.integers(len(self._context.corpus), size=size))

    def _start(self, niche: Niche, count: int) -> Chains:
        """Return ``count`` chains from the seeds nearest to the target."""
        ids = np.resize(np.argsort(-niche.seeds, kind="stable"), count)
        niche.record = float(niche.seeds.max())
        return Chains(self._context.corpus.parents(ids), niche.seeds[ids])

    def _pool(self, chains: Chains, size: int) -> Batch:
        """Return rows (B,) to borrow from: those of the niche's chains, or seeds."""
        own = int(self._rng.binomial(size, self.borrow))
        others = chains.rows[self._rng.integers(len(chains), size=own)]
        return join([others, self._mutator.borrow(size - own)])[self._rng.permutation(size)]

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn margins and yields, and add rows with a new state to the corpus."""
        margins = np.nan_to_num(margins.astype(np.float64), nan=FAR, neginf=FAR, posinf=-FAR)
        for niche, column in zip(self._niches, margins.T, strict=True):
            niche.best, niche.hits = (
                max(niche.best, float(column.max())),
                niche.hits + int((column > 0).sum()),
            )
            if batch.parent[0] < 0:
                niche.seeds = np.concatenate([niche.seeds, column.astype(np.float32)])
        if batch.parent[0] < 0:
            return
        if self._niche is not None:
            self._learn(self._niches[self._niche], batch, margins[:, self._niche], novel)
            return
        self._exploring.reward(batch.operator, novel)
        self._remember(self._context.corpus.add(batch[novel]))

    def _remember(self, ids: IntArray) -> None:
        self._fresh = [*self._fresh, *ids.tolist()][-RECENT:]

    def _learn(self, niche: Niche, batch: Batch, margins: FloatArray, novel: BoolArray) -> None:
        before = niche.chains.margins[niche.chains.parents(len(batch))]
        niche.chains.rescale((margins - before)[(margins > FAR) & (before > FAR)])
        self._climbing.reward(batch.operator, margins > before)
        # The corpus keeps what was new and every step of the record: the lineage of findings.
        kept = novel | ((margins > niche.record) & (margins == margins.max()))
        parents = batch.parent.copy()
        parents[kept] = self._context.corpus.add(batch[kept])
        self._remember(parents[novel])
        niche.chains.accept(replace(batch, parent=parents), margins, self._rng)
        niche.chains.exchange(self._rng)
        best = float(margins.max())
        niche.stuck = 0 if best > niche.record else niche.stuck + 1
        niche.record = max(niche.record, best)
        if niche.stuck > self.patience:
            ids = self._rng.integers(self._mutator.seeded, size=len(niche.chains) // 2)
            niche.chains.renew(self._context.corpus.parents(ids), niche.seeds[ids])
            niche.stuck = 0
