"""Features that take channels as they are: the coverage of the published experiments."""

from collections.abc import Sequence

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.types import FloatArray, Trace


class Channels:
    """Channels side by side, neither scaled nor projected; radius is fixed where one is given.

    TensorFuzz's coverage of a quantised model is the float model's logits, TriggerFinder's states are the
    probabilities of both models; their thresholds are on squared distances (0.5: a radius of 0.707).
    """

    def __init__(self, names: Sequence[str], radius: float | None = None) -> None:
        if not names:
            raise UsageError('channels needs the names of channels, such as names=["base/logits"]')
        self.needs, self._names, self.radius = frozenset(names), list(names), radius

    def fit(self, trace: Trace) -> None:
        """Nothing: the channels are taken as they are."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Points float32 (B, D)."""
        parts = [np.asarray(trace[name], np.float32) for name in self._names]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


class Total:
    """One number per row: the sum of a channel's absolute values (TensorFuzz's run for NaN)."""

    def __init__(self, channel: str = "logits", radius: float | None = None) -> None:
        self.needs, self._channel, self.radius = frozenset({channel}), channel, radius

    def fit(self, trace: Trace) -> None:
        """Nothing."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Points float32 (B, 1)."""
        values = np.abs(trace[self._channel].astype(np.float64))
        with np.errstate(over="ignore"):
            total: FloatArray = values.reshape(len(values), -1).sum(axis=1, keepdims=True).astype(np.float32)
        return total
