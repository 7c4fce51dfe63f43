"""Contracts between the parts of a campaign.

What only some targets can do is a protocol of its own, asked for with ``isinstance``. If only some objects of
a class can do it, the method is an attribute of each object, or None, which ``isinstance`` takes as lacking.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, Rows, Space, TextSpace
from lmfuzz.types import Batch, BoolArray, Evidence, Finding, FloatArray, IntArray, State, Trace

if TYPE_CHECKING:
    from lmfuzz.inputs.corpus import Corpus


@dataclass(frozen=True)
class TargetInfo:
    """Describe a target.

    Attributes:
        notes: lines for a person.
        seeds: the bundled prompts that suit it; None for the usual ones.
        sparing: whether each row costs much, so that a campaign calibrates with few.
        told: what the model is told with every prompt; None if that is not known.
        clock: the time that it is told, in ISO 8601; '' if it is told none.
    """

    notes: tuple[str, ...] = ()
    seeds: str | None = None
    sparing: bool = False
    told: str | None = None
    clock: str = ""


class PlainTarget(Protocol):
    """Run a model under test: all that a target of one's own must have.

    Attributes:
        channels: what it can show; "phrase_gap/" is a family of channels that takes an argument.
        identity: hash of weights, alphabet and decoding, which findings are stored with.
    """

    channels: frozenset[str]
    identity: str

    @property
    def space(self) -> Space:
        """Return what a legal row is; operators see this, never the model."""

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels, one entry per row; the batch is a copy, which may be changed."""


@runtime_checkable
class Target(PlainTarget, Protocol):
    """Run a model under test, and describe it, as a campaign needs it."""

    @property
    def info(self) -> TargetInfo:
        """Return its description."""


@runtime_checkable
class Decodes(Protocol):
    """Write as the decoding options say. A target of one's own has ``set_decoding`` instead.

    That is called first, with max_new, temperature, seed, stop, top_k and top_p, by name.
    """

    @property
    def decoding(self) -> object:
        """Return these options."""


@runtime_checkable
class Sampler(Protocol):
    """Sample continuations: a target that can do this lets operators write as the model does."""

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """Return ``new`` symbols, int32 (B, new), drawn from the model after each row."""


@runtime_checkable
class Predicts(Protocol):
    """Say how well the model predicts texts: a model of single characters."""

    def loss(self, batch: Batch) -> FloatArray:
        """Return the nats per symbol float32 (B,) of each row after its first; NaN if there is no other."""


class Lexicon(Protocol):
    """Say what a model knows about its tokens, for operators that choose tokens by meaning."""

    @property
    def rare(self) -> IntArray:
        """Return tokens int32 (N,) that it hardly saw in training, at least one."""

    def neighbours(self, symbols: IntArray, count: int) -> IntArray:
        """Return the ``count`` tokens most like each of ``symbols`` (B,), nearest first, int32 (B, count)."""


@runtime_checkable
class HasLexicon(Protocol):
    """Know the model's tokens."""

    @property
    def lexicon(self) -> Lexicon:
        """Return what it knows of them."""


@runtime_checkable
class Classifier(Protocol):
    """Give every row one of K labels."""

    @property
    def classes(self) -> Sequence[str]:
        """Return the names of the labels, (K,)."""


@runtime_checkable
class Differentiable(Protocol):
    """Say which change of a row would change its label."""

    def margin_gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return log p[label] - the largest other log p (B,), its gradient (B, *shape); for a pair, sums."""


Gradients = Callable[[Batch, IntArray], tuple[FloatArray, FloatArray]]  # such a method


@dataclass(frozen=True)
class MutationContext:
    """Hold what an operator may use besides the rows that it changes.

    Attributes:
        space: what a legal row is.
        pool: other rows to borrow from, at least one.
        rng: the only source of randomness.
        sampler: the target, if it can sample continuations.
        lexicon: what the model knows about its tokens, if rows are tokens and it says so.
    """

    space: Space
    pool: Batch
    rng: np.random.Generator
    sampler: Sampler | None = None
    lexicon: Lexicon | None = None

    @property
    def text(self) -> TextSpace:
        """Return the space of an operator that changes symbols; raise UsageError if rows are numbers."""
        if isinstance(self.space, TextSpace):
            return self.space
        raise UsageError("an operator on symbols cannot change numbers; take --operator noise or another")

    @property
    def box(self) -> BoxSpace:
        """Return the space of an operator that changes numbers; raise UsageError if rows are texts."""
        if isinstance(self.space, BoxSpace):
            return self.space
        raise UsageError("an operator on numbers cannot change texts; take --operator havoc or another")


class ForTexts:
    """Mark operators on texts, and objectives that judge texts only."""

    rows: ClassVar[Rows] = "text"


class ForTokens:
    """Mark operators on texts whose symbols are tokens."""

    rows: ClassVar[Rows] = "tokens"


class ForKnownTokens(ForTokens):
    """Mark operators that need the lexicon of a MutationContext."""

    needs_lexicon: ClassVar[bool] = True


class ForBoxes:
    """Mark operators on numbers, images included."""

    rows: ClassVar[Rows] = "box"


class ForImages:
    """Mark operators on images."""

    rows: ClassVar[Rows] = "image"


class Operator(Protocol):
    """Change rows in one way.

    The class attribute ``rows`` says which kind of rows an operator is for; without it, it is for all.
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``, all of them legal, in the same order and number."""


@runtime_checkable
class HasNotes(Protocol):
    """Say, as an operator or an objective on texts, what of it a model cannot use or show."""

    def notes(self, space: TextSpace, steps: int | None = None) -> list[str]:
        """Return lines for a person; an output has at most ``steps`` symbols, None if that is not known."""


class Feature(Protocol):
    """Map what a run showed to points in state space; see also FixesRadius.

    Attributes:
        needs: the channels that it reads.
    """

    needs: frozenset[str]

    def fit(self, trace: Trace) -> None:
        """Learn from what the seeds showed (means, centroids ...); this is called once, first."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, D), not finite for a row that is not; the trace cannot be changed."""


