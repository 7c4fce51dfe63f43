"""What the parts of a campaign promise one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lmfuzz.types import Batch, BoolArray, Evidence, FloatArray, IntArray, State, TextSpace, Trace

if TYPE_CHECKING:
    from lmfuzz.corpus import Corpus


class Target(Protocol):
    """A model under test behind one verb."""

    space: TextSpace  # what a legal row is; operators see this, never the model
    channels: frozenset[str]  # what it can show; "phrase_gap/" is a family that takes an argument
    identity: str  # hash of weights, alphabet and decoding: findings name it

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""


class Sampler(Protocol):
    """A target that can also write on by itself, for operators that borrow its style."""

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """``new`` symbols int32 (B, new), drawn from the model after each row."""


@dataclass(frozen=True)
class Surroundings:
    """What an operator may use besides the rows it changes."""

    space: TextSpace
    pool: Batch  # other rows to borrow from: seeds and corpus, at least one
    rng: np.random.Generator
    sampler: Sampler | None = None


class Operator(Protocol):
    """One way to change a row."""

    def __call__(self, rows: Batch, near: Surroundings) -> Batch:
        """Changed copies of ``rows``, all of them legal, in the same order and number."""


class Feature(Protocol):
    """Where in state space did each row go?"""

    needs: frozenset[str]

    def fit(self, trace: Trace) -> None:
        """Learn from what the seeds showed (means, centroids ...); called once, before any call."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Points float32 (B, D); a row that is not finite gets a point that is not finite."""


class Objective(Protocol):
    """Did a row misbehave, or how far from it was it?"""

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


@dataclass(frozen=True)
class Setting:
    """What a search is given to work with."""

    space: TextSpace
    seeds: Batch
    operators: Mapping[str, Operator]  # ids of operators are positions in this mapping
    targets: tuple[str, ...]  # the columns of the margins it will be told
    corpus: "Corpus"
    rng: np.random.Generator
    sampler: Sampler | None = None


class Search(Protocol):
    """The strategy: which rows to try next, what to learn from the answers."""

    focus: Sequence[int]  # the columns whose distances it wants to know of the rows last asked for

    def ask(self, size: int) -> Batch:
        """``size`` rows to try next (seeds first)."""

    def tell(self, batch: Batch, trace: Trace, margins: FloatArray, novel: BoolArray) -> None:
        """Learn from margins (B, N) and novelty (B,) of the rows last asked for."""

    def state(self) -> State:
        """All that ``restore`` needs to go on as if never stopped, rows in the corpus aside."""

    def restore(self, state: State) -> None:
        """Go on from ``state``."""


class Executor(Protocol):
    """Runs batches on a target; what goes wrong on single rows comes back in the trace."""

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """As Target.run, with the channel ``crash`` (B,) of error texts, '' where there was none."""
