"""Numbers that go wrong: overflow and NaN, and distributions that collapse or flatten."""

from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import ForTexts
from lmfuzz.types import PAD, Batch, Evidence, FloatArray, Trace

_Nats = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LARGEST = float(np.finfo(np.float32).max)


class Nonfinite:
    """A state or logit that is NaN or infinite (TensorFuzz's numerical errors, Odena & Goodfellow 2018).

    Margins: log(magnitude) / log(``overflow``) - 1, so the distance to overflow in doublings as a share
    of all there are; 1 on a hit. Take ``overflow=65504`` for a model in half precision. Magnitudes
    below 1 count as 1. NaN where the target says neither magnitude nor place. The signature is the
    place (what stands before the first comma of ``nonfinite``), without the step.
    """

    needs = frozenset({"magnitude", "nonfinite"})
    targets = ("nonfinite",)

    def __init__(self, overflow: Annotated[float, Field(gt=1, allow_inf_nan=False)] = LARGEST) -> None:
        self.overflow = overflow

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, 1)."""
        magnitude = np.maximum(trace["magnitude"].astype(np.float64), 1.0)
        near = np.log(magnitude) / np.log(self.overflow) - 1
        hit = (trace["nonfinite"] != "") | np.isinf(magnitude)
        return np.where(hit, 1.0, np.minimum(near, -1e-9)).astype(np.float32)[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The first place that was not finite."""
        where = str(trace["nonfinite"][row]) or "somewhere"
        return Evidence(where.partition(",")[0], f"NaN or infinite: {where}")


class Entropy(ForTexts):
    """``window`` generated steps in a row so sure, or so unsure, that the model has lost its way.

    low: collapse, a mean entropy below this many nats. high: uniform, a mean above it. 0 switches a
    side off. The defaults are for characters (65 symbols: at most log 65 = 4.17 nats): greedy output of
    a Tiny Shakespeare LSTM has 1.5 nats on average, and its windows of 16 steps stay between 0.07 and
    2.4 (1 024 outputs of 100). For a vocabulary of 50 257 (10.8 nats) take high=9 or so.

    Margins of columns ``entropy/collapse`` and ``entropy/uniform``: (low - m) / (low + m) and
    (m - high) / (m + high) for the extreme window mean m, so between -1 and 1. -inf for an output of
    fewer than ``window`` steps; NaN where a generated step has no entropy and no other window hits.
    """

    needs = frozenset({"entropy", "tokens"})

    def __init__(self, low: _Nats = 0.05, high: _Nats = 3.0, window: Count = 16) -> None:
        if not low + high or (high and low >= high):
            raise UsageError(f"entropy: low is {low}, must be below high, {high}, and not both can be 0")
        self.low, self.high, self.window = low, high, window
        sides = (("entropy/collapse", low), ("entropy/uniform", high))
        self.targets = tuple(name for name, bound in sides if bound)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, number of sides that are on)."""
        entropy = trace["entropy"]
        means = self._means(entropy)
        columns = []
        if self.low:
            lowest = np.fmin.reduce(means, axis=1)
            columns.append((self.low - lowest) / (self.low + lowest))
        if self.high:
            highest = np.fmax.reduce(means, axis=1)
            columns.append((highest - self.high) / (highest + self.high))
        margins = np.stack(columns, axis=1)
        unscored = (~np.isfinite(entropy) & (trace["tokens"] != PAD)).any(axis=1)[:, None]
        margins = np.where(np.isnan(margins), -np.inf, margins)
        return np.where(unscored & ~(margins > 0), np.nan, margins).astype(np.float32)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The extreme window; its span when every step wrote one character."""
        means = self._means(trace["entropy"][row : row + 1])[0]
        collapse = self.targets[column] == "entropy/collapse"
        start = int(np.nanargmin(means) if collapse else np.nanargmax(means))
        stop = start + self.window
        text, steps = trace["text"][row], int((trace["tokens"][row] != PAD).sum())
        words = f"{means[start]:.3g} nats on average over steps {start + 1} to {stop}"
        span = (start, stop) if len(text) == steps else None
        return Evidence("collapse" if collapse else "uniform", words, span)

    def _means(self, entropy: FloatArray) -> FloatArray:
        """Means over every window, float64 (B, at least 1); NaN for one with a step that is NaN."""
        width = entropy.shape[1]
        if width < self.window:
            return np.full((len(entropy), 1), np.nan)
        sums = np.zeros((len(entropy), width + 1))
        known = np.where(np.isfinite(entropy), entropy, np.nan)
        np.cumsum(known, axis=1, out=sums[:, 1:])  # NaN from the first NaN on
        means: FloatArray = np.maximum(sums[:, self.window :] - sums[:, : -self.window], 0) / self.window
        return means
