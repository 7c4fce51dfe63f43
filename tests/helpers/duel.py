"""Two small classifiers that nearly agree, in numpy, and a loop that drives a search against them."""

import copy
from dataclasses import dataclass, replace

import numpy as np

from lmfuzz.inputs.bounds import Linf
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import SearchContext
from lmfuzz.storage.serialize import decode, encode

SHAPE, CLASSES = (6, 5, 1), 4


class Duel:
    """A bent linear classifier and its twin with slightly other weights; images with values in [0, 1].

    bend: how far from linear the logits are. noise: what an objective's margin must exceed.
    """

    def __init__(self, apart=0.01, bend=0.3, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        self.weights = rng.normal(size=(30, CLASSES)) * 3
        self.bent = rng.normal(size=(30, CLASSES)) * bend
        self.other = self.weights + rng.normal(size=self.weights.shape) * apart * 3
        self.noise, self.gradient_rows = noise, 0

    def logits(self, data):
        flat = data.reshape(len(data), 30).astype(np.float64) - 0.5
        curve = np.sin(6 * flat) @ self.bent
        return np.stack([flat @ self.weights + curve, flat @ self.other + curve], axis=1)

    def run(self, batch):
        logits = self.logits(batch.data)
        with np.errstate(invalid="ignore"):  # tests may put NaN and infinity into logits
            powers = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares = (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32)
        return {
            f"{name}/{what}": values[:, i]
            for i, name in enumerate(("base", "twin"))
            for what, values in (("logits", logits), ("probabilities", shares))
        }

    def margins(self, trace):
        base, twin = trace["base/logits"], trace["twin/logits"]
        rows, a, b = np.arange(len(base)), base.argmax(axis=1), twin.argmax(axis=1)
        apart = np.minimum(base[rows, a] - base[rows, b], twin[rows, b] - twin[rows, a]) - self.noise
        return np.where(a == b, -1, apart)[:, None].astype(np.float32)

    def gradients(self, batch, labels):
        """Of both margins added up, as a target gives them."""
        self.gradient_rows += len(batch)
        logits, rows = self.logits(batch.data), np.arange(len(batch))
        flat = batch.data.reshape(len(batch), 30).astype(np.float64) - 0.5
        value, slope = np.zeros(len(batch)), np.zeros((len(batch), 30))
        for model, weights in enumerate((self.weights, self.other)):
            rest = logits[:, model].copy()
            rest[rows, labels] = -np.inf
            second = rest.argmax(axis=1)
            value += logits[rows, model, labels] - rest[rows, second]
            bent = self.bent[:, labels] - self.bent[:, second]
            slope += (weights[:, labels] - weights[:, second] + 6 * np.cos(6 * flat).T * bent).T
        return value, slope.reshape(batch.data.shape)


def shade(rows, near):
    """Makes every value a little larger or smaller."""
    change = near.rng.uniform(-0.2, 0.2, size=rows.data.shape).astype(np.float32)
    return rows.changed(near.space.settle(rows.data + change))


def swap(rows, near):
    """Half of the values become a pool row's."""
    mine = near.rng.random(rows.data.shape) < 0.5
    return rows.changed(near.space.settle(np.where(mine, rows.data, near.pool.data)))


@dataclass
class Run:
    """A search and what it stands on, driven as the loop does."""

    context: SearchContext
    duel: Duel
    make: object
    search: object

    @classmethod
    def of(cls, make, duel=None, seeds=20, step=0.0, most=None, queries=None, gradients=False, rng=0):
        duel = duel or Duel()
        space = BoxSpace(SHAPE, step=step)
        rows = space.settle(np.random.default_rng(99).random((seeds, *SHAPE)).astype(np.float32))
        batch = space.batch(rows)
        context = SearchContext(
            space, batch, {"shade": shade, "swap": swap}, ("d",), Corpus(space), np.random.default_rng(rng),
            bound=Linf(most, space, batch) if most else None, queries=queries,
            gradients=duel.gradients if gradients else None,
        )  # fmt: skip
        return cls(context, duel, make, make(context))

    def spec_for_resume(self):
        """The same search, stopped and begun again."""
        rng, corpus = copy.deepcopy(self.context.rng), copy.deepcopy(self.context.corpus)
        context = replace(self.context, rng=rng, corpus=corpus)
        search = self.make(context)
        search.restore(decode(encode(self.search.state())))
        return Run(context, self.duel, self.make, search)

    def turn(self, size=64):
        """One batch, with all that every batch has to be; and what the models made of it."""
        trials, space = self.search.outcomes, self.context.space
        batch = self.search.ask(size)
        if not len(batch):
            assert not len(trials.open)
            return batch
        assert len(batch) <= size
        assert space.legal(batch).all()
        mutants = batch.parent >= 0
        if mutants.any():
            assert mutants.all(), "seeds come alone"
            assert np.isin(batch.origin, trials.open).all()
            each = np.bincount(batch.origin, minlength=len(self.context.seeds))
            assert (each <= trials.left).all()
            assert (self.context.corpus[batch.parent].origin == batch.origin).all()
        if self.context.bound is not None:
            change = np.abs(batch.data - self.context.seeds.data[batch.origin])
            assert change.max() <= self.context.bound.most * 1.00001
        trace = {name: values.copy() for name, values in self.duel.run(batch).items()}
        self.search.tell(batch, trace, self.duel.margins(trace), np.zeros(len(batch), bool))
        return batch

    def to_the_end(self, size=64, turns=20_000):
        """Until nothing is left to try; the rows asked for."""
        rows = 0
        for _ in range(turns):
            if not len(batch := self.turn(size)):
                return rows
            rows += len(batch)
        raise AssertionError("it does not end")

    @property
    def counted(self):
        """The queries (n,) of the seeds that had to be searched for."""
        trials = self.search.outcomes
        return trials.queries[~trials.natural]


def rows_of(batch):
    return [(batch.row(i).tobytes(), int(batch.parent[i]), int(batch.operator[i])) for i in range(len(batch))]


def same_when_resumed(make, before, **about):
    """Stop after ``before`` turns: both go on with the same rows, and end in the same state."""
    unbroken = Run.of(make, **about)
    for _ in range(before):
        unbroken.turn(16)
    resumed = unbroken.spec_for_resume()
    for _ in range(6):
        assert rows_of(resumed.turn(16)) == rows_of(unbroken.turn(16))
    assert encode(resumed.search.state()) == encode(unbroken.search.state())
