"""Features that use channels as they are: the coverage of the published experiments."""

from collections.abc import Sequence

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.types import FloatArray, Trace


class Channels:
    """Concatenate channels, neither scaled nor projected; a ``radius`` that is given is not calibrated.

    TensorFuzz's coverage of a quantized model is the float model's logits; TriggerFinder's states are the
    probabilities of both models. Their thresholds are on squared distances: 0.5 is a radius of 0.707.
    """

    def __init__(self, names: Sequence[str], radius: float | None = None) -> None:
        if not names:
            raise UsageError('channels needs the names of channels: channels:names=["base/logits"]')
        self.needs, self._names, self.radius = frozenset(names), list(names), radius

    def fit(self, trace: Trace) -> None:
        """Learn nothing."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, D)."""
        parts = [np.asarray(trace[name], np.float32) for name in self._names]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


class Total:
    """Sum the absolute values of a channel, as TensorFuzz's search for NaN does: one number per row."""

    def __init__(self, channel: str = "logits", radius: float | None = None) -> None:
        self.needs, self._channel, self.radius = frozenset({channel}), channel, radius

    def fit(self, trace: Trace) -> None:
        """Learn nothing."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, 1)."""
        values = np.abs(trace[self._channel].astype(np.float64))
        with np.errstate(over="ignore"):
            return np.asarray(values.reshape(len(values), -1).sum(axis=1, keepdims=True), np.float32)
