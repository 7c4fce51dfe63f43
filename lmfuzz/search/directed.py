"""Directed search: lmfuzz's own strategy, which climbs every objective's margin in a niche of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmfuzz.plugins.bounds import Count, Share
from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.bandit import Bandit
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.tempering import Chains
from lmfuzz.types import Batch, BoolArray, FloatArray, IntArray, State, Trace, join

TRIES = 4  # mutants per chain and batch: fewer chains with more tries climb faster, too few get stuck
RECENT = 1024  # rows with a new state that exploration starts from
FAR = -1e6  # stands for a margin of -inf or NaN: unknown, and worse than all that are known


@dataclass
class Niche:
    """What the search knows of one column of the margins."""

    best: float = FAR  # largest margin of any row
    stuck: int = 0  # batches since the chains' record last rose
    record: float = FAR  # largest margin since the chains were started
    hits: int = 0
    chains: Chains | None = None
    seeds: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # the seeds' margins


class Directed:
    """One niche per objective target, each with tempered chains; operators by a bandit; novelty beside.

    Every batch is bred for one niche, drawn by how near it is to its target, or, with probability
    ``explore``, from rows whose hidden state was new. Where a niche's chains did not get nearer for
    ``patience`` batches, their hotter half starts again from other seeds. Of a batch only the margins
    of its own niche are graded, which keeps the target fast; hits count in whatever niche they fall.
    """

    traits = SearchTraits()

    def __init__(
        self, context: SearchContext, explore: Share = 0.05, patience: Count = 100, borrow: Share = 0.5
    ) -> None:
        self.explore, self.patience, self.borrow = explore, patience, borrow
        self._context, self._rng = context, context.rng
        self._mutator = Mutator(context)
        self._climbing = Bandit(len(self._mutator.operators), context.rng)  # paid: nearer than the parent
        self._exploring = Bandit(len(self._mutator.operators), context.rng)  # paid: a new state
        self._niches = [Niche() for _ in context.targets]
        self._fresh: list[int] = []  # corpus ids of rows whose state was new
        self._niche: int | None = None  # the one that the last batch was bred for
        self.focus: Sequence[int] = ()

    def ask(self, size: int) -> Batch:
        """Seeds first, graded in every column; then mutants bred for one niche, or for novelty."""
        if (seeds := self._mutator.seeds(size)) is not None:
            self._niche, self.focus = None, range(len(self._niches))
            return seeds
        self._niche = self._draw_niche()
        self.focus = () if self._niche is None else (self._niche,)
        if self._niche is None:
            return self._mutator.mutate(self._novel(size), self._exploring.draw)
        niche = self._niches[self._niche]
        if niche.chains is None:
            niche.chains = self._start(niche, max(1, size // TRIES))
        rows = niche.chains.rows[niche.chains.parents(size)]
        return self._mutator.change(rows, self._pool(niche.chains, size), self._climbing.draw)

    def _draw_niche(self) -> int | None:
        """A niche, nearer ones more often, those with hits seldom; None for novelty."""
        graded = [i for i, niche in enumerate(self._niches) if niche.best > FAR]
        if not graded or self._rng.random() < self.explore:
            return None
        near = [1 / (1 + abs(min(self._niches[i].best, 0))) for i in graded]
        weights = np.array([w / (1 + 20 * self._niches[i].hits) for i, w in zip(graded, near, strict=True)])
        return int(self._rng.choice(graded, p=weights / weights.sum()))

    def _novel(self, size: int) -> IntArray:
        """Parents (B,) to explore from: half the newest rows of the corpus, half any."""
        fresh = self._fresh[-size:] or list(range(self._mutator.seeded))
        newest = self._rng.choice(fresh, size)
        return np.where(
            self._rng.random(size) < 0.5, newest, self._rng.integers(len(self._context.corpus), size=size)
        )

    def _start(self, niche: Niche, count: int) -> Chains:
        """``count`` chains from the seeds nearest to the target."""
        margins = niche.seeds
        ids = np.resize(np.argsort(-margins, kind="stable"), count)
        niche.record = float(margins.max())
        return Chains(self._context.corpus.parents(ids), margins[ids])

    def _pool(self, chains: Chains, size: int) -> Batch:
        """Rows (B,) to borrow from: those of other chains of the niche, or seeds."""
        own = int(self._rng.binomial(size, self.borrow))
        others = chains.rows[self._rng.integers(len(chains), size=own)]
        return join([others, self._mutator.lend(size - own)])[self._rng.permutation(size)]

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn: niches from margins, the bandit from what got nearer or was new, the corpus grows."""
        margins = np.nan_to_num(margins.astype(np.float64), nan=FAR, neginf=FAR, posinf=-FAR)
        for niche, best, hits in zip(
            self._niches, margins.max(axis=0).tolist(), (margins > 0).sum(axis=0).tolist(), strict=True
        ):
            niche.best, niche.hits = max(niche.best, best), niche.hits + hits
        if batch.parent[0] < 0:
            for niche, column in zip(self._niches, margins.T.astype(np.float32), strict=True):
                niche.seeds = np.concatenate([niche.seeds, column])
            return
        if self._niche is None:
            self._exploring.reward(batch.operator, novel)
            ids = self._context.corpus.add(batch[novel])
            self._fresh = [*self._fresh, *ids.tolist()][-RECENT:]
            return
        self._learn(self._niches[self._niche], batch, margins[:, self._niche], novel)

    def _learn(self, niche: Niche, batch: Batch, margins: FloatArray, novel: BoolArray) -> None:
        assert niche.chains is not None, "the batch was bred from these chains"
        before = niche.chains.margins[niche.chains.parents(len(batch))]
        nearer = margins > before
        niche.chains.feel((margins - before)[(margins > FAR) & (before > FAR)])
        self._climbing.reward(batch.operator, nearer)
        # The corpus keeps what was new and every step of the record: the lineage of findings.
        kept = novel | ((margins > niche.record) & (margins == margins.max()))
        parents = batch.parent.copy()
        parents[kept] = self._context.corpus.add(batch[kept])
        self._fresh = [*self._fresh, *parents[novel].tolist()][-RECENT:]
        niche.chains.accept(replace(batch, parent=parents), margins, self._rng)
        niche.chains.exchange(self._rng)
        best = float(margins.max())
        niche.stuck = 0 if best > niche.record else niche.stuck + 1
        niche.record = max(niche.record, best)
        if niche.stuck > self.patience:
            ids = self._rng.integers(self._mutator.seeded, size=len(niche.chains) // 2)
            niche.chains.renew(self._context.corpus.parents(ids), niche.seeds[ids])
            niche.stuck = 0

    def state(self) -> State:
        """Everything but the rows of the corpus."""
        niches = [{**vars(niche), "chains": niche.chains and niche.chains.state()} for niche in self._niches]
        return {
            "breeder": self._mutator.state(), "climbing": self._climbing.state(),
            "exploring": self._exploring.state(), "niches": niches, "fresh": self._fresh,
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self._mutator.restore(state["breeder"])
        self._climbing.restore(state["climbing"])
        self._exploring.restore(state["exploring"])
        self._fresh = list(state["fresh"])
        self._niches = [
            Niche(**{**niche, "chains": niche["chains"] and Chains.from_state(niche["chains"])})
            for niche in state["niches"]
        ]
