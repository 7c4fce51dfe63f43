"""What the parts of a campaign promise one another.

What only some targets can do is a protocol of its own, asked for with ``isinstance``. If only some objects of
a class can, the class does not define the method; each object has it as an attribute, or None for it, which
``isinstance`` takes for not having it.
"""

from collections.abc import Mapping, Sequence
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
    """What a target says of itself.

    notes: lines for a person. seeds: the bundled prompts that suit it, None: the usual ones. sparing: whether
    each row costs much, so that a campaign calibrates with few. told: what the model is told with every
    prompt; None where that is not known.
    """

    notes: tuple[str, ...] = ()
    seeds: str | None = None
    sparing: bool = False
    told: str | None = None


class PlainTarget(Protocol):
    """A model under test behind one verb: all that a target of one's own must have."""

    channels: frozenset[str]  # what it can show; "phrase_gap/" is a family that takes an argument
    identity: str  # hash of weights, alphabet and decoding: findings name it

    @property
    def space(self) -> Space:
        """What a legal row is; operators see this, never the model."""

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""


@runtime_checkable
class Target(PlainTarget, Protocol):
    """A model under test, as a campaign gets it."""

    @property
    def info(self) -> TargetInfo:
        """What it says of itself."""


@runtime_checkable
class Sampler(Protocol):
    """A target that can also write on by itself, for operators that borrow its style."""

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """``new`` symbols int32 (B, new), drawn from the model after each row."""


class Lexicon(Protocol):
    """What a model knows of its tokens, for operators that go by their meaning."""

    @property
    def rare(self) -> IntArray:
        """Tokens int32 (N,) that it hardly saw in training, at least one."""

    def neighbours(self, symbols: IntArray, count: int) -> IntArray:
        """The ``count`` tokens most like each of ``symbols`` (B,), int32 (B, count), the nearest first."""


@runtime_checkable
class HasLexicon(Protocol):
    """A target that knows its tokens."""

    @property
    def lexicon(self) -> Lexicon:
        """What it knows of them."""


@runtime_checkable
class Classifier(Protocol):
    """A target whose rows get one of K labels."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the labels, (K,)."""


@runtime_checkable
class Differentiable(Protocol):
    """A classifier that knows which change of a row would change its label."""

    def margin_gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """As Gradients."""


@dataclass(frozen=True)
class MutationContext:
    """What an operator may use besides the rows it changes."""

    space: Space
    pool: Batch  # other rows to borrow from: seeds and corpus, at least one
    rng: np.random.Generator
    sampler: Sampler | None = None
    lexicon: Lexicon | None = None

    @property
    def text(self) -> TextSpace:
        """The space of an operator that changes symbols; UsageError where rows are numbers."""
        if isinstance(self.space, TextSpace):
            return self.space
        raise UsageError("an operator on symbols cannot change rows of numbers; take others with --operator")

    @property
    def box(self) -> BoxSpace:
        """The space of an operator that changes numbers; UsageError where rows are texts."""
        if isinstance(self.space, BoxSpace):
            return self.space
        raise UsageError("an operator on numbers cannot change texts; take others with --operator")


class ForTexts:
    """A base of operators on texts, and of objectives that judge texts alone."""

    rows: ClassVar[Rows] = "text"


class ForTokens:
    """A base of operators on texts whose symbols are tokens."""

    rows: ClassVar[Rows] = "tokens"


class ForKnownTokens(ForTokens):
    """A base of operators that go by what a model knows of its tokens, the lexicon of a MutationContext."""

    needs_lexicon: ClassVar[bool] = True


class ForBoxes:
    """A base of operators on rows of numbers, images among them."""

    rows: ClassVar[Rows] = "box"


class ForImages:
    """A base of operators on images."""

    rows: ClassVar[Rows] = "image"


class Operator(Protocol):
    """One way to change a row.

    A class of operators says as its attribute ``rows`` for which they are; what does not is for all.
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``, all of them legal, in the same order and number."""


class Feature(Protocol):
    """Where in state space did each row go? See FixesRadius."""

    needs: frozenset[str]

    def fit(self, trace: Trace) -> None:
        """Learn from what the seeds showed (means, centroids ...); called once, before any call."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Points float32 (B, D); a row that is not finite gets a point that is not finite."""


