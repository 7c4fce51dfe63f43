"""Data that the parts of a campaign pass to one another: batches of rows, traces, findings, steps."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

Trace = Mapping[str, Array]  # channel -> array with B rows
Alphabet = str | Sequence[str] | Mapping[str, int] | Mapping[int, str]  # the text of each symbol
State = dict[str, Any]  # arrays, numbers, strings, and lists and dictionaries of them

T = TypeVar("T")

NAME = 200  # characters of the name of a behaviour, at most
SEED = -1  # parent and operator of a row that no operator made
MOST = 2**53  # what is counted stays below this
PAD = -1  # fills the channel `tokens` after the end of an output

CRASH = "crash"  # channel (B,) of str: what the target raised on this row, '' if it raised nothing
STEPS = frozenset({"tokens", "entropy", "logprob", "hidden_steps"})  # channels (B, T, ...) of T steps
OWN = frozenset({"prompt", "lead", "origin"})  # channels that lmfuzz itself provides


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold B rows as arrays; axis 0 is always the batch.

    Attributes:
        data: int32 (B, T) symbols, padded beyond ``lengths`` with anything; in a box float32 (B, ...) values.
        lengths: int32 (B,) valid symbols per row; in a box the number of values per row.
        parent: int64 (B,) corpus id of the row that each was made from, SEED for a seed.
        operator: int32 (B,) id of the operator that made it, SEED for a seed.
        origin: int64 (B,) corpus id of the seed that it descends from; a seed has its own.
    """

    data: Array
    lengths: IntArray
    parent: IntArray
    operator: IntArray
    origin: IntArray

    @classmethod
    def of(cls, rows: Sequence[IntArray], parent: int = SEED, operator: int = SEED) -> "Batch":
        """Return symbol sequences as a batch, padded with zeros to the longest; origins count from 0."""
        count = len(rows)
        lengths = np.fromiter((len(row) for row in rows), np.int32, count)
        data = np.zeros((count, int(lengths.max(initial=1))), np.int32)
        for place, row in zip(data, rows, strict=True):
            place[: len(row)] = row
        made_by = np.full(count, parent, np.int64), np.full(count, operator, np.int32)
        return cls(data, lengths, *made_by, np.arange(count))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: IntArray | BoolArray | slice | list[int]) -> "Batch":
        """Return the rows that a mask, ids or a slice select."""
        return Batch(*(getattr(self, name)[rows] for name in self.__slots__))

    def changed(self, data: Array, lengths: IntArray | None = None) -> "Batch":
        """Return the same rows with other content."""
        return replace(self, data=data, lengths=self.lengths if lengths is None else lengths)

    def copy(self) -> "Batch":
        """Return the same rows in arrays of their own, for those who may write into them."""
        return Batch(*(getattr(self, name).copy() for name in self.__slots__))

    def shown(self) -> "Batch":
        """Return the same rows in arrays that cannot be written into."""
        return Batch(*(read_only(getattr(self, name)) for name in self.__slots__))

    def row(self, i: int) -> Array:
        """Return the content of row ``i``: its valid symbols (lengths[i],), or its values (*shape)."""
        return np.asarray(self.data[i, : self.lengths[i]])

    def alone(self, i: int) -> "Batch":
        """Return row ``i`` as a batch of one without padding."""
        one = self[i : i + 1]
        return replace(one, data=one.data[:, : max(1, int(self.lengths[i]))])


def read_only(array: Array) -> Array:
    """Return a view of an array that cannot be written into."""
    view = array.view()
    view.flags.writeable = False
    return view


