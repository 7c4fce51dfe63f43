"""Modules whose structure the fast kernels know: embedding, recurrent layers, linear."""

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.targets.modules.calling import Caller
from lmfuzz.targets.modules.examine import distance
from lmfuzz.targets.rnn.step import RNNStepper
from lmfuzz.types import Batch

CLOSE = 1e-3  # standard deviations of the logits
LENGTHS = (9, 1, 4, 9, 70)


@torch.inference_mode()
def recognised(module: nn.Module, caller: Caller, size: int) -> RNNStepper | None:
    """Return what advances the module by the fast kernels; None unless it gives the same logits."""
    owners = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    rnns = [part for part in owners if isinstance(part, nn.RNNBase)]
    outputs = [part for part in owners if isinstance(part, nn.Linear)]
    embeddings = [part for part in owners if isinstance(part, nn.Embedding)]
    if len(rnns) != 1 or len(outputs) != 1 or len(embeddings) > 1 or len(owners) > 2 + len(embeddings):
        return None
    rnn, output = rnns[0], outputs[0]
    table = embeddings[0].weight.detach() if embeddings else torch.eye(size)
    weights = [*rnn.parameters(), *output.parameters(), table]
    plain = all(weight.data.__class__ is Tensor and weight.dtype == torch.float32 for weight in weights)
    fits = (len(table) >= size, table.shape[1] == rnn.input_size, output.in_features == rnn.hidden_size)
    if not plain or not all(fits) or rnn.bidirectional or rnn.proj_size or output.out_features != size:
        return None
    stepper = RNNStepper(table, rnn, output)
    return stepper if _same(stepper, caller, size) else None


def _same(stepper: RNNStepper, caller: Caller, size: int) -> bool:
    """Return whether the stepper gives the module's logits, after prompts of several lengths and a step."""
    rng = np.random.Generator(np.random.PCG64(0))
    batch = Batch.of([rng.integers(size, size=n, dtype=np.int32) for n in LENGTHS])
    symbols = torch.from_numpy(rng.integers(size, size=len(batch)))
    states = stepper.step(symbols, stepper.read(batch))
    texts = [
        torch.cat([torch.from_numpy(batch.row(i)).long(), symbols[i : i + 1]]) for i in range(len(batch))
    ]
    own = torch.cat([caller.whole(text[None])[:, -1] for text in texts])
    return distance(own, stepper.logits(states)) <= CLOSE
