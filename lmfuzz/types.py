"""The types that flow: rows in batches, and what a run showed of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

Trace = Mapping[str, Array]  # channel -> array with B rows
State = dict[str, Any]  # arrays, numbers, strings, and lists and dictionaries of them

SEED = -1  # the parent and the operator of a row that nobody mutated
PAD = -1  # what stands in the channel `tokens` after the end of an output

CRASH = "crash"  # channel (B,) of str: what the target raised on this row, '' where it did not
OWN = frozenset({"prompt", "origin"})  # channels that need no target


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows as arrays; axis 0 is always the batch.

    data: int32 (B, T) symbols, anything beyond ``lengths`` is padding without meaning; of a box
    float32 (B, ...) values.
    lengths: int32 (B,) valid symbols per row; of a box how many values a row has.
    parent: int64 (B,) corpus id of the row it was made from, SEED for a seed.
    operator: int32 (B,) id of the operator that made it, SEED for a seed.
    origin: int64 (B,) corpus id of the seed that it descends from; of a seed its own.
    """

    data: Array
    lengths: IntArray
    parent: IntArray
    operator: IntArray
    origin: IntArray

    @classmethod
    def of(cls, rows: Sequence[IntArray], parent: int = SEED, operator: int = SEED) -> "Batch":
        """A batch of symbol sequences, padded with zeros to the longest; as seeds, counted from 0."""
        lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
        data = np.zeros((len(rows), int(lengths.max(initial=1))), np.int32)
        for place, row in zip(data, rows, strict=True):
            place[: len(row)] = row
        return cls(
            data, lengths,
            np.full(len(rows), parent, np.int64), np.full(len(rows), operator, np.int32),
            np.arange(len(rows)),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: IntArray | BoolArray | slice | list[int]) -> "Batch":
        """The rows that a mask, ids or a slice select: the only way to take rows."""
        return Batch(
            self.data[rows], self.lengths[rows], self.parent[rows], self.operator[rows], self.origin[rows]
        )

    def changed(self, data: Array, lengths: IntArray | None = None) -> "Batch":
        """The same rows with other content."""
        lengths = self.lengths if lengths is None else lengths
        return Batch(data, lengths, self.parent, self.operator, self.origin)

    def row(self, i: int) -> Array:
        """The content of row ``i``: its valid symbols (lengths[i],), or its values in their shape."""
        content: Array = self.data[i, : self.lengths[i]]
        return content

    def alone(self, i: int) -> "Batch":
        """Row ``i`` as a batch of one without padding."""
        one = self[i : i + 1]
        return replace(one, data=one.data[:, : max(1, int(self.lengths[i]))])


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of all ``batches``, in order, padded to the widest."""
    first = batches[0].data
    width = max(b.data.shape[1] for b in batches)
    data = np.zeros((sum(map(len, batches)), width, *first.shape[2:]), first.dtype)
    start = 0
    for b in batches:
        data[start : start + len(b), : b.data.shape[1]] = b.data
        start += len(b)
    return Batch(
        data,
        np.concatenate([b.lengths for b in batches]),
        np.concatenate([b.parent for b in batches]),
        np.concatenate([b.operator for b in batches]),
        np.concatenate([b.origin for b in batches]),
    )


def take(trace: Trace, rows: IntArray | BoolArray | slice | list[int]) -> Trace:
    """The same channels for some of the rows."""
    return {name: array[rows] for name, array in trace.items()}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a row is a finding: ``signature`` names the behaviour, ``words`` tell a person.

    ``span`` is where the bad part stands in the output text (start, end), when it stands there.
    """

    signature: str
    words: str
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Minimal:
    """The smallest row found that is bad in a finding's bucket: without any one symbol it is not."""

    row: Array
    prompt: str
    output: str
    span: tuple[int, int] | None  # where the bad part stands in the output
    size: int  # symbols, or of a box pixels that differ from the seed
    before: int  # the same of the finding's own row
    failed: int  # of as many re-runs alone as the finding had
    executions: int  # what it cost
    by_text: bool | None = None  # as of a finding


@dataclass(frozen=True, slots=True)
class Finding:
    """A row whose margin was > 0, with what the re-runs alone and unpadded said of it.

    ``failed`` of ``runs`` re-runs failed again: a flaky finding is one with failed < runs.
    """

    objective: str  # the column of the margins, e.g. "phrases/zounds"
    margin: float
    evidence: Evidence
    row: Array  # the prompt that ran, symbols (T,), or the values of a box
    prompt: str
    output: str
    parent: int  # corpus id, SEED for a seed
    operator: int
    execution: int  # how many rows had been run when it was found
    failed: int
    runs: int
    unscored: int = 0  # re-runs that could not be judged
    origin: int = SEED  # corpus id of the seed it descends from
    distance: float = 0.0  # from that seed: edits, or of a box the largest change of a value
    by_text: bool | None = None  # of tokens: whether their text, spelled by the tokenizer, fails, too
    minimal: Minimal | None = None

    @property
    def bucket(self) -> str:
        """Objective and signature: two findings in one bucket are the same behaviour."""
        return f"{self.objective}: {self.evidence.signature}"

    @property
    def reduced(self) -> "Finding":
        """The finding as its minimal row shows it, to be looked at; itself where it has none."""
        if (small := self.minimal) is None:
            return self
        why = replace(self.evidence, span=small.span)
        return replace(self, row=small.row, prompt=small.prompt, output=small.output, evidence=why)

    @property
    def label(self) -> str:
        """``confirmed``, or ``flaky k/n``, with how many re-runs could not be judged."""
        if self.failed == self.runs:
            return "confirmed"
        return f"flaky {self.failed}/{self.runs}" + (f", {self.unscored} unscored" if self.unscored else "")


@dataclass(frozen=True, slots=True)
class Reruns:
    """How many re-runs of a row failed, how many passed, and how many could not be judged."""

    failed: int
    passed: int
    unscored: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn of the loop did; ``points`` are (B, D), ``margins`` (B, N), ``novel`` (B,)."""

    executions: int  # rows the target ran so far
    batch: Batch
    points: FloatArray
    margins: FloatArray
    novel: BoolArray
    findings: list[Finding]


def unknown(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The channels among ``names`` that no channel or family (``phrase_gap/...``) provides."""
    have = set(known)
    families = tuple(name for name in have if name.endswith("/"))
    return sorted(n for n in names if n not in have and not n.startswith(families))
