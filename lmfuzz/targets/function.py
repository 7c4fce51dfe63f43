"""Any function of tensors, with a declared box of legal values, as a target."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.hooks import Peaks, submodules, watching
from lmfuzz.targets.validate import answers, examples, fingerprint, frozen, inputs
from lmfuzz.types import Array, Batch, FloatArray, Trace

CHANNELS = frozenset({"text", "hidden_last", "magnitude", "nonfinite", "gradient"})
SHOWN = 4  # outputs that the text shows
_EXTREMES = frozenset({"magnitude", "nonfinite"})

F = TypeVar("F", bound=Callable[..., Any])


def on(space: BoxSpace) -> Callable[[F], F]:
    """Declare the box of legal values of a function: ``@on(BoxSpace((2,), -1.0, 1.0))``."""

    def declare(function: F) -> F:
        function.space = space  # type: ignore[attr-defined]
        return function

    return declare


class FunctionTarget:
    """Run a function of float32 (B, *shape) to a tensor (B, ...), or to a dict of them by name, as a target.

    A torch module is such a function, too. The function may call autograd itself: gradients are enabled.

    Channels, for B inputs: each output by its name, ``value`` for a bare tensor, float32 (B, ...);
    hidden_last float32 (B, D), all outputs side by side; text (B,), the first number of each, such as
    "loss 27.6, slope 0"; magnitude float32 (B,), the largest absolute value of all outputs (and of a
    module's submodules), inf if one is NaN; nonfinite (B,) the first of them that was NaN or infinite,
    or ''; gradient float32 (B, *shape), of the sum of the first output with respect to the input, NaN if
    the function cannot be differentiated. The gradient costs nothing unless it is wanted.

    Raises:
        TargetError: The function cannot be such a target.
    """

    info = TargetInfo()

    def __init__(self, function: Callable[[Tensor], Any], space: BoxSpace, name: str) -> None:
        self.function, self.space, self.name = function, space, name
        self._parts: dict[str, nn.Module] = {}
        if isinstance(function, nn.Module):
            self._parts = submodules(frozen(function, name))
        self._copies = False  # whether the function writes into its input
        outputs = self._probe()
        self.outputs = tuple(outputs)
        self.channels = CHANNELS.union(outputs)
        self.identity = _identity(function, space)

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every input."""
        peaks = Peaks(len(batch))
        watched = self._parts if wants & _EXTREMES else {}
        with watching(watched, lambda part, _, output: peaks.add(part, output)):
            outputs, gradient = self._run(inputs(batch), "gradient" in wants and self._differentiable)
        trace: dict[str, Array] = {name: value.detach().float().numpy() for name, value in outputs.items()}
        if wants & _EXTREMES:
            for name, value in outputs.items():
                peaks.add(name, value)
            trace |= peaks.trace()
        if "hidden_last" in wants:
            flat = [trace[name].reshape(len(batch), -1) for name in self.outputs]
            trace["hidden_last"] = np.concatenate(flat, axis=1)
        if "text" in wants:
            trace["text"] = self._texts(trace, len(batch))
        if "gradient" in wants:
            trace["gradient"] = gradient
        return {name: trace[name] for name in wants}

    def _run(self, x: Tensor, differentiate: bool) -> tuple[dict[str, Tensor], FloatArray]:
        """Return the outputs, and the gradients of the first of them (NaN unless asked for)."""
        if not differentiate:
            return self._answer(x.clone() if self._copies else x), np.full(x.shape, np.nan, np.float32)
        leaf = x.clone().requires_grad_()
        outputs = self._answer(leaf.clone())  # a function may write into a copy
        (gradient,) = torch.autograd.grad(next(iter(outputs.values())).sum(), leaf)
        return outputs, gradient.numpy()

    def _answer(self, x: Tensor) -> dict[str, Tensor]:
        given = self.function(x)
        outputs = dict(given) if isinstance(given, Mapping) else {"value": given}
        for name, value in outputs.items():
            if not (isinstance(name, str) and isinstance(value, Tensor)):
                raise self._wrong(f"{name!r}: {type(value).__name__}")
        return outputs

    def _texts(self, trace: Trace, rows: int) -> Array:
        names = self.outputs[:SHOWN]
        numbers = np.stack([trace[name].reshape(rows, -1)[:, 0] for name in names], axis=1).tolist()
        shown = [[f"{name} {one:.4g}" for name, one in zip(names, row, strict=True)] for row in numbers]
        return np.array([", ".join(words) for words in shown], dtype=object)

    def _probe(self) -> dict[str, Tensor]:
        """Return what two rows lead to; raise TargetError unless each has at least one number."""
        outputs, self._copies = answers(self.name, self._answer, inputs(examples(self.space, 2)))
        for name, value in outputs.items():
            if not value.ndim or len(value) != 2 or not value.numel():
                raise self._wrong(f"{name} of shape {tuple(value.shape)}")
        if not outputs:
            raise self._wrong("nothing")
        if taken := sorted(CHANNELS & outputs.keys()):
            raise TargetError(f"{self.name}: an output has the name of the channel {taken[0]}; rename it")
        try:
            self._run(inputs(examples(self.space, 2)), differentiate=True)
            self._differentiable = True
        except Exception:  # whatever autograd does not know
            self._differentiable = False
        return outputs

    def _wrong(self, what: str) -> TargetError:
        return TargetError(
            f"{self.name}: the function gives {what} for a batch of 2; it must give a tensor whose first axis"
            " is the batch, or a dict of such tensors by name"
        )


def _identity(function: Callable[..., Any], space: BoxSpace) -> str:
    module = isinstance(function, nn.Module)
    made = getattr(type(function), "forward", function) if module else getattr(function, "__func__", function)
    code = getattr(made, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    parts = [repr(space).encode(), *(_code(code) if code else [repr(type(function)).encode()])]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    return fingerprint(function, f"({digest!r},)") if isinstance(function, nn.Module) else digest


def _code(code: CodeType) -> Iterator[bytes]:
    """Yield what a function does, wherever it stands: instructions, names, constants; inner ones too."""
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:  # the order of a set differs in every process
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode()
