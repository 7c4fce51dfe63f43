"""Compressed twins of a torch module: cast, rounded, pruned or quantised, and shown to differ from it."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import prune

from lmfuzz.errors import UsageError, one_line
from lmfuzz.recipes import Recipe, read
from lmfuzz.targets.char_rnn import CharRNN

GROUP = 32  # inputs of a channel that share one step of int4
SMALLEST = 1024  # weights in a tensor; TFLite leaves those with fewer in float

_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
_AT_RUN_TIME = ("tflite", "dynamic")  # these quantise activations, too

# Layers are known by the names of their classes, so that transformers' Conv1D and the parts of a
# TorchScript module are found without an import or an isinstance.
_TRANSPOSED = {"ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"}
_RECURRENT = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}
_FORWARD = {"Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention", "Conv1D"}
_KNOWN = _FORWARD | _TRANSPOSED | _RECURRENT
_COMPUTED = ("_orig", "_g", "_v")  # parameters that pruning and weight_norm make a weight of at each call

_SEEKS = {  # what a recipe looks for
    **dict.fromkeys(_PRECISIONS, "floating-point weights of another precision"),
    **dict.fromkeys(
        ("int8", "int4", "round", "prune"),
        "Linear, Conv, ConvTranspose, RNN, LSTM, GRU, MultiheadAttention and GPT-2's Conv1D layers",
    ),
    "tflite": f"Linear and Conv2d layers with {SMALLEST} weights or more",
    "dynamic": "Linear, LSTM, GRU and GPT-2's Conv1D layers inside the module",
}
_DONE = {  # the recipe's name for a person, and what became of the tensors
    **dict.fromkeys(_PRECISIONS, ("{name}", "cast, and every activation")),
    "int8": ("int8 per {value}", "rounded, computed in float32"),
    "int4": (f"int4 in groups of {GROUP}", "rounded, computed in float32"),
    "round": ("{value} bits per tensor", "rounded, computed in float32"),
    "prune": ("l1 pruning", "with the smallest {value} of their weights set to zero"),
    "tflite": ("TFLite's hybrid int8", "rounded per tensor, their inputs per example ({value})"),
    "dynamic": ("torch's dynamic int8", "rounded, their inputs at run time over the whole batch"),
}


@dataclass(frozen=True, slots=True)
class Twin:
    """A compressed copy of a module.

    recipe: in canonical spelling. converted: the parts that changed, such as ``conv1 (Conv2d)``. words:
    one line for a person, what was converted, how, and what was left alone.
    """

    module: nn.Module
    recipe: str
    converted: tuple[str, ...]
    words: str


class Called(nn.Module):
    """A module to be called only: a CharRNN that is more than its weights, or one that takes no hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        """What the module gives."""
        return self.module(*inputs)

    def __getattr__(self, name: str) -> Any:
        told = name in ("alphabet", "config", "shape")  # what targets ask a module
        return getattr(self.module, name) if told else super().__getattr__(name)


@torch.no_grad()
def make_twin(module: nn.Module, recipe: str) -> Twin:
    """The twin of ``module`` that ``recipe`` (see lmfuzz.recipes) makes; the module itself stays as it is.

    It takes and gives float32, and its ``state_dict()`` holds the converted weights. A CharRNN's twin is
    a CharRNN, of half precision with fp16 and bf16; when activations are quantised (tflite, dynamic) it
    is a Called. UsageError when there is no such recipe, or it changes no tensor.
    """
    chosen = read(recipe)
    if chosen.name in _AT_RUN_TIME and isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"{chosen} changes how layers run, which TorchScript forbids; give a Python module")
    twin = _copy(module, chosen)
    found = 0
    if chosen.name in _PRECISIONS:
        twin.to(_PRECISIONS[chosen.name])
    else:
        found = _pack(twin) if chosen.name == "dynamic" else _convert(twin, chosen)
    before, after = _state(module), _state(twin)
    changed = {name: old for name, old in before.items() if _differs(old, after.get(name))}
    if not changed:
        why = f"whose tensors ({found}) stay as they were" if found else "and there are none"
        raise UsageError(
            f"{chosen} changes nothing in this {_kind(module)}: it looks for {_SEEKS[chosen.name]}, {why}"
        )
    converted, words = _account(module, changed, chosen)
    if chosen.name in _PRECISIONS:
        words += _losses(before, after)
    return Twin(_framed(twin, chosen), str(chosen), converted, words)


