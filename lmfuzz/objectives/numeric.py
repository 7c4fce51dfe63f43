"""Numbers that go wrong: overflow and NaN, and distributions that collapse or flatten."""

from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from lmfuzz.errors import UsageError
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import ForTexts
from lmfuzz.types import PAD, Batch, Evidence, FloatArray, Trace

_Nats = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LARGEST = float(np.finfo(np.float32).max)


class Nonfinite:
    """Find hidden states and logits that are NaN or infinite.

    These are the numerical errors of TensorFuzz (Odena & Goodfellow 2018). Margins: 1 for a hit, otherwise
    log(magnitude) / log(``overflow``) - 1, the distance to overflow in doublings as a share of all there are.
    Magnitudes below 1 count as 1. NaN if the target gives neither magnitude nor place. The signature is the
    place (the channel ``nonfinite`` up to its first comma), without the step.

    Args:
        overflow: the largest finite number; take 65504 for a model in half precision.
    """

    needs = frozenset({"magnitude", "nonfinite"})
    targets = ("nonfinite",)

    def __init__(self, overflow: Annotated[float, Field(gt=1, allow_inf_nan=False)] = LARGEST) -> None:
        self.overflow = overflow

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        magnitude = np.maximum(trace["magnitude"].astype(np.float64), 1.0)
        near = np.log(magnitude) / np.log(self.overflow) - 1
        hit = (trace["nonfinite"] != "") | np.isinf(magnitude)
        return np.where(hit, 1.0, np.minimum(near, -1e-9)).astype(np.float32)[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the first place that was not finite."""
        where = str(trace["nonfinite"][row]) or "somewhere"
        return Evidence(where.partition(",")[0], f"NaN or infinite: {where}")


class Entropy(ForTexts):
    """Find outputs in which the entropy of ``window`` steps in a row collapses, or is nearly uniform.

    The defaults are for characters (65 symbols: at most log 65 = 4.17 nats): greedy output of a Tiny
    Shakespeare LSTM has 1.5 nats on average, and its windows of 16 steps stay between 0.07 and 2.4 (1 024
    outputs of 100). For a vocabulary of 50 257 (10.8 nats) take high=9 or so.

    Margins of the columns ``entropy/collapse`` and ``entropy/uniform``: (low - m) / (low + m) and
    (m - high) / (m + high) for the extreme window mean m, so between -1 and 1. -inf for an output of fewer
    than ``window`` steps; NaN if a generated step has no entropy and no other window hits.

    Args:
        low: a mean entropy of a window below this many nats is a collapse; 0 switches this column off.
        high: a mean entropy above this many nats is nearly uniform; 0 switches this column off.
        window: the steps of a window.
    """

    needs = frozenset({"entropy", "tokens"})

    def __init__(self, low: _Nats = 0.05, high: _Nats = 3.0, window: Count = 16) -> None:
        if not low + high or (high and low >= high):
            raise UsageError(f"entropy: low={low} must be less than high={high}, and only one may be 0")
        self.low, self.high, self.window = low, high, window
        sides = (("entropy/collapse", low), ("entropy/uniform", high))
        self.targets = tuple(name for name, bound in sides if bound)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, number of columns that are on)."""
        entropy = trace["entropy"]
        means = self._means(entropy)
        lowest, highest = np.fmin.reduce(means, axis=1), np.fmax.reduce(means, axis=1)
        with np.errstate(invalid="ignore"):  # of a column that is off
            sides = {
                "entropy/collapse": (self.low - lowest) / (self.low + lowest),
                "entropy/uniform": (highest - self.high) / (highest + self.high),
            }
        margins = np.stack([sides[name] for name in self.targets], axis=1)
        unscored = (~np.isfinite(entropy) & (trace["tokens"] != PAD)).any(axis=1)[:, None]
        margins = np.where(np.isnan(margins), -np.inf, margins)
        return np.where(unscored & ~(margins > 0), np.nan, margins).astype(np.float32)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the extreme window, with a span if every step wrote one character."""
        means = self._means(trace["entropy"][row : row + 1])[0]
        collapse = self.targets[column] == "entropy/collapse"
        start = int(np.nanargmin(means) if collapse else np.nanargmax(means))
        stop = start + self.window
        text, steps = trace["text"][row], int((trace["tokens"][row] != PAD).sum())
        words = f"{means[start]:.3g} nats on average over steps {start + 1} to {stop}"
        span = (start, stop) if len(text) == steps else None
        return Evidence("collapse" if collapse else "uniform", words, span)

    def _means(self, entropy: FloatArray) -> FloatArray:
        """Return the mean of every window, float64 (B, at least 1); NaN if one of its steps is not finite."""
        if entropy.shape[1] < self.window:
            return np.full((len(entropy), 1), np.nan)
        known = np.where(np.isfinite(entropy), entropy.astype(np.float64), np.nan)
        return np.asarray(sliding_window_view(known, self.window, axis=1).mean(axis=2))
