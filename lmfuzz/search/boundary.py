"""Boundary: find where two models part by root finding, instead of drifting towards it."""

from collections.abc import Sequence

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import SearchContext, SearchTraits
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.root_finding import Lines, crossings, leads, least
from lmfuzz.search.seed_outcomes import SeedOutcomes, turn
from lmfuzz.types import Array, Batch, BoolArray, FloatArray, IntArray, State, Trace

MODELS = ("base/logits", "twin/logits")
SEEDWISE = ("labels", "on", "begun", "steps", "best")  # what is known of every seed by itself
# The search for a far end. Steps along gradients are in widths of what may change: the first goes all the
# way, which is enough for half of the seeds that can be solved.
DECAY, LEAST, ROUNDS = 0.7, 0.05, 20  # of each step to the next; the smallest; steps before a new start
CORNERS = 3  # without gradients: other inputs whose direction is tried
BLOCKS = ((10, 0.3), (30, 0.15), (80, 0.08), (160, 0.04), (np.inf, 0.02))  # up to a step, share of the values


class Boundary:
    """Walks the line from a seed to an input of another label, to the row where two models part.

    With m the margin of a model, log p[the seed's label] - the best other log p, f = m(base) + m(twin) is
    above 0 at the seed and below 0 at the far end; at its zero the margins have opposite signs, unless both
    vanish. Each query is the middle between both models' zeros, interpolated between the ends of the
    bracket. What the seeds themselves showed gives all far ends, so that a line costs no query: of the
    ``near`` nearest seeds with another label the one is taken on whose line the zeros seem farthest apart,
    and the next after ``patience`` queries.

    Within a bound the far end has to be found: against the sign of the models' gradient where they have
    one (a gradient counts as a query), else towards other inputs and then by blocks of values at an end of
    their range, kept when f falls, as in the square attack (Andriushchenko et al. 2020).

    Measured on LeNet-1 and LeNet-5 with int8 twins, 600 seeds each: 3.0 to 3.8 queries on average with any
    floats, 3.1 to 4.0 with bytes; Illinois' method on f towards the nearest seed takes 3.5 to 4.4, and 4.5
    to 6.6.
    """

    focus: Sequence[int] = ()
    traits = SearchTraits(frozenset(MODELS), per_seed=True)

    def __init__(self, context: SearchContext, near: Count = 5, patience: Count = 10) -> None:
        if not isinstance(context.space, BoxSpace):
            raise UsageError("boundary walks lines between images or other numbers; take directed for texts")
        self.outcomes, self._mutator = SeedOutcomes(context), Mutator(context)
        self._context, self._space, self._near, self._patience = context, context.space, near, patience
        self._seeds, many = context.seeds.data, len(context.seeds)
        self._labels = np.zeros(many, np.int64)  # the base's
        self._on = np.zeros(many, bool)  # whether a seed has a line; the others look for a far end
        self._begun = np.zeros(many, np.int64)  # lines to other seeds that were given up
        self._steps = np.zeros(many, np.int64)  # of the search for a far end
        self._best = np.full(many, np.inf)  # least f that it saw
        self._know_classes(0)

    def _know_classes(self, count: int) -> None:
        """How many there are shows when the first seeds were run."""
        self._logits = np.zeros((len(self._seeds), len(MODELS), count))
        self._lines = Lines(self._space, self._seeds, count)

    def ask(self, size: int) -> Batch:
        """Seeds first, then one row for each of as many open seeds as fit."""
        if (seeds := self._mutator.seeds(size)) is not None:
            return seeds
        if not len(ids := turn(self.outcomes, size)):
            return self._context.seeds[:0]
        if self._context.bound is None:
            self._connect(ids[~self._on[ids]])
        on, rows = self._on[ids], self._context.corpus.parents(ids)
        data = np.empty_like(rows.data)
        if on.any():
            data[on] = self._lines.aim(ids[on])
        if not on.all():
            data[~on] = self._reach(ids[~on])
        return self._hold(rows.changed(data))

    def _hold(self, rows: Batch) -> Batch:
        bound, rows = self._context.bound, rows.changed(self._space.settle(rows.data))
        return rows if bound is None else bound.hold(rows, self._context.rng)

    def _spread(self, values: Array) -> Array:
        """One value per row, so that it goes with the rows' values (n, *shape)."""
        return values.reshape(-1, *[1] * len(self._space.shape))

    # -- lines to other seeds ----------------------------------------------------------------------

    def _connect(self, ids: IntArray) -> None:
        """Begin the next lines of these seeds to others, where there are any left."""
        partners = self._partners(ids, self._begun[ids])
        ids, partners = ids[partners >= 0], partners[partners >= 0]
        labels = self._labels[ids]
        at_seed, at_far = leads(self._logits[ids], labels), leads(self._logits[partners], labels)
        self._lines.begin(ids, self._seeds[partners], at_seed, at_far)
        self._on[ids] = True

    def _partners(self, ids: IntArray, rank: IntArray) -> IntArray:
        """The ``rank``-th (n,) seed for each of these to draw a line to; -1 where there is none.

        They come nearest first, in groups, and within a group by the gap between the models' zeros.
        """
        rows, labels = self._seeds.reshape(len(self._seeds), -1), self._labels[ids]
        apart = (rows**2).sum(axis=1) - 2 * rows[ids] @ rows.T
        apart[(self._logits.argmax(axis=2) == labels[:, None, None]).any(axis=2)] = np.inf
        group = (rank // self._near * self._near)[:, None] + np.arange(self._near)
        order = np.pad(apart.argsort(axis=1, kind="stable"), [(0, 0), (0, self._near)], mode="edge")
        some = np.take_along_axis(order, np.minimum(group, len(rows)), axis=1)
        usable = np.isfinite(np.take_along_axis(apart, some, axis=1)) & (group < len(rows))
        at_far = leads(self._logits[some.ravel()], labels.repeat(self._near))
        zeros = crossings(
            leads(self._logits[ids], labels)[:, None], at_far.reshape(*some.shape, *at_far.shape[1:])
        )
        widest = np.where(usable, -np.ptp(zeros, axis=2), np.inf).argsort(axis=1, kind="stable")
        chosen = np.arange(len(ids)), widest[np.arange(len(ids)), rank % self._near]
        return np.where(usable[chosen], some[chosen], -1)

    # -- far ends, where no seed is one --------------------------------------------------------------

    def _reach(self, ids: IntArray) -> FloatArray:
        """The rows (n, *shape) to try next of seeds without a far end."""
        fresh = ids[self._steps[ids] == 0]
        self._lines.far[fresh] = self._seeds[fresh]
        rows = self._blindly(ids)
        affordable = self.outcomes.left[ids] > 1
        if self._context.gradients is not None and affordable.any():
            rows[affordable] = self._downhill(ids[affordable])
        return rows

    def _downhill(self, ids: IntArray) -> FloatArray:
        """A step against the sign of f's gradient, anywhere where that is flat."""
        assert self._context.gradients is not None, "asked for only where there are some"
        rows = self._context.corpus.parents(ids).changed(self._lines.far[ids])
        signs = np.sign(np.nan_to_num(self._context.gradients(rows, self._labels[ids])[1]))
        self.outcomes.queries[ids] += 1
        flat = ~signs.reshape(len(ids), -1).any(axis=1)
        signs[flat] = np.where(self._context.rng.random(signs[flat].shape) < 0.5, -1, 1)
        low, high = self._reachable(ids)
        share = self._spread(np.maximum(DECAY ** self._steps[ids], LEAST))
        return (rows.data - share * (high - low) * signs).astype(np.float32)

    def _blindly(self, ids: IntArray) -> FloatArray:
        """Towards other inputs at first, then blocks of the best row's values at an end of their range."""
        steps, rng, space = self._steps[ids], self._context.rng, self._space
        share = np.array([share for _, share in BLOCKS])
        block = self._blocks(share[np.searchsorted([most for most, _ in BLOCKS], steps)])
        end = np.where(rng.random(len(ids)) < 0.5, space.low, space.high).astype(np.float32)
        rows = np.where(block, self._spread(end), self._lines.far[ids])
        if (first := steps < CORNERS).any():
            partners = self._partners(ids[first], steps[first])
            lent = self._mutator.lend(len(partners)).data
            rows[first] = np.where(self._spread(partners >= 0), self._seeds[partners], lent)
        return rows

    def _blocks(self, share: FloatArray) -> BoolArray:
        """For each row a box of about that ``share`` (n,) of the values, anywhere in (n, *shape)."""
        shape, many = self._space.shape, len(share)
        axes = len(shape) - self._space.image  # the channels of an image change together
        block = np.ones((many, *shape), bool)
        for axis, size in enumerate(shape[:axes]):
            side = np.maximum(1, np.rint(size * share ** (1 / axes))).astype(np.int64)
            start = self._context.rng.integers(0, size - side + 1)[:, None]
            inside = (np.arange(size) >= start) & (np.arange(size) < start + side[:, None])
            block &= inside.reshape(many, *[size if i == axis else 1 for i in range(len(shape))])
        return block

    def _reachable(self, ids: IntArray) -> tuple[FloatArray, FloatArray]:
        """The least and the largest values (n, *shape) that rows of these seeds may have."""
        rows = self._context.corpus.parents(ids)
        ends = (np.full_like(rows.data, end) for end in (self._space.low, self._space.high))
        low, high = (self._hold(rows.changed(end)).data for end in ends)
        return low, high

    def _restart(self, ids: IntArray) -> None:
        """Look for another far end, from a random corner of what these seeds may become."""
        low, high = self._reachable(ids)
        self._lines.far[ids] = np.where(self._context.rng.random(low.shape) < 0.5, high, low)
        self._steps[ids], self._best[ids] = CORNERS, np.inf

    # -- learning ------------------------------------------------------------------------------------

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn where the models stand at the rows last asked for."""
        self.outcomes.note(batch, margins)
        logits = np.stack([trace[name] for name in MODELS], axis=1)
        if batch.parent[0] < 0:
            if not self._logits.shape[2]:
                self._know_classes(logits.shape[2])
            self._logits[batch.origin] = np.nan_to_num(logits)
            self._labels[batch.origin] = self._logits[batch.origin, 0].argmax(axis=1)
            return
        going = np.isin(batch.origin, self.outcomes.open)
        ids, rows = batch.origin[going], batch.data[going]
        ahead, on = leads(logits[going], self._labels[ids]), self._on[ids]
        self._lines.tell(ids[on], ahead[on])
        self._approach(ids[~on], rows[~on], ahead[~on])
        over = ids[on][(self._lines.tries[ids[on]] >= self._patience) | self._lines.spent(ids[on])]
        self._on[over], self._begun[over] = False, self._begun[over] + 1
        self._restart(over)

    def _approach(self, ids: IntArray, rows: FloatArray, ahead: FloatArray) -> None:
        """What the search for far ends makes of rows with these leads (n, 2, C)."""
        f = least(ahead).sum(axis=1)
        self._steps[ids] += 1
        there = ids[f < 0]
        at_seed = leads(self._logits[there], self._labels[there])
        self._lines.begin(there, rows[f < 0], at_seed, ahead[f < 0])
        self._on[there] = True
        climbing = self._context.gradients is not None
        taken = (f >= 0) & (climbing | (f < self._best[ids]))
        self._lines.far[ids[taken]], self._best[ids[taken]] = rows[taken], f[taken]
        if climbing:
            self._restart(ids[(f >= 0) & (self._steps[ids] % ROUNDS == 0)])

    def state(self) -> State:
        """Everything; far ends of the seeds under way alone."""
        going = self.outcomes.open
        return {
            "trials": self.outcomes.state(), "breeder": self._mutator.state(), "logits": self._logits,
            "lines": self._lines.state(going[self._on[going] | (self._steps[going] > 0)]),
            **{name: getattr(self, f"_{name}") for name in SEEDWISE},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.outcomes.restore(state["trials"])
        self._mutator.restore(state["breeder"])
        self._know_classes(state["logits"].shape[2])
        self._logits = np.array(state["logits"])
        self._lines.restore(state["lines"])
        for name in SEEDWISE:
            setattr(self, f"_{name}", np.array(state[name]))