def _copy(module: nn.Module, recipe: Recipe) -> nn.Module:
    """A deep copy in which tensors that share memory still do."""
    try:
        twin = deepcopy(module)
    except Exception as error:
        raise UsageError(f"{recipe}: this {_kind(module)} cannot be copied: {one_line(error)}") from error
    shared: dict[object, Tensor] = {}
    for old, new in zip(module.parameters(), twin.parameters(), strict=True):
        if old.numel() and not old.is_meta:
            new.data = shared.setdefault((old.data_ptr(), old.shape, old.stride()), new.data)
    return twin


# --- weights: rounded or pruned, and computed in float ---


def rounded(rows: Tensor, bits: int) -> Tensor:
    """The nearest of 2**bits - 1 levels, symmetric about 0, for each number of ``rows`` (..., N).

    A row's levels reach its largest magnitude. In double precision that one is met exactly, so that
    rounding again changes nothing.
    """
    exact = rows.double()
    step = exact.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels: Tensor = (exact / step.where(step > 0, 1)).round_()
    return levels.mul_(step).to(rows.dtype)


def _convert(twin: nn.Module, recipe: Recipe) -> int:
    """Changes the weights that the recipe is for in place; how many tensors these are."""
    change, seen = _change(recipe), set()
    for name, layer in twin.named_modules():
        if recipe.name == "tflite" and not _hybrid(layer):
            continue
        for weight in _weights(name, layer):
            if weight.data_ptr() in seen:
                continue
            seen.add(weight.data_ptr())
            if not weight.isfinite().all():
                raise UsageError(f"{recipe}: {name or _kind(layer)} has weights that are not finite")
            view = _channels_first(layer, weight)
            rows = view.flatten(0, 1).flatten(1)
            view.copy_(change(rows).reshape(view.shape))
        if recipe.name == "tflite":
            axes = (-1,) if isinstance(layer, nn.Linear) else (-3, -2, -1)
            hook = partial(_quantise_input, axes=axes, symmetric=recipe.value == "symmetric")
            layer.register_forward_pre_hook(hook)
    return len(seen)


