"""Recombination with rows of the pool."""

from dataclasses import dataclass

import numpy as np

from lmfuzz.operators.pieces import Piece, concatenate, places
from lmfuzz.protocols import ForTexts, MutationContext
from lmfuzz.types import Batch, IntArray


def borrowed(count: int, context: MutationContext) -> Batch:
    """Return ``count`` rows of the pool, drawn at random."""
    return context.pool[context.rng.integers(len(context.pool), size=count)]


@dataclass(frozen=True)
class Splice(ForTexts):
    """Join the head of a prompt to the tail of one from the pool, or the other way round."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; which way, and where to cut, is drawn for every row."""
        other = borrowed(len(rows), context)
        cut, other_cut = places(rows.lengths, context.rng), places(other.lengths, context.rng)
        first = context.rng.random(len(rows)) < 0.5  # whether a row keeps its head or its tail
        none = np.zeros_like(cut)

        def if_kept(own_head: IntArray, own_tail: IntArray) -> IntArray:
            return np.where(first, own_head, own_tail)

        head = Piece(rows.data, none, if_kept(cut, none))
        theirs = Piece(other.data, if_kept(other_cut, none), if_kept(other.lengths - other_cut, other_cut))
        tail = Piece(rows.data, cut, if_kept(none, rows.lengths - cut))
        return concatenate(rows, [head, theirs, tail], context)
