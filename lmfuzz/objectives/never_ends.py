"""Output that does not come to an end."""

import numpy as np

from lmfuzz.plugins.bounds import Probability
from lmfuzz.protocols import ForTexts
from lmfuzz.types import PAD, Batch, Evidence, FloatArray, Trace

_BARELY = -1e-6  # the largest margin of an output that is not a hit


class NeverEnds(ForTexts):
    """Find outputs that do not end and at no step come near to ending.

    A hit is an output that has not ended within the steps that the target writes, and in which the end of
    text had a probability of less than ``below`` at every step. Give the target enough steps: hardly any
    output ends within three.

    Margins: (log(below) - log(p)) / |log(below)| for the largest probability p of an end, so 1 for the square
    of ``below`` and -1 for a step that was sure to end; always below 0 for an output that ended, by a stop
    string as well. NaN if the output has not ended and a step has no finite number, unless another step rules
    out a hit, and if there is no step. -inf if it ended and nobody knows how nearly it did not.
    """

    needs = frozenset({"ended", "end_logprob", "tokens"})
    targets = ("never_ends",)

    def __init__(self, below: Probability = 0.01) -> None:
        self.below = below

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        ended, known = trace["ended"], np.isfinite(trace["end_logprob"])
        largest = np.max(trace["end_logprob"], axis=1, where=known, initial=-np.inf).astype(np.float64)
        limit = np.log(self.below)
        near = (limit - largest) / -limit
        hit = ~ended & (largest < limit)
        lost = ((trace["tokens"] != PAD) & ~known).any(axis=1) | ~known.any(axis=1)
        near = np.where(np.isfinite(largest), near, -np.inf)
        margins = np.where(hit, np.maximum(near, -_BARELY), np.minimum(near, _BARELY))
        return np.where(hit & lost, np.nan, margins).astype(np.float32)[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the largest probability of an end, and at which step."""
        logs = trace["end_logprob"][row]
        step, steps = int(np.nanargmax(logs)), int((trace["tokens"][row] != PAD).sum())
        words = (
            f"no end of text in {steps} steps; it was likeliest at step {step + 1}, "
            f"with a probability of {np.exp(logs[step]):.2g}"
        )
        return Evidence("no end of text", words)
