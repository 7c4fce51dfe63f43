"""What is kept of a batch while a causal language model writes: reduced at every step, on its device."""

import torch
from torch import Tensor

from lmfuzz.targets.hf.forward import Reader
from lmfuzz.targets.hf.kv_cache import OpenBatch
from lmfuzz.targets.hf.phrase_gap import CausalGaps
from lmfuzz.targets.sampling import STEPWISE, distribution
from lmfuzz.types import PAD

_PER_STEP = ("logprob", "entropy", "end_logprob")  # float32 (T, B), nats, NaN once a text has ended


class Record:
    """Collect what decoding B prompts for up to T steps leads to; ``rows`` (b,) are the ids of some prompts.

    Attributes:
        tokens: int64 (T, B), PAD after the end of a text, which is written itself.
        last: The states float32 (B, D) after the prompts.
        states: The states float32 (T, B, D) before every token, if ``wants`` are made of them.
        series: The channels per step, float32 (T, B).
        logits: float32 (T, B, V), only if "logits" is wanted.
        magnitude: float32 (B,), NaN if something was not finite.
        gaps: The phrase gaps, if any are wanted.
    """

    def __init__(self, reader: Reader, ends: Tensor, steps: int, rows: int, wants: frozenset[str]) -> None:
        device = reader.device
        self.tokens = torch.full((steps, rows), PAD, dtype=torch.int64, device=device)
        self.last = torch.zeros((rows, reader.width), device=device)
        self.states = torch.zeros((steps if wants & STEPWISE else 0, rows, reader.width), device=device)
        self.series = {
            name: torch.full((steps, rows), torch.nan, device=device) for name in _PER_STEP if name in wants
        }
        self.measured = bool(wants & {"magnitude", "nonfinite"})
        self.magnitude = torch.zeros(rows, device=device)
        self.logits = torch.zeros((steps if "logits" in wants else 0, rows, reader.size), device=device)
        self.gaps: CausalGaps | None = None
        self._ends = ends

    def begin(self, rows: Tensor, states: Tensor) -> None:
        """Record the states float32 (b, D) after the prompts."""
        self.last[rows] = states
        self.tokens[:, rows] = PAD  # of a batch that ran out of memory and is written again
        self.magnitude[rows] = 0

    def step(self, step: int, rows: Tensor, logits: Tensor, states: Tensor, tokens: Tensor) -> None:
        """Record the tokens (b,) of a step, their logits (b, V), and the states (b, D) before them."""
        self.tokens[step, rows] = tokens
        if self.gaps is not None:
            self.gaps.step(step, rows, logits, tokens)
        going = tokens != PAD
        if len(self.states):
            self.states[step, rows] = states
        if self.measured:
            largest = torch.maximum(logits.abs().amax(dim=1), states.abs().amax(dim=1))
            before = self.magnitude[rows]
            self.magnitude[rows] = torch.where(going, torch.maximum(before, largest), before)
        if len(self.logits):
            self.logits[step, rows] = logits
        if self.series:
            shown = distribution(logits, tokens.clamp(min=0), self.series, self._ends)
            for name, values in shown.items():
                self.series[name][step, rows] = values.masked_fill(~going, torch.nan)

    def leave(self, rows: Tensor, places: Tensor, batch: OpenBatch) -> None:
        """Finish the rows at ``places`` (b,) of a batch, which leave its cache."""
        if self.gaps is not None:
            self.gaps.leave(rows, places, batch)
