"""What happens inside a module while it runs: forward hooks that are always taken off again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.types import Array

See = Callable[[str, tuple[Any, ...], Any], None]  # name of the submodule, its inputs, its output


def submodules(module: nn.Module) -> dict[str, nn.Module]:
    """The named submodules that take hooks: those of TorchScript do not."""
    return {
        name: part
        for name, part in module.named_modules()
        if name and not isinstance(part, torch.jit.ScriptModule)
    }


@contextmanager
def watching(parts: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Within the block ``see`` is called after every call of one of ``parts``, in order of execution."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, inputs, output: see(name, inputs, output)

    handles = []
    try:
        for name, part in parts.items():
            handles.append(part.register_forward_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of numbers in an output, out of tuples, lists and mappings, in order."""
    if isinstance(output, Tensor):
        shown = output.detach()
        yield shown.dequantize() if shown.is_quantized else shown
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from tensors(value)


def per_row(output: Any, rows: int) -> Iterator[Tensor]:
    """Those among the tensors that hold floats, and something of every one of ``rows`` rows."""
    for value in tensors(output):
        if value.is_floating_point() and value.ndim and len(value) == rows and value.numel():
            yield value


class Peaks:
    """The largest absolute values of B rows at the places of a run, in order of execution."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._places: list[str] = []
        self._peaks: list[Tensor] = []

    def add(self, place: str, output: Any) -> None:
        """Take note of what was computed at ``place``."""
        for value in per_row(output, self._rows):
            flat = value.reshape(self._rows, -1)
            # Measured for 250 x 4704 numbers: 0.46 ms, the norm of order inf 4.7 ms, isfinite().all() 3 ms.
            self._places.append(place)
            self._peaks.append(torch.maximum(flat.amax(dim=1), -flat.amin(dim=1)).float())

    def trace(self) -> dict[str, Array]:
        """The channels magnitude float32 (B,), NaN as inf, and nonfinite (B,) str: the first place, or ''."""
        nonfinite = np.full(self._rows, "", dtype=object)
        if not self._peaks:
            return {"magnitude": np.zeros(self._rows, np.float32), "nonfinite": nonfinite}
        peaks = torch.stack(self._peaks).nan_to_num(nan=torch.inf, posinf=torch.inf).numpy()
        magnitude = peaks.max(axis=0)
        lost = np.isinf(magnitude)
        first = np.isinf(peaks[:, lost]).argmax(axis=0)
        nonfinite[lost] = np.array(self._places, dtype=object)[first]
        return {"magnitude": magnitude, "nonfinite": nonfinite}