@runtime_checkable
class FixesRadius(Protocol):
    """Fix the radius of the archive: a feature whose ``radius`` is not None is not calibrated."""

    radius: float | None


class Objective(Protocol):
    """Judge whether a row misbehaved, and how far it was from that.

    Users need to give no more than ``__call__``: see objectives.detectors. An objective that judges texts
    only is ForTexts; see also NeedsNoiseFloor, LooksForSecret and LooksForTokens.

    Attributes:
        needs: channels to judge by, present in every trace.
        targets: what each of the N columns of the margins is about.
        grades: per column, channels that only say how far away a row is.
    """

    needs: frozenset[str]
    targets: tuple[str, ...]
    grades: tuple[frozenset[str], ...]

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, N): > 0 is a finding, below 0 how far away, -inf unknown, NaN unscored.

        The channels of ``grades`` are present only for the columns that the search focuses on; without them
        a row that is not a finding gets -inf. Neither batch nor trace can be written into.
        """

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return why ``margins[row, column]`` was > 0."""


@runtime_checkable
class NeedsNoiseFloor(Protocol):
    """Ask, as an objective, how much the model differs from itself in other batches.

    Attributes:
        noise: that difference, in units of its margin.
    """

    noise: float

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Set ``noise`` from what the same rows showed in two different batchings."""


@runtime_checkable
class LooksForSecret(Protocol):
    """Look, as an objective, for a ``secret`` text that the model must have been told."""

    secret: str


@runtime_checkable
class LooksForTokens(Protocol):
    """Look, as an objective, for as many successive ``tokens``."""

    tokens: int


class Bound(Protocol):
    """Keep rows near the seeds that they descend from."""

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """Return the rows, with those that are too far away moved back; all of them stay legal."""


@dataclass(frozen=True)
class SearchContext:
    """Hold what a search is given to work with.

    Attributes:
        space: what a legal row is.
        seeds: the rows to begin with.
        operators: by name; the id of an operator is its position here.
        targets: what the columns of the margins are about.
        corpus: rows that searches keep, the seeds first.
        rng: the only source of randomness.
        sampler: the target, if it can sample continuations.
        bound: how far rows may be from their seeds; None for no bound.
        pool: rows to borrow from; None for the seeds.
        queries: in a campaign per seed, how many rows to run for each at most.
        gradients: of the models, if they have any.
        lexicon: what the model knows about its tokens, if rows are tokens and it says so.
    """

    space: Space
    seeds: Batch
    operators: Mapping[str, Operator]
    targets: tuple[str, ...]
    corpus: "Corpus"
    rng: np.random.Generator
    sampler: Sampler | None = None
    bound: Bound | None = None
    pool: Batch | None = None
    queries: int | None = None
    gradients: Gradients | None = None
    lexicon: Lexicon | None = None


@dataclass(frozen=True)
class SearchTraits:
    """Describe a class of searches.

    Attributes:
        needs: channels that ``tell`` must be given.
        per_seed: whether it searches for each seed by itself; it is then a search.seed_outcomes.TracksSeeds.
        each: how many rows it asks for at once when it is run for each seed by itself.
        covers_hits: whether states of rows that hit count as new.
    """

    needs: frozenset[str] = frozenset()
    per_seed: bool = False
    each: int = 16
    covers_hits: bool = True


class Search(Protocol):
    """Choose which rows to try next, and learn from the answers.

    Attributes:
        traits: what the class is like.
        focus: the columns in which the rows last asked for are to be graded.
    """

    traits: SearchTraits = SearchTraits()
    focus: Sequence[int]

    def ask(self, size: int) -> Batch:
        """Return at most ``size`` rows to try next, seeds first; none when nothing is left to try."""

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn from margins (B, N) and novelty (B,) of the rows last asked for."""

    def state(self) -> State:
        """Return what ``restore`` needs to go on as if never stopped, apart from the corpus."""

    def restore(self, state: State) -> None:
        """Continue from ``state``."""


class Executor(Protocol):
    """Run batches on a target; an error on a single row is returned in the trace."""

    @property
    def executions(self) -> int:
        """Return how many rows were run or sampled so far, for whatever reason."""

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Run as a Target does, and add the channel ``crash`` (B,) of errors, '' if there was none."""


class Archive(Protocol):
    """Remember where rows went."""

    def admit(self, points: FloatArray, where: BoolArray) -> BoolArray:
        """Keep the novel points (B, D) among ``where`` (B,), and return which these are (B,)."""


class Findings(Protocol):
    """Keep what misbehaved; ``rare`` (B,) marks the rows last considered that hit nothing common."""

    rare: BoolArray

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """Confirm the hits of a batch with margins (B, N), and return those that are kept."""
