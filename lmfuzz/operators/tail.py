"""An operator that lets the model itself write the end of a row."""

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
    """Keep the head of a prompt and let the model rewrite its tail, up to ``share`` of the prompt.

    The tail is sampled at ``temperature``. The length stays the same, but a single symbol gets a second. If
    the target cannot sample, the tail is the end of a prompt from the pool.
    """

    temperature: Annotated[float, Field(gt=0)] = 0.8
    share: Fraction = 0.5

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; the model writes as many symbols as the longest tail has."""
        new = 1 + below(np.ceil(rows.lengths * self.share), context.rng)
        kept = np.maximum(rows.lengths - new, np.minimum(rows.lengths, 1))  # a model needs one to start with
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
