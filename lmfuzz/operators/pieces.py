"""Rows as concatenated pieces, on which every operator that moves symbols is built.

A row that would get longer than the space allows loses symbols at its front, and one that would get too short
gets random symbols there. What a language model writes depends most on the text right before it. So the end
of a row, with all that a search has reached there, stays as it is unless an operator means to change it.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Array, Batch, IntArray

NEAR_END = 1 / 8  # chance to stop at each step back from the end: 8 symbols on average

T = TypeVar("T")


class Piece(NamedTuple):
    """Represent ``length`` (B,) symbols from ``start`` (B,) on in each row of ``source`` (B, W)."""

    source: Array
    start: IntArray
    length: IntArray


def below(n: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a uniform random integer in 0 .. n - 1 for every entry of ``n`` (B,), 0 if n is 0."""
    return np.asarray(rng.random(len(n)) * n, np.int64)


def places(n: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a random place in 0 .. n - 1 for every entry of ``n`` (B,), 0 if n is 0.

    Half of the places are uniform; the others are near the end: geometric, 8 symbols from it on average.
    """
    n = np.maximum(n, 1)
    back = np.minimum(rng.geometric(NEAR_END, len(n)), n)
    return np.where(rng.random(len(n)) < 0.5, below(n, rng), n - back)


def spans(lengths: IntArray, longest: int | IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return start (B,) and size (B,) of a span per row: 1 to ``longest`` symbols, 0 if it is empty."""
    sizes = np.minimum(1 + below(np.minimum(lengths, longest), rng), lengths)
    return places(lengths - sizes + 1, rng), sizes


def concatenate(rows: Batch, pieces: Sequence[Piece], context: MutationContext) -> Batch:
    """Return rows made of ``pieces`` in this order, with parent and operator of ``rows``.

    Rows that are too long lose symbols at the front; rows that are too short get random ones there.
    """
    lengths = np.array([piece.length for piece in pieces]).T  # (B, K)
    ends = lengths.cumsum(axis=1)
    total = ends[:, -1]
    missing = context.text.min_length - total
    if (most := int(missing.max(initial=0))) > 0:
        fresh = context.text.draw(context.rng, (len(rows), most))
        front = Piece(fresh, np.zeros_like(missing), np.maximum(missing, 0))
        return concatenate(rows, [front, *pieces], context)
    symbols, starts = _side_by_side(pieces)
    surplus = total - context.text.max_length
    if surplus.max(initial=0) > 0:
        surplus = np.maximum(surplus, 0)
        kept = np.minimum(lengths, np.maximum(ends - surplus[:, None], 0))
        starts, lengths, total = starts + (lengths - kept), kept, total - surplus
    starts += np.arange(0, symbols.size, symbols.shape[1])[:, None]
    counts = lengths.ravel()
    index = (starts.ravel() - (counts.cumsum() - counts)).repeat(counts)
    index += np.arange(len(index))
    data = np.zeros((len(rows), int(total.max(initial=1))), np.int32)
    data[np.arange(data.shape[1]) < total[:, None]] = symbols.ravel()[index]
    return rows.changed(data, total.astype(np.int32))


def _side_by_side(pieces: Sequence[Piece]) -> tuple[Array, IntArray]:
    """Return all sources in one matrix (B, W), each once, and where the pieces start in it (B, K)."""
    sources: list[Array] = []
    offsets: dict[int, int] = {}
    width = 0
    for piece in pieces:
        if id(piece.source) not in offsets:
            offsets[id(piece.source)] = width
            width += piece.source.shape[1]
            sources.append(piece.source)
    starts = np.array([piece.start + offsets[id(piece.source)] for piece in pieces], np.int64).T
    return sources[0] if len(sources) == 1 else np.concatenate(sources, axis=1), starts


def put(rows: Batch, at: IntArray, over: IntArray, piece: Piece, context: MutationContext) -> Batch:
    """Return the rows with ``piece`` in place of ``over`` (B,) symbols from ``at`` (B,) on.

    ``piece`` must not be longer than a row may be. It is never cut: if a row gets so long that its front
    would lose part of the piece, ``at`` moves to the right.
    """
    at = np.maximum(at, rows.lengths - over + piece.length - context.text.max_length)
    after = np.minimum(at + over, rows.lengths)
    head = Piece(rows.data, np.zeros_like(at), at)
    tail = Piece(rows.data, after, rows.lengths - after)
    return concatenate(rows, [head, piece, tail], context)


def erase(rows: Batch, at: IntArray, size: IntArray, context: MutationContext) -> Batch:
    """Return the rows without the ``size`` (B,) symbols from ``at`` (B,) on."""
    return put(rows, at, size, Piece(rows.data, at, np.zeros_like(at)), context)


class PerSpace(Generic[T]):
    """Keep what ``build`` makes of a space, until it is asked for another space."""

    def __init__(self, build: Callable[[TextSpace], T]) -> None:
        self._build = build
        self._made: tuple[TextSpace, T] | None = None

    def __call__(self, space: TextSpace) -> T:
        """Return what was made of ``space``."""
        if self._made is None or self._made[0] is not space:
            self._made = space, self._build(space)
        return self._made[1]
