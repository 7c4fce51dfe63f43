"""What is kept of a batch while a causal language model writes: reduced at every step, on its device."""

from collections.abc import Callable

import torch
from torch import Tensor

from lmfuzz.targets.hf.decoding import Begun
from lmfuzz.targets.hf.phrase_gap import CausalGaps
from lmfuzz.targets.sampling import STEPWISE, distribution
from lmfuzz.types import PAD

_PER_STEP = ("logprob", "entropy", "end_logprob")  # float32 (T, B), nats, NaN once a text has ended
STOPS_EVERY = 8  # steps between two looks for stop strings: texts have to be decoded for it

Stopped = Callable[[Tensor, Tensor], Tensor]  # ids of rows (b,), their tokens (T, b) -> bool (b,)


class Record:
    """What decoding B prompts for up to T steps led to.

    tokens: int64 (T, B), PAD behind the end of a text, which is written itself. last: states float32 (B, D)
    after the prompts. states: float32 (T, B, D) before every token, where ``wants`` are made of them. series:
    channel -> (T, B). logits: float32 (T, B, V), only where "logits" is wanted. magnitude: float32 (B,), NaN
    where something was not finite.
    """

    def __init__(
        self, rows: int, steps: int, vocabulary: int, width: int, ends: Tensor, wants: frozenset[str],
        stopped: Stopped | None = None, gaps: CausalGaps | None = None,
    ) -> None:  # fmt: skip
        device = ends.device
        self.tokens = torch.full((steps, rows), PAD, dtype=torch.int64, device=device)
        self.last = torch.zeros((rows, width), device=device)
        kept = steps if wants & STEPWISE else 0
        self.states = torch.zeros((kept, rows, width), device=device)
        self.series = {
            name: torch.full((steps, rows), torch.nan, device=device) for name in _PER_STEP if name in wants
        }
        self.measured = bool(wants & {"magnitude", "nonfinite"})
        self.magnitude = torch.zeros(rows, device=device)
        shape = (steps, rows, vocabulary) if "logits" in wants else (0, 0, 0)
        self.logits = torch.zeros(shape, device=device)
        self._ends, self._stopped, self._gaps = ends, stopped, gaps

    def begin(self, rows: Tensor, states: Tensor) -> None:
        """As Notes.begin."""
        self.last[rows] = states
        self.tokens[:, rows] = PAD  # of a batch that ran out of memory and is written again
        self.magnitude[rows] = 0

    def step(self, step: int, rows: Tensor, logits: Tensor, states: Tensor, tokens: Tensor) -> None:
        """As Notes.step."""
        self.tokens[step, rows] = tokens
        if self._gaps is not None:
            self._gaps.step(step, rows, logits, tokens)
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

    def leave(self, rows: Tensor, places: Tensor, begun: Begun) -> None:
        """As Notes.leave."""
        if self._gaps is not None:
            self._gaps.leave(rows, places, begun)

    def stopped(self, rows: Tensor, step: int) -> Tensor:
        """As Notes.stopped."""
        if self._stopped is None or (step + 1) % STOPS_EVERY:
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        return self._stopped(rows, self.tokens[: step + 1, rows])
