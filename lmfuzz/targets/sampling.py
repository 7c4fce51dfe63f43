"""The noise with which text is sampled: it belongs to (seed, step), never to a row's place in a batch."""

import numpy as np
import torch
from torch import Tensor

from lmfuzz.types import FloatArray


class Noise:
    """Gumbel noise that belongs to (seed, step) alone: argmax(logits + noise) draws at ``temperature``.

    Drawn when it is needed, float32 (V,) per step, and kept while all of it stays below 64 MiB.
    """

    def __init__(
        self, seed: int, temperature: float, vocabulary: int, steps: int, device: torch.device
    ) -> None:
        self.temperature = temperature
        self._seed, self._size, self._device = seed, vocabulary, device
        self._keeps = steps * vocabulary <= 2**24
        self._kept: dict[int, Tensor] = {}

    def at(self, step: int) -> Tensor:
        """The noise (V,) of a step."""
        if step not in self._kept:
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, step])))
            drawn: FloatArray = rng.gumbel(size=self._size).astype(np.float32) * np.float32(self.temperature)
            if not self._keeps:
                self._kept.clear()
            self._kept[step] = torch.from_numpy(drawn).to(self._device)
        return self._kept[step]

    def add(self, step: int, logits: Tensor) -> Tensor:
        """Logits (..., V) of one step with its noise."""
        return logits + self.at(step) if self.temperature else logits

    def add_at(self, steps: Tensor, logits: Tensor) -> Tensor:
        """Logits (..., V) with the noise of their ``steps`` (...)."""
        if not self.temperature:
            return logits
        distinct, back = torch.unique(steps, return_inverse=True)
        return logits + torch.stack([self.at(step) for step in distinct.tolist()])[back]