def _change(recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """What becomes of a weight tensor, as rows (channels, inputs)."""
    match recipe:
        case Recipe("int8", "channel"):
            return partial(rounded, bits=8)
        case Recipe("int4"):
            return _in_groups
        case Recipe("prune", share):
            pruning: Any = prune.L1Unstructured(share)
            return lambda rows: pruning.prune(rows.contiguous())
    bits = recipe.value if isinstance(recipe.value, int) else 8
    return lambda rows: rounded(rows.flatten(), bits)


def _in_groups(rows: Tensor) -> Tensor:
    wide = nn.functional.pad(rows, (0, -rows.shape[1] % GROUP))
    return rounded(wide.view(len(rows), -1, GROUP), 4).flatten(1)[:, : rows.shape[1]]


def _weights(name: str, layer: nn.Module) -> Iterator[Tensor]:
    """A layer's own weight matrices and kernels; none for a layer of another kind, biases left out."""
    if not _kinds(layer) & _KNOWN:
        return
    own = {key: tensor for key, tensor in layer.named_parameters(recurse=False) if "weight" in key}
    if hasattr(layer, "parametrizations") or any(key.endswith(_COMPUTED) for key in own):
        raise UsageError(
            f"{name or _kind(layer)} makes its weight anew at each call (a parametrization, weight_norm or"
            " pruning mask); remove that first, as torch.nn.utils.prune.remove does"
        )
    for weight in own.values():
        if weight.ndim >= 2 and weight.is_floating_point() and weight.numel():
            yield weight


def _channels_first(layer: nn.Module, weight: Tensor) -> Tensor:
    """A view (groups, output channels, inputs ...) of a weight."""
    if _kinds(layer) & _TRANSPOSED:
        groups: Any = layer.groups
        return weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return (weight.T if _is_turned(layer) else weight)[None]


# --- TFLite's hybrid kernels: activations are quantised, too ---


def _hybrid(layer: nn.Module) -> bool:
    """Whether TFLite would quantise a layer; attention's output layer is never called, so takes no hook."""
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return False
    return isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.numel() >= SMALLEST


def _quantise_input(
    _: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[int, ...], symmetric: bool
) -> tuple[Tensor, ...]:
    """The input of a hybrid layer on the 8-bit levels of each example's own range, which includes 0."""
    x, *rest = inputs
    with torch.no_grad():
        if symmetric:
            step = x.abs().amax(axes, keepdim=True) / 127
        else:
            high, low = x.amax(axes, keepdim=True), x.amin(axes, keepdim=True)
            step = (high.clamp_(min=0) - low.clamp_(max=0)) / 255
        step.clamp_(min=torch.finfo(x.dtype).tiny)
        levels = (x / step).round_().mul_(step)
    # Searches that use gradients see through the rounding (the straight-through estimate).
    return (x + (levels - x).detach() if x.requires_grad else levels, *rest)


# --- torch's dynamic kernels ---


def _pack(twin: nn.Module) -> int:
    """Puts torch's dynamic int8 layers in the place of float ones; how many."""
    try:
        from torch.ao.nn.quantized import dynamic
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        raise UsageError("dynamic is gone from this version of torch; use int8 or tflite") from None
    turned = _unfold(twin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        try:
            layers = {nn.Linear, nn.LSTM, nn.GRU}
            quantize_dynamic(twin, layers, dtype=torch.qint8, inplace=True)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise UsageError(f"dynamic: torch cannot quantise this module: {one_line(error)}") from error
    kinds = dynamic.Linear | dynamic.LSTM | dynamic.GRU
    packed = {name: layer for name, layer in twin.named_modules() if isinstance(layer, kinds)}
    for layer in packed.values():
        layer.register_forward_pre_hook(_present)
    hook = partial(_unpacked, packed=packed, turned=turned)
    twin.register_state_dict_post_hook(hook)  # type: ignore[no-untyped-call]
    return len(packed)


def _unfold(twin: nn.Module) -> set[str]:
    """Puts Linear in the place of GPT-2's Conv1D, which torch does not quantise; the names of these."""
    turned = {name for name, layer in twin.named_modules() if name and _is_turned(layer)}
    for name in turned:
        old: Any = twin.get_submodule(name)
        new: Any = nn.Linear(*old.weight.shape)
        new.weight, new.bias = nn.Parameter(old.weight.T.contiguous()), old.bias
        twin.set_submodule(name, new.train(old.training))
    return turned


def _unpacked(
    _: nn.Module, state: dict[str, Any], prefix: str, __: Any, packed: Mapping[str, Any], turned: set[str]
) -> None:
    """Puts float tensors under the names of the base's in the place of what is packed in a state."""
    for name, layer in packed.items():
        start = f"{prefix}{name}."
        for key in [key for key in state if key.startswith(start)]:
            del state[key]
        if hasattr(layer, "get_weight"):  # LSTM and GRU
            tensors = {**layer.get_weight(), **layer.get_bias()}
        else:
            tensors = {"weight": layer.weight(), "bias": layer.bias()}
        for key, tensor in tensors.items():
            if tensor is not None:
                plain = tensor.detach().dequantize()
                state[start + key] = plain.T if name in turned and plain.ndim == 2 else plain


def _present(_: nn.Module, __: tuple[Tensor, ...]) -> None:
    """Does nothing; torch's fused encoder, which reads weights that are packed away, makes way for hooks."""


# --- half precision ---


def _framed(twin: nn.Module, recipe: Recipe) -> nn.Module:
    """The twin as its caller needs it; the decoder of CharRNNs looks after precisions itself."""
    if isinstance(twin, CharRNN):  # the decoder would step by its weights alone
        return Called(twin) if recipe.name in _AT_RUN_TIME else twin
    if recipe.name in _PRECISIONS:
        if isinstance(twin, torch.jit.ScriptModule):  # takes no hooks
            twin = Called(twin)
        inwards = partial(_cast_inputs, dtype=_PRECISIONS[recipe.name])
        twin.register_forward_pre_hook(inwards, with_kwargs=True)
        twin.register_forward_hook(_cast_output)
    return twin


def _cast_inputs(_: nn.Module, inputs: Any, named: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    return _cast(inputs, dtype), _cast(named, dtype)


def _cast_output(_: nn.Module, __: Any, output: Any) -> Any:
    return _cast(output, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another precision, also those in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        cast = copy(value)
        for key in list(cast):
            cast[key] = _cast(cast[key], dtype)
        return cast
    if isinstance(value, tuple | list):
        items = [_cast(item, dtype) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


# --- what changed, in words ---


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _differs(old: Tensor, new: Tensor | None) -> bool:
    return new is None or old.dtype != new.dtype or not torch.equal(old, new)


def _account(module: nn.Module, changed: Mapping[str, Tensor], recipe: Recipe) -> tuple[tuple[str, ...], str]:
    """The parts that changed, and one line that tells what was done to them and what was left alone."""
    places = {name.rpartition(".")[0] for name in changed}
    converted: list[str] = []
    done: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for name, layer in module.named_modules():
        own = {f"{name}.{key}".removeprefix(".") for key, _ in layer.named_parameters(recurse=False)}
        kind = _kind(layer)
        count = int(getattr(layer, "num_layers", 1)) if kind in _RECURRENT else 1
        if name in places:
            converted.append(f"{name} ({kind})" if name else kind)
            done[kind] += count
            left["biases"] |= not own <= changed.keys()
        elif own:
            left[kind] += count
    label, how = (text.format(name=recipe.name, value=recipe.value) for text in _DONE[recipe.name])
    tensors = len({tensor.data_ptr() for tensor in changed.values()})
    kinds, layers = _listed(f"{count} {kind}" for kind, count in done.items()), done.total()
    words = f"{label}: {tensors} tensor{'s'[: tensors > 1]} of {kinds} layer{'s'[: layers > 1]} {how}"
    if alone := [kind if kind == "biases" else f"{count} {kind}" for kind, count in left.items() if count]:
        words += f"; {_listed(alone)} left alone"
    return tuple(converted), words


def _losses(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    """How many numbers a cast has changed."""
    pairs = {old.data_ptr(): (old, after[name]) for name, old in before.items() if old.is_floating_point()}
    lost = sum(int((old != new.to(old.dtype)).sum()) for old, new in pairs.values())
    total = sum(old.numel() for old, _ in pairs.values())
    return f"; {lost} of {total} weights rounded" if lost else "; every weight is representable as it is"


def _kind(layer: nn.Module) -> str:
    """The name of a layer's class, also inside a TorchScript module."""
    name = str(getattr(layer, "original_name", type(layer).__name__))
    return name.removeprefix("NonDynamicallyQuantizable")  # attention's output layer


def _kinds(layer: nn.Module) -> set[str]:
    """The names of a layer's classes."""
    return {_kind(layer), *(kind.__name__ for kind in type(layer).__mro__)}


def _is_turned(layer: nn.Module) -> bool:
    """Whether a layer is GPT-2's Conv1D: a linear one with weights (inputs, outputs)."""
    weight = getattr(layer, "weight", None)
    return "Conv1D" in _kinds(layer) and isinstance(weight, Tensor) and weight.ndim == 2


def _listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
