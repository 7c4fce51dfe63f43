"""The types that flow: rows in batches, what a run showed of them, and what a legal row is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lmfuzz.errors import UsageError

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

Trace = Mapping[str, Array]  # channel -> array with B rows
State = dict[str, Any]  # arrays, numbers, strings, and lists and dictionaries of them

SEED = -1  # the parent and the operator of a row that nobody mutated
PAD = -1  # what stands in the channel `tokens` after the end of an output


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows as arrays; axis 0 is always the batch.

    data: int32 (B, T) symbols, anything beyond ``lengths`` is padding without meaning.
    lengths: int32 (B,) valid symbols per row.
    parent: int64 (B,) corpus id of the row it was made from, SEED for a seed.
    operator: int32 (B,) id of the operator that made it, SEED for a seed.
    """

    data: Array
    lengths: IntArray
    parent: IntArray
    operator: IntArray

    @classmethod
    def of(cls, rows: Sequence[IntArray], parent: int = SEED, operator: int = SEED) -> "Batch":
        """A batch of symbol sequences, padded with zeros to the longest."""
        lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
        data = np.zeros((len(rows), int(lengths.max(initial=1))), np.int32)
        for place, row in zip(data, rows, strict=True):
            place[: len(row)] = row
        return cls(
            data, lengths,
            np.full(len(rows), parent, np.int64), np.full(len(rows), operator, np.int32),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: IntArray | BoolArray | slice | list[int]) -> "Batch":
        """The rows that a mask, ids or a slice select: the only way to take rows."""
        return Batch(self.data[rows], self.lengths[rows], self.parent[rows], self.operator[rows])

    def row(self, i: int) -> IntArray:
        """The valid symbols of row ``i`` (lengths[i],)."""
        symbols: IntArray = self.data[i, : self.lengths[i]]
        return symbols

    def alone(self, i: int) -> "Batch":
        """Row ``i`` as a batch of one without padding."""
        one = self[i : i + 1]
        return replace(one, data=one.data[:, : max(1, int(self.lengths[i]))])


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of all ``batches``, in order, padded to the widest."""
    data = np.zeros((sum(map(len, batches)), max(b.data.shape[1] for b in batches)), batches[0].data.dtype)
    start = 0
    for b in batches:
        data[start : start + len(b), : b.data.shape[1]] = b.data
        start += len(b)
    return Batch(
        data,
        np.concatenate([b.lengths for b in batches]),
        np.concatenate([b.parent for b in batches]),
        np.concatenate([b.operator for b in batches]),
    )


def take(trace: Trace, rows: IntArray | BoolArray | slice | list[int]) -> Trace:
    """The same channels for some of the rows."""
    return {name: array[rows] for name, array in trace.items()}


@dataclass(frozen=True)
class TextSpace:
    """Legal rows of a text model: ``min_length`` to ``max_length`` symbols out of ``symbols``.

    ``symbols[i]`` is the text of symbol i: one character each for a character model.
    """

    symbols: tuple[str, ...]
    min_length: int = 1
    max_length: int = 64

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.symbols)}

    @cached_property
    def _texts(self) -> Array:
        return np.array(self.symbols, dtype=object)

    @cached_property
    def _letters(self) -> Array | None:
        """The code points uint32 (V,) of symbols that are one character each; None where some are not."""
        single = all(len(text) == 1 for text in self.symbols)
        return np.array([ord(text) for text in self.symbols], np.uint32) if single else None

    def encode(self, text: str) -> IntArray:
        """The symbols int32 (N,) of ``text``; UsageError when a character is not in the alphabet."""
        try:
            return np.fromiter((self._ids[c] for c in text), np.int32, len(text))
        except KeyError as error:
            raise UsageError(f"character {error.args[0]!r} is not in the model's alphabet") from None

    def knows(self, text: str) -> bool:
        """Whether every character of ``text`` is a symbol."""
        return all(c in self._ids for c in text)

    def decode(self, symbols: IntArray) -> str:
        """The text of symbols (N,); PAD and all behind it is left out."""
        stop = np.flatnonzero(symbols == PAD)
        return "".join(self._texts[symbols[: stop[0]] if len(stop) else symbols])

    def texts(self, batch: Batch) -> list[str]:
        """The text of every row."""
        return self.decode_rows(batch.data, batch.lengths)

    def decode_rows(self, data: IntArray, lengths: IntArray) -> list[str]:
        """The texts of rows of symbols (B, T), of which ``lengths`` (B,) are valid."""
        if self._letters is None:
            return [self.decode(row[:n]) for row, n in zip(data, lengths.tolist(), strict=True)]
        width = data.shape[1]
        inside = np.where(np.arange(width) < lengths[:, None], data, 0)
        whole = (
            self._letters[inside].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        )  # all rows at once: 10 times as fast
        return [whole[i * width : i * width + n] for i, n in enumerate(lengths.tolist())]

    def legal(self, batch: Batch) -> BoolArray:
        """Which rows (B,) are inside the space."""
        fits = (batch.lengths >= self.min_length) & (batch.lengths <= self.max_length)
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        known = (batch.data >= 0) & (batch.data < len(self.symbols))
        legal: BoolArray = fits & (known | ~valid).all(axis=1)
        return legal


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a row is a finding: ``signature`` names the behaviour, ``words`` tell a person.

    ``span`` is where the bad part stands in the output text (start, end), when it stands there.
    """

    signature: str
    words: str
    span: tuple[int, int] | None = None


def unknown(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The channels among ``names`` that no channel or family (``phrase_gap/...``) provides."""
    have = set(known)
    return sorted(n for n in names if n not in have and n.split("/", 1)[0] + "/" not in have)
