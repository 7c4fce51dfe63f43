"""The rows a search keeps, by id, each with the row and the operator it came from."""

import numpy as np

from lmfuzz.inputs.spaces import Space
from lmfuzz.types import Array, Batch, IntArray


class Corpus:
    """A growing table of rows of a ``space``: id i was the i-th row added.

    An id, once given, always names the same row.
    """

    def __init__(self, space: Space) -> None:
        self._rows = Batch(
            space.empty(256), np.zeros(256, np.int32), np.zeros(256, np.int64), np.zeros(256, np.int32),
            np.zeros(256, np.int64),
        )  # fmt: skip
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Batch) -> IntArray:
        """Keep all rows of ``batch``; their ids int64 (B,)."""
        start, stop = self._size, self._size + len(batch)
        while stop > len(self._rows):
            self._rows = _doubled(self._rows)
        width = batch.data.shape[1]
        self._rows.data[start:stop, :width] = batch.data
        for name in ("lengths", "parent", "operator", "origin"):
            getattr(self._rows, name)[start:stop] = getattr(batch, name)
        self._size = stop
        return np.arange(start, stop, dtype=np.int64)

    def __getitem__(self, ids: IntArray | slice) -> Batch:
        """The rows with these ids, each with its own parent, operator and origin."""
        return self._rows[: self._size][ids]

    def parents(self, ids: IntArray) -> Batch:
        """The rows with these ids, to be mutated: their ``parent`` is their own id."""
        rows = self[ids]
        return Batch(rows.data, rows.lengths, np.asarray(ids, np.int64), rows.operator, rows.origin)


def lineage(parents: IntArray, row: int) -> list[int]:
    """The ids from a seed to ``row``, by the parents (N,) of all rows; none when it is SEED."""
    path = []
    while row >= 0:
        path.append(row)
        row = int(parents[row])
    return path[::-1]


def _doubled(rows: Batch) -> Batch:
    def twice(array: Array) -> Array:
        return np.concatenate([array, np.zeros_like(array)])

    return Batch(*(twice(getattr(rows, name)) for name in Batch.__slots__))
