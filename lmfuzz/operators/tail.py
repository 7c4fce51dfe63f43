"""Letting the model itself write the end of a row."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.operators.pieces import Piece, below, concatenate
from lmfuzz.operators.splice import borrowed
from lmfuzz.plugins.bounds import Fraction
from lmfuzz.protocols import ForTexts, MutationContext
from lmfuzz.types import Batch


@dataclass(frozen=True)
class Tail(ForTexts):
    """Keeps the head of a row and lets the model write its tail, up to ``share`` of the row, anew.

    The tail is drawn at ``temperature``; the row keeps its length (one of a single symbol gets a second).
    A target that cannot write on by itself has no sampler: the tail is then the end of a pool row.
    """

    temperature: Annotated[float, Field(gt=0)] = 0.8
    share: Fraction = 0.5

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; the model writes as many symbols for all as the longest tail needs."""
        new = 1 + below(np.ceil(rows.lengths * self.share), context.rng)
        kept = np.maximum(rows.lengths - new, np.minimum(rows.lengths, 1))  # a model needs one to start from
        if context.sampler is None:
            other = borrowed(len(rows), context)
            size = np.minimum(new, other.lengths)
            tail = Piece(other.data, other.lengths - size, size)
        else:
            heads = rows.changed(rows.data, kept.astype(np.int32))
            longest = int(new.max(initial=1))
            written = context.sampler.sample(heads, longest, self.temperature, context.rng)
            tail = Piece(written, np.zeros_like(new), new)
        return concatenate(rows, [Piece(rows.data, np.zeros_like(kept), kept), tail], context)
