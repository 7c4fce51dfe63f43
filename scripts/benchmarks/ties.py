"""Where two ways of writing with one model part, and whether a tie of its logits explains it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lmfuzz.types import PAD

# How far one way may move logits from the other's, as a share of their spread, for it to be noise at all.
NOISE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step at which two texts of a row differ.

    gap: of the two largest logits there. noise: the largest difference of the two ways' logits up to
    there. least: what ``noise`` must stay below for the two to be one model.
    """

    row: int
    step: int
    gap: float
    noise: float
    least: float

    @property
    def tied(self) -> bool:
        """Whether noise alone can turn the two around: it moves both of them."""
        return self.gap <= 2 * self.noise and self.noise <= self.least


def partings(
    tokens: Tensor, others: Tensor, logits: Tensor, other_logits: Tensor, dtype: torch.dtype
) -> tuple[list[Parting], float]:
    """Where the tokens int64 (T, B) of two ways differ, and the largest noise of all rows up to there.

    logits: float32 (T, B, V) that they were chosen by. Steps behind an end of text count as equal.
    """
    moved = (logits - other_logits).abs().amax(dim=2)
    found, most = [], 0.0
    for row in range(tokens.shape[1]):
        apart = (tokens[:, row] != others[:, row]).nonzero()
        end = int(apart[0, 0]) if len(apart) else int((tokens[:, row] != PAD).sum()) - 1
        noise = float(moved[: end + 1, row].max())
        most = max(most, noise)
        if len(apart):
            first, second = logits[end, row].topk(2).values.tolist()
            least = NOISE[dtype] * float(logits[end, row].std())
            found.append(Parting(row, end, first - second, noise, least))
    return found, most