@runtime_checkable
class FixesRadius(Protocol):
    """A feature that says how far apart states are, unless its radius is None: then it is calibrated."""

    radius: float | None


class Objective(Protocol):
    """Did a row misbehave, or how far from it was it?

    What users give need not have more than ``__call__``: see objectives.detectors. One that can judge texts
    alone is ForTexts; see also NeedsNoiseFloor, LooksForSecret and LooksForTokens.
    """

    needs: frozenset[str]  # channels to judge by, always there
    targets: tuple[str, ...]  # what each column of the margins is about; N of them
    grades: tuple[frozenset[str], ...]  # per column, channels that only say how far away a row is

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, N): > 0 is a finding, below 0 how far away, -inf unknown, NaN unscored.

        The channels of ``grades`` are there only for the columns that the search focuses on; without
        them a row that is no finding is -inf.
        """

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Why ``margins[row, column]`` was > 0."""


@runtime_checkable
class NeedsNoiseFloor(Protocol):
    """An objective that must know how much the model differs from itself in other batches."""

    noise: float  # in units of its margin

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Learn ``noise`` from what the same rows showed in two batchings."""


@runtime_checkable
class LooksForSecret(Protocol):
    """An objective that looks for a text which the model must have been told."""

    secret: str


@runtime_checkable
class LooksForTokens(Protocol):
    """An objective that looks for so many tokens in a row."""

    tokens: int


class Gradients(Protocol):
    """How sure a classifier is of a label, and which change of its input would change that most."""

    def __call__(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """Of log p[label] - the largest other log p: its value (B,) and gradient (B, *shape); of a pair both
        models' summed.
        """


class Bound(Protocol):
    """How far a row may be from the seed it descends from."""

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """The rows, those that are too far away moved back within reach; all of them stay legal."""


@dataclass(frozen=True)
class SearchContext:
    """What a search is given to work with."""

    space: Space
    seeds: Batch
    operators: Mapping[str, Operator]  # ids of operators are positions in this mapping
    targets: tuple[str, ...]  # the columns of the margins it will be told
    corpus: "Corpus"
    rng: np.random.Generator
    sampler: Sampler | None = None
    bound: Bound | None = None  # None: legal rows may be anywhere
    pool: Batch | None = None  # rows to borrow from; None: the seeds
    queries: int | None = None  # in a campaign per seed: rows to run for each seed at most
    gradients: "Gradients | None" = None  # None: the models have none
    lexicon: Lexicon | None = None  # None: rows are no tokens, or nobody knows about them


@dataclass(frozen=True)
class SearchTraits:
    """What a class of searches says of itself.

    Args:
        needs: channels that it must be told.
        per_seed: whether it searches for each seed by itself; it then is a search.adapt.TracksSeeds.
        each: how many rows it wants at once where it is run for each seed by itself.
    """

    needs: frozenset[str] = frozenset()
    per_seed: bool = False
    each: int = 16


class Search(Protocol):
    """The strategy: which rows to try next, what to learn from the answers."""

    traits: SearchTraits = SearchTraits()
    focus: Sequence[int]  # the columns whose distances it wants to know of the rows last asked for

    def ask(self, size: int) -> Batch:
        """At most ``size`` rows to try next (seeds first); none when nothing is left to try."""

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn from margins (B, N) and novelty (B,) of the rows last asked for."""

    def state(self) -> State:
        """All that ``restore`` needs to go on as if never stopped, rows in the corpus aside."""

    def restore(self, state: State) -> None:
        """Go on from ``state``."""


class Executor(Protocol):
    """Runs batches on a target; what goes wrong on single rows comes back in the trace."""

    @property
    def executions(self) -> int:
        """Rows run or sampled so far, for whatever reason."""

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """As Target.run, with the channel ``crash`` (B,) of error texts, '' where there was none."""


class Archive(Protocol):
    """Remembers where rows went."""

    def admit(self, points: FloatArray, where: BoolArray) -> BoolArray:
        """Which of the points (B, D) are novel (B,); those among ``where`` (B,) are kept."""


class Findings(Protocol):
    """Keeps what misbehaved."""

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """The hits of a batch that are kept, each confirmed; margins are (B, N)."""
