"""A changed row is a few pieces one after the other: every operator that moves symbols is built on this.

The front of a row gives way: where a row would get longer than the space allows, the surplus is
dropped from its front, and where it would get too short, random symbols are put in front. What a
language model writes depends most on the text right before it, so the end of a row, with all that a
search has reached there, stays as it is unless an operator means to change it.
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
    """``length`` (B,) symbols from ``start`` (B,) on of each row of ``source`` (B, W)."""

    source: Array
    start: IntArray
    length: IntArray


def below(n: IntArray, rng: np.random.Generator) -> IntArray:
    """One random integer in 0 .. n - 1 for every entry of ``n`` (B,), uniform; 0 where n is 0."""
    drawn: IntArray = (rng.random(len(n)) * n).astype(np.int64)
    return drawn


def places(n: IntArray, rng: np.random.Generator) -> IntArray:
    """One place in 0 .. n - 1 for every entry of ``n`` (B,); 0 where n is 0.

    Half are uniform, half near the end: geometric, 8 symbols on average.
    """
    n = np.maximum(n, 1)
    back = np.minimum(rng.geometric(NEAR_END, len(n)), n)
    drawn: IntArray = np.where(rng.random(len(n)) < 0.5, below(n, rng), n - back)
    return drawn


def spans(lengths: IntArray, longest: int | IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Start (B,) and size (B,) of a span in every row: 1 to ``longest`` symbols, 0 in an empty row."""
    sizes = np.minimum(1 + below(np.minimum(lengths, longest), rng), lengths)
    return places(lengths - sizes + 1, rng), sizes


def concatenate(rows: Batch, pieces: Sequence[Piece], context: MutationContext) -> Batch:
    """The rows made of ``pieces`` in this order, with parent and operator of ``rows``.

    Too long, they lose symbols at the front; too short, they get random ones there.
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
    """All sources as one matrix (B, W), each once, and where in its rows the pieces start (B, K)."""
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
    """The rows with ``piece`` put in the place of ``over`` (B,) symbols from ``at`` (B,) on.

    ``piece`` is no longer than a row may be and stands in the result as a whole: where so much of the
    front would give way that it were cut, ``at`` moves to the right.
    """
    at = np.maximum(at, rows.lengths - over + piece.length - context.text.max_length)
    behind = np.minimum(at + over, rows.lengths)
    head = Piece(rows.data, np.zeros_like(at), at)
    tail = Piece(rows.data, behind, rows.lengths - behind)
    return concatenate(rows, [head, piece, tail], context)


def erase(rows: Batch, at: IntArray, size: IntArray, context: MutationContext) -> Batch:
    """The rows without the ``size`` (B,) symbols from ``at`` (B,) on."""
    behind = at + size
    head = Piece(rows.data, np.zeros_like(at), at)
    return concatenate(rows, [head, Piece(rows.data, behind, rows.lengths - behind)], context)


class PerSpace(Generic[T]):
    """What ``build`` makes of a space, made anew only when the space is another one."""

    def __init__(self, build: Callable[[TextSpace], T]) -> None:
        self._build = build
        self._made: tuple[TextSpace, T] | None = None

    def __call__(self, space: TextSpace) -> T:
        """The thing made for ``space``."""
        if self._made is None or self._made[0] is not space:
            self._made = space, self._build(space)
        return self._made[1]
