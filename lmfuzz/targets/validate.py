"""The checks of a module or function before it becomes a target: that it answers, and always the same."""

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lmfuzz.errors import TargetError, explaining
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.types import Batch

# Above what threads and kernels change, below what dropout does.
_close = partial(torch.allclose, rtol=1e-5, atol=1e-5, equal_nan=True)


def inputs(batch: Batch) -> Tensor:
    """Return the rows of a box as a tensor float32 (B, *shape), without a copy if possible."""
    return torch.from_numpy(np.require(batch.data, np.float32, ["C", "W"]))


def examples(space: BoxSpace, count: int) -> Batch:
    """Return legal rows to try a model on, always the same."""
    rng = np.random.Generator(np.random.PCG64(0))
    return space.batch(space.settle(rng.uniform(space.low, space.high, (count, *space.shape))))


def frozen(module: nn.Module, name: str) -> nn.Module:
    """Return the module, whose weights get no gradients from now on.

    Raises:
        TargetError: The module, or a dropout or batch norm layer in it, is in training mode.
    """
    parts = [module, *(part for part in module.modules() if isinstance(part, _DropoutNd | _BatchNorm))]
    if any(part.training for part in parts):
        raise TargetError(
            f"{name}: the module is in training mode, in which dropout and batch norm change its answers;"
            " call .eval() on it first"
        )
    for weights in module.parameters():  # TorchScript has no module.requires_grad_
        weights.requires_grad_(False)
    return module


def answers(
    name: str, ask: Callable[[Tensor], dict[str, Tensor]], x: Tensor
) -> tuple[dict[str, Tensor], bool]:
    """Return what ``ask`` gives for ``x``, and whether it wrote into ``x``.

    Raises:
        TargetError: It raises something, or answers the same question in two ways.
    """
    before = x.clone()
    with explaining(f"{name} cannot be run on a float32 tensor of shape {tuple(x.shape)}"):
        one, two = ask(x), ask(before.clone())
    for output, value in one.items():
        other = two.get(output, torch.empty(0))
        if value.shape != other.shape or not _close(value.double(), other.double()):
            raise TargetError(
                f"{name} gives different {output} each time it runs on the same inputs; remove what is random"
                " (dropout, sampling, noise), or fix its seed"
            )
    return one, not torch.equal(x, before)


def fingerprint(module: nn.Module, key: str) -> str:
    """Return a hash of the module's structure and weights, and of ``key``, which says how it is used."""
    digest = hashlib.sha256(key.encode())
    for name, part in module.named_modules():
        kind = getattr(part, "original_name", type(part).__name__)  # its class before TorchScript
        compiled = isinstance(part, torch.jit.ScriptModule | torch.fx.GraphModule)
        with explaining("the code of the model cannot be read"):
            code = re.sub(r"___torch_mangle_\d+\.", "", str(getattr(part, "code", ""))) if compiled else ""
        digest.update(repr((name, kind, code)).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        for content in _contents(value):
            digest.update(content)
    return digest.hexdigest()[:16]


def _contents(value: Any) -> Iterator[bytes]:
    """Yield the bytes of an entry of a state_dict: a tensor, a tuple of them (packed weights), or other."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _contents(part)
    elif isinstance(value, Tensor):
        plain = type(value) in (Tensor, nn.Parameter) and not value.is_quantized
        numbers = (value if plain else value.dequantize()).detach()
        yield repr((value.dtype, tuple(value.shape))).encode()
        yield numbers.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield repr(value).encode()
