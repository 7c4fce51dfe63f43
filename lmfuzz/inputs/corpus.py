"""The rows a search keeps, by id, each with its parent and the operator that made it."""

from dataclasses import replace

import numpy as np

from lmfuzz.inputs.spaces import Space
from lmfuzz.types import Batch, IntArray, join


class Corpus:
    """Hold a growing table of rows of a ``space``: id i is the i-th row that was added.

    An id, once given, always names the same row.
    """

    def __init__(self, space: Space) -> None:
        self._space, self._size = space, 0
        self._rows = self._blank(256)

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Batch) -> IntArray:
        """Keep all rows of ``batch`` and return their ids int64 (B,)."""
        start, stop = self._size, self._size + len(batch)
        while stop > len(self._rows):
            self._rows = join([self._rows, self._blank(len(self._rows))])
        width = batch.data.shape[1]
        self._rows.data[start:stop, :width] = batch.data
        for name in ("lengths", "parent", "operator", "origin"):
            getattr(self._rows, name)[start:stop] = getattr(batch, name)
        self._size = stop
        return np.arange(start, stop, dtype=np.int64)

    def __getitem__(self, ids: IntArray | slice) -> Batch:
        """Return the rows with these ids, each with its own parent, operator and origin."""
        return self._rows[: self._size][ids]

    def parents(self, ids: IntArray) -> Batch:
        """Return the rows with these ids as parents of others: their ``parent`` is their own id."""
        return replace(self[ids], parent=np.asarray(ids, np.int64))

    def _blank(self, count: int) -> Batch:
        return self._space.batch(self._space.empty(count))


def lineage(parents: IntArray, row: int) -> list[int]:
    """Return the ids from a seed to ``row``, by the parents (N,) of all rows; none when it is SEED."""
    path = []
    while row >= 0:
        path.append(row)
        row = int(parents[row])
    return path[::-1]
