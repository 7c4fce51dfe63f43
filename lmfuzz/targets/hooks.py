"""What happens inside a module while it runs, seen by forward hooks that are always removed again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmfuzz.types import Array, FloatArray

Watch = Callable[[str, tuple[Any, ...], Any], None]  # name of the submodule, its inputs, its output


def submodules(module: nn.Module) -> dict[str, nn.Module]:
    """Return the named submodules that take hooks; those of TorchScript do not."""
    named = {name: part for name, part in module.named_modules() if name}
    return {name: part for name, part in named.items() if not isinstance(part, torch.jit.ScriptModule)}


@contextmanager
def watching(parts: Mapping[str, nn.Module], watch: Watch) -> Iterator[None]:
    """Call ``watch`` within the block after every call of one of ``parts``, in order of execution."""

    def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any, name: str) -> None:
        watch(name, inputs, output)

    with ExitStack() as handles:
        for name, part in parts.items():
            handles.enter_context(part.register_forward_hook(partial(hook, name=name)))
        yield


def per_row(output: Any, rows: int) -> Iterator[Tensor]:
    """Yield the tensors of floats in an output that have something for each of ``rows`` rows, in order.

    Tensors in tuples, lists and mappings are found, and quantized ones become floats.
    """
    for value in pytree.tree_leaves(output):
        if isinstance(value, Tensor):
            value = value.detach().dequantize() if value.is_quantized else value.detach()
            if value.is_floating_point() and value.ndim and len(value) == rows and value.numel():
                yield value


def extremes(magnitude: FloatArray, first: Callable[[int], str]) -> dict[str, Array]:
    """Return the channels magnitude (B,) and nonfinite (B,), in which ``first`` names a row's first place."""
    places = np.full(len(magnitude), "", dtype=object)
    for row in np.flatnonzero(~np.isfinite(magnitude)).tolist():
        places[row] = first(row)
    return {"magnitude": magnitude, "nonfinite": places}


class Peaks:
    """Collect the largest absolute values of B rows at the places of a run, in order of execution."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._places: list[str] = []
        self._peaks: list[Tensor] = []

    def add(self, place: str, output: Any) -> None:
        """Note what was computed at ``place``."""
        for value in per_row(output, self._rows):
            flat = value.reshape(self._rows, -1)
            # Measured for 250 x 4704 numbers: 0.46 ms, the norm of order inf 4.7 ms, isfinite().all() 3 ms.
            self._places.append(place)
            self._peaks.append(torch.maximum(flat.amax(dim=1), -flat.amin(dim=1)).float().cpu())

    def trace(self) -> dict[str, Array]:
        """Return the channels magnitude float32 (B,), NaN as inf, and nonfinite (B,) str."""
        peaks = torch.stack([torch.zeros(self._rows), *self._peaks])
        found = peaks.nan_to_num(nan=torch.inf, posinf=torch.inf).numpy()
        places = ["", *self._places]
        return extremes(found.max(axis=0), lambda row: places[np.isinf(found[:, row]).argmax()])
