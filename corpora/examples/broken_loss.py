"""TensorFuzz's third example: a cross-entropy that is large where its gradient vanishes.

A function of tensors and a detector of one's own are all that it takes. The function says with ``on``
which values are legal, and shows whatever a detector may want to know:

    corpora/examples/broken_loss.py:broken_loss    the model
    corpora/examples/broken_loss.py:Vanishing      the objective

Training with such a loss gets stuck on exactly those examples that are most wrong.
"""

import numpy as np
import torch
from torch import Tensor

from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.targets.function import on
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

EPSILON = 1e-12  # what keeps the logarithm finite


@on(BoxSpace((1,), -100.0, 100.0))
def broken_loss(logit: Tensor) -> dict[str, Tensor]:
    """The cross-entropy (B,) of label 0 and sigmoid(logit), and its slope (B,), the gradient's size.

    From a logit of 16.7 on, sigmoid(logit) is 1 in float32: the loss stays at -log(1e-12) = 27.6, and no
    gradient comes through.
    """
    logit.requires_grad_()
    q = torch.sigmoid(logit)
    loss = -torch.log(1 - q + EPSILON)
    (slope,) = torch.autograd.grad(loss.sum(), logit, retain_graph=True)
    return {"loss": loss[:, 0], "slope": slope[:, 0].abs()}


class Vanishing:
    """A loss above ``loss`` where the gradient is below ``slope``.

    Margins: the smaller of log(loss / bound) and log(bound / slope), so how many times e one of them is
    away from its bound; numbers below 1e-30 count as that.
    """

    needs = frozenset({"loss", "slope"})
    targets = ("vanishing",)

    def __init__(self, loss: float = 0.01, slope: float = 1e-4) -> None:
        self.loss, self.slope = loss, slope

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins (B,); NaN where loss or slope is NaN."""
        loss, slope = (np.clip(trace[name].astype(np.float64), 1e-30, 1e30) for name in ("loss", "slope"))
        return np.minimum(np.log(loss / self.loss), np.log(self.slope / slope))

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The two numbers."""
        loss, slope = trace["loss"][row], trace["slope"][row]
        return Evidence("vanishing", f"the loss is {loss:.4g}, and its gradient {slope:.3g}")