def join(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all ``batches``, in order, padded to the widest."""
    first = batches[0].data
    width = max(b.data.shape[1] for b in batches)
    data = np.zeros((sum(map(len, batches)), width, *first.shape[2:]), first.dtype)
    start = 0
    for b in batches:
        data[start : start + len(b), : b.data.shape[1]] = b.data
        start += len(b)
    others = Batch.__slots__[1:]
    return Batch(data, *(np.concatenate([getattr(b, name) for b in batches]) for name in others))


def take(trace: Trace, rows: IntArray | BoolArray | slice | list[int]) -> Trace:
    """Return the same channels for some of the rows."""
    return {name: array[rows] for name, array in trace.items()}


def blank(array: Array, *shape: int) -> Array:
    """Return an array of this shape, and of the dtype of ``array``, that holds nothing: NaN, PAD or ''."""
    fill = {"f": np.nan, "i": PAD, "O": "", "U": "", "b": False}[array.dtype.kind]
    return np.full(shape, fill, dtype=array.dtype)


def stack(arrays: Sequence[Array]) -> Array:
    """Return the rows of all arrays of one channel; outputs of fewer steps (axis 1) are padded."""
    if arrays[0].ndim > 1:
        steps = max(a.shape[1] for a in arrays)
        short = [(a, (len(a), steps - a.shape[1], *a.shape[2:])) for a in arrays]
        arrays = [np.concatenate([a, blank(a, *rest)], axis=1) if rest[1] else a for a, rest in short]
    return np.concatenate(arrays)


def per_row(values: Array, dimensions: int) -> Array:
    """Return one value per row (B,) as (B, 1, ..., 1), to be combined with arrays of ``dimensions`` axes."""
    return values.reshape(-1, *[1] * (dimensions - 1))


class Resumable:
    """Save and restore the attributes that ``kept`` names.

    Attributes:
        kept: names of attributes; the key of one is its name without a leading underscore.
        stored_as: the keys of attributes that were stored under another name before.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    stored_as: ClassVar[Mapping[str, str]] = {}

    def state(self) -> State:
        """Return the values of the kept attributes."""
        return {self._key(name): _saved(getattr(self, name)) for name in self.kept}

    def restore(self, state: State) -> None:
        """Continue from what ``state`` returned."""
        for name in self.kept:
            setattr(self, name, _restored(getattr(self, name), state[self._key(name)]))

    def _key(self, name: str) -> str:
        return self.stored_as.get(name, name.removeprefix("_"))


def _saved(value: Any) -> Any:
    if isinstance(value, Batch):
        return {name: getattr(value, name) for name in Batch.__slots__}
    if isinstance(value, list):
        return [_saved(one) for one in value]
    return value.state() if isinstance(value, Resumable) else value


def _restored(now: Any, saved: Any) -> Any:
    """Return the value for an attribute that is ``now`` something of the same type as the one saved."""
    if isinstance(now, Batch):
        return _rows(saved) if saved else now
    if isinstance(now, Resumable):
        if saved:
            now.restore(saved)
        return now
    if isinstance(now, list) and any(isinstance(one, Resumable) for one in now):
        if not all(saved):
            raise ValueError("a part of the search has no state")
        return [_restored(*pair) for pair in zip(now, saved, strict=True)]
    return deepcopy(alike(now, saved))


def _rows(saved: Any) -> Batch:
    rows = Batch(**deepcopy(saved))
    many, width = rows.data.shape[:2]
    for name in Batch.__slots__[1:]:
        alike(np.zeros(many, np.int64), getattr(rows, name))
    if rows.data.ndim == 2 and many and rows.lengths.max() > width:
        raise ValueError("a row is longer than the rows that were saved")
    return rows


def alike(now: T, saved: Any) -> T:
    """Return a saved value as it is; raise ValueError unless it may replace ``now``.

    It may if it is of the same type and shape, whole numbers are counts, ids or SEED, and numbers are not
    NaN. Axes of ``now`` that are empty can have any length; an empty list is one of ids.
    """
    if isinstance(now, np.ndarray):
        right = isinstance(saved, np.ndarray) and (saved.dtype.kind, saved.ndim) == (now.dtype.kind, now.ndim)
        right = right and all(a in (0, b) for a, b in zip(now.shape, saved.shape, strict=True))
        if right and now.dtype.kind == "i" and saved.size:
            right = bool(saved.min() >= -1 and saved.max() < MOST)
    elif isinstance(now, list):
        right = isinstance(saved, list) and all(type(one) is int and 0 <= one < MOST for one in saved)
    elif isinstance(now, dict):
        right = isinstance(saved, dict) and saved.keys() == now.keys()
        right = right and all(alike(now[key], one) is one for key, one in saved.items())
    elif isinstance(now, float):
        right = type(saved) in (int, float) and saved == saved
    else:
        right = type(saved) is type(now) and (not isinstance(saved, int) or -1 <= saved < MOST)
    if not right:
        raise ValueError(f"{saved!r:.60} is stored in place of {now!r:.60}")
    return saved


@dataclass(frozen=True, slots=True)
class Evidence:
    """Say why a row is a finding.

    Attributes:
        signature: names the behaviour, the same for all findings that show it; cut at NAME characters.
        words: the sentence that a person reads.
        span: start and end of the bad part in the output text, if it is there.
        variant: tells apart findings that show one behaviour, such as the word that is repeated; '' if
            nothing does. It is cut as the signature is.
    """

    signature: str
    words: str
    span: tuple[int, int] | None = None
    variant: str = ""

    def __post_init__(self) -> None:
        for field in ("signature", "variant"):
            name = getattr(self, field)
            if isinstance(name, str) and len(name) > NAME:  # others are refused where they are asked for
                digest = f"...#{crc32(name.encode('utf-8', 'surrogatepass')):08x}"  # of what begins alike
                object.__setattr__(self, field, name[: NAME - len(digest)] + digest)

    def same(self, other: "Evidence") -> bool:
        """Return whether both show the same variant of a behaviour; in 0.3.0 one text named both."""
        mine, theirs = self._names(), other._names()
        if bool(self.variant) == bool(other.variant):
            return mine[0] == theirs[0]
        return bool({*mine} & {*theirs})

    def _names(self) -> list[bytes]:
        """The names of what it shows, as a database holds them."""
        both = [f"{self.signature} {self.variant}", self.variant] if self.variant else [self.signature]
        return [name.encode("utf-8", "backslashreplace") for name in both]


@dataclass(frozen=True, slots=True)
class Minimal:
    """Hold the smallest row found that stays in a finding's bucket: without any one symbol it does not.

    Attributes:
        row: its symbols (T,), or its values.
        prompt: its text.
        output: what the target wrote after it.
        span: start and end of the bad part in the output, if it is there.
        size: its symbols, or in a box the pixels that differ from the seed.
        before: the size of the finding's own row.
        failed: how many re-runs failed, out of as many as the finding had.
        executions: how many rows were run to find it.
        by_text: as for Finding.
    """

    row: Array
    prompt: str
    output: str
    span: tuple[int, int] | None
    size: int
    before: int
    failed: int
    executions: int
    by_text: bool | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold a row with a margin above 0, and how it fared when it was run again, alone and unpadded.

    Attributes:
        objective: the column of the margins, e.g. "phrases/zounds".
        margin: the margin at which it was found, above 0.
        evidence: why it is a finding.
        row: the prompt that ran, symbols (T,), or the values of a box.
        prompt: its text.
        output: what the target wrote after it.
        parent: corpus id, SEED for a seed.
        operator: id of the operator that made the row, SEED for a seed.
        execution: how many rows had been run when it was found.
        failed: how many of the re-runs failed again; a flaky finding has fewer than ``runs``.
        runs: how often it was run again.
        unscored: how many re-runs could not be judged.
        origin: corpus id of the seed that it descends from.
        distance: from that seed, in edits, or in a box the largest change of a value.
        by_text: whether its text fails too when the tokenizer encodes it; None unless rows are tokens.
        minimal: the finding after shrinking.
    """

    objective: str
    margin: float
    evidence: Evidence
    row: Array
    prompt: str
    output: str
    parent: int
    operator: int
    execution: int
    failed: int
    runs: int
    unscored: int = 0
    origin: int = SEED
    distance: float = 0.0
    by_text: bool | None = None
    minimal: Minimal | None = None

    @property
    def bucket(self) -> str:
        """Return objective and signature: two findings in one bucket show the same behaviour."""
        return f"{self.objective}: {self.evidence.signature}"

    @property
    def reduced(self) -> "Finding":
        """Return the finding with its minimal row in place of its own, or itself if it has none."""
        if (small := self.minimal) is None:
            return self
        why = replace(self.evidence, span=small.span)
        return replace(self, row=small.row, prompt=small.prompt, output=small.output, evidence=why)

    @property
    def label(self) -> str:
        """Return ``confirmed``, or ``flaky k/n`` with the number of re-runs that could not be judged."""
        if self.failed == self.runs:
            return "confirmed"
        return f"flaky {self.failed}/{self.runs}" + (f", {self.unscored} unscored" if self.unscored else "")


@dataclass(frozen=True, slots=True)
class Reruns:
    """Count how many re-runs of a row failed, how many passed, and how many could not be judged."""

    failed: int
    passed: int
    unscored: int


@dataclass(frozen=True, slots=True)
class Step:
    """Record one turn of the loop.

    Attributes:
        executions: rows that the target has run so far.
        batch: the B rows of this turn.
        points: float32 (B, D), where in state space they went.
        margins: float32 (B, N), one column per objective target.
        novel: bool (B,), which of the points were new.
        findings: the hits that were kept.
    """

    executions: int
    batch: Batch
    points: FloatArray
    margins: FloatArray
    novel: BoolArray
    findings: list[Finding]


def unknown(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the channels among ``names`` that no ``known`` channel or family (``phrase_gap/``) provides."""
    have = set(known)
    families = tuple(name for name in have if name.endswith("/"))
    return sorted(n for n in names if n not in have and not n.startswith(families))
