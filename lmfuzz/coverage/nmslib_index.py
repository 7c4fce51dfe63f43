"""Approximate nearest neighbours by nmslib's HNSW graphs, built in the background.

What nmslib does wrong silently, and what prevents it here:
- points added after createIndex are invisible: a segment is built once and never grows;
- NaN poisons a graph, and a query of the wrong width reads foreign memory: the archive checks both;
- duplicates disconnect a graph, and ``l2`` is squared, in float32: the archive checks every answer;
- graphs built by several threads differ from run to run: there is one thread;
- its import prints on stderr: ``_silent``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np

from lmfuzz.types import FloatArray, IntArray

_LARGEST = 65536  # rows per segment: the process waits for a running build when it exits
_BUILD = {"M": 16, "efConstruction": 100, "post": 0, "indexThreadQty": 1}
_QUERY = {"efSearch": 8}  # found 99.9 % of what was near (d=64); a miss costs time, no decision


@contextmanager
def _silent() -> Iterator[None]:
    """Hide what C++ code writes to stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _silent():
    import nmslib


class Segment:
    """Build a graph of the rows start..stop of the archive; this takes seconds, without the GIL."""

    def __init__(self, points: FloatArray, start: int) -> None:
        self.start, self.stop = start, start + len(points)
        self._graph: Any = nmslib.init(method="hnsw", space="l2")
        rows = np.arange(len(points), dtype=np.int32)
        for first in range(0, len(points), 4096):  # in parts, because copying holds the GIL
            self._graph.addDataPointBatch(points[first : first + 4096], rows[first : first + 4096])
        self._graph.createIndex(_BUILD)
        self._graph.setQueryTimeParams(_QUERY)

    def guess(self, queries: FloatArray) -> IntArray:
        """Return for each query (B, D) the archive's row that is probably its nearest here, int64 (B,)."""
        answers = self._graph.knnQueryBatch(queries, k=1, num_threads=1)
        return np.array([self.start + (ids[0] if len(ids) else 0) for ids, _ in answers], np.int64)


class Segments:
    """Keep graphs of the first ``covered`` rows of the archive, merged by doubling.

    Whenever ``tail`` rows wait, a thread builds a segment of them and of the segments before it that are not
    larger. It is not a daemon thread: one that returns from nmslib while the interpreter shuts down aborts
    the process. So an exit waits for a running build (2 s for 16 384 x 64).
    """

    def __init__(self, tail: int) -> None:
        self.tail = tail
        self.segments: list[Segment] = []
        self._thread: Thread | None = None
        self._built: Segment | None = None

    @property
    def covered(self) -> int:
        """Return how many rows, from the first, have a graph."""
        return self.segments[-1].stop if self.segments else 0

    def follow(self, points: FloatArray) -> None:
        """Add a finished build, and begin one if enough of all rows so far (N, D) wait for it."""
        if self._built is not None:
            self.segments = [s for s in self.segments if s.stop <= self._built.start] + [self._built]
            self._thread = self._built = None
        if self._thread is None and len(points) - self.covered >= self.tail:
            start, stop = self.covered, min(len(points), self.covered + _LARGEST)
            for segment in reversed(self.segments):
                if segment.stop - segment.start > stop - start or stop - segment.start > _LARGEST:
                    break
                start = segment.start
            self._thread = Thread(target=self._build, args=(points[start:stop], start))
            self._thread.start()

    def wait(self) -> None:
        """Wait until no build is running."""
        if self._thread is not None:
            self._thread.join()

    def _build(self, points: FloatArray, start: int) -> None:
        self._built = Segment(points, start)
