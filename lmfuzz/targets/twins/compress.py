"""Compressed twins of a torch module: cast, rounded, pruned or quantized, and checked to differ from it."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils import _pytree as pytree

from lmfuzz.errors import UsageError, explaining
from lmfuzz.targets.modules.wrapped import Called
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.twins import recipes
from lmfuzz.targets.twins.kernels import pack_dynamic, pack_torchao
from lmfuzz.targets.twins.layers import RECURRENT, channels_first, is_linear, kind, tied, weights
from lmfuzz.targets.twins.recipes import GROUP, SMALLEST, Recipe, read
from lmfuzz.text import plural


@dataclass(frozen=True, slots=True)
class Twin:
    """Hold a compressed copy of a module.

    Attributes:
        module: The copy.
        recipe: The recipe in its canonical form.
        converted: The parts that changed, such as ``conv1 (Conv2d)``.
        words: One line for a person: what was converted, how, and what was left alone.
    """

    module: nn.Module
    recipe: str
    converted: tuple[str, ...]
    words: str


@torch.no_grad()
def make_twin(module: nn.Module, recipe: str) -> Twin:
    """Make the twin of ``module`` that ``recipe`` (see recipes.py) names; the module stays as it is.

    The twin takes and gives float32, and its ``state_dict()`` holds the converted weights. A CharRNN's twin
    is a CharRNN, in half precision with fp16 and bf16; if its layers run differently (tflite, dynamic,
    torchao) it is a Called. A layer that shares its weight with an embedding is only ever cast.

    Raises:
        UsageError: There is no such recipe, the module cannot follow it, or it changes no tensor.
    """
    chosen = read(recipe)
    if isinstance(chosen, recipes.AtRunTime) and isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"{chosen} changes how layers run, which TorchScript forbids; give a Python module")
    if packed := {type(weight.data).__name__ for weight in module.parameters()} - {"Tensor"}:
        names = ", ".join(sorted(packed))
        raise UsageError(f"{chosen}: this {kind(module)} is already quantized ({names}); give one of floats")
    twin = _copy(module, chosen)
    found, spared = _compress(twin, chosen)
    before, after = _state(module), _state(twin)
    changed = {name: old for name, old in before.items() if not _equal(old, after.get(name))}
    if not changed:
        alone = ", ".join(f"{name or kind(module)} ({reason})" for name, reason in spared.items())
        none = "and there are none" + (f" but {alone}" if alone else "")
        why = f"whose tensors ({found}) stay as they were" if found else none
        raise UsageError(f"{chosen} changes nothing in this {kind(module)}: it seeks {chosen.seeks}, {why}")
    converted, words = _account(module, changed, chosen, spared)
    if isinstance(chosen, recipes.Cast):
        words += _losses(before, after)
    return Twin(_framed(twin, chosen), str(chosen), converted, words)


def _compress(twin: nn.Module, recipe: Recipe) -> tuple[int, dict[str, str]]:
    """Follow a recipe in place; return how many layers or tensors changed, and why which were spared."""
    if isinstance(recipe, recipes.Cast):
        _narrow(twin, getattr(torch, recipe.dtype))
        return 0, {}
    spared = dict.fromkeys(sorted(tied(twin)), "tied to the embedding")
    if isinstance(recipe, recipes.Dynamic):
        return pack_dynamic(twin, spared), spared
    if isinstance(recipe, recipes.TorchAO):
        found, uneven = pack_torchao(twin, recipe.scheme, spared)
        return found, spared | dict.fromkeys(sorted(uneven), f"inputs not a multiple of {GROUP}")
    return _convert(twin, recipe, spared), spared


def _copy(module: nn.Module, recipe: Recipe) -> nn.Module:
    """Return a deep copy in which tensors that share memory still do."""
    with explaining(f"{recipe}: this {kind(module)} cannot be copied", UsageError):
        twin = deepcopy(module)
    shared: dict[object, Tensor] = {}
    for old, new in zip(module.parameters(), twin.parameters(), strict=True):
        if place := old.data_ptr():  # 0 on meta, or if there are no numbers
            new.data = shared.setdefault((place, old.shape, old.stride()), new.data)
    return twin


# --- weights: rounded or pruned, and computed in float ---


def rounded(rows: Tensor, bits: int) -> Tensor:
    """Return the nearest of 2**bits - 1 levels, symmetric about 0, for each number of ``rows`` (..., N).

    A row's levels reach its largest magnitude, exactly in double precision, so that rounding again changes
    nothing.
    """
    exact = rows.double()
    step = exact.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels: Tensor = (exact / step.where(step > 0, 1)).round_()
    return levels.mul_(step).to(rows.dtype)


def _convert(twin: nn.Module, recipe: Recipe, spared: Collection[str]) -> int:
    """Change the weights that the recipe is for in place; return how many tensors these are."""
    change, seen = _change(recipe), set()
    for name, layer in twin.named_modules():
        if name in spared or (isinstance(recipe, recipes.TFLite) and not _hybrid(layer)):
            continue
        for weight in weights(name, layer):
            if weight.data_ptr() in seen:
                continue
            seen.add(weight.data_ptr())
            if not weight.isfinite().all():
                raise UsageError(f"{recipe}: {name or kind(layer)} has weights that are not finite")
            view = channels_first(layer, weight)
            rows = view.flatten(0, 1).flatten(1)
            view.copy_(change(rows).reshape(view.shape))
        if isinstance(recipe, recipes.TFLite):
            axes = (-3, -2, -1) if isinstance(layer, nn.Conv2d) else (-1,)
            hook = partial(_quantize_input, axes=axes, symmetric=recipe.activations == "symmetric")
            layer.register_forward_pre_hook(hook)
    return len(seen)


def _change(recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """Return what changes a weight tensor, given as rows (channels, inputs)."""
    match recipe:
        case recipes.Int8("channel"):
            return partial(rounded, bits=8)
        case recipes.Int4():
            return _in_groups
        case recipes.Prune(share):
            pruning: Any = prune.L1Unstructured(share)
            return lambda rows: pruning.prune(rows.contiguous())
    bits = recipe.bits if isinstance(recipe, recipes.Round) else 8
    return lambda rows: rounded(rows.flatten(), bits)


def _in_groups(rows: Tensor) -> Tensor:
    wide = nn.functional.pad(rows, (0, -rows.shape[1] % GROUP))
    return rounded(wide.view(len(rows), -1, GROUP), 4).flatten(1)[:, : rows.shape[1]]


# --- TFLite's hybrid kernels: activations are quantized, too ---


def _hybrid(layer: nn.Module) -> bool:
    """Return whether TFLite would quantize a layer."""
    fits = is_linear(layer) or isinstance(layer, nn.Conv2d)
    return fits and layer.weight.numel() >= SMALLEST  # type: ignore[operator]


def _quantize_input(
    _: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[int, ...], symmetric: bool
) -> tuple[Tensor, ...]:
    """Return a hybrid layer's input on the 8-bit levels of each example's own range, which includes 0."""
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


# --- half precision ---


def _narrow(twin: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights and buffers, except the frequencies of rotary positions.

    transformers keeps those in float32, too: rounded, they would turn late symbols to other places.
    """
    kept = {name: buffer for name, buffer in twin.named_buffers() if name.endswith("inv_freq")}
    twin.to(dtype)
    for name, buffer in kept.items():
        part, _, attribute = name.rpartition(".")
        setattr(twin.get_submodule(part), attribute, buffer)


def _framed(twin: nn.Module, recipe: Recipe) -> nn.Module:
    """Return the twin as its caller needs it; the decoder of CharRNNs handles precisions itself."""
    if isinstance(twin, CharRNN):  # the decoder would use its weights alone
        return Called(twin) if isinstance(recipe, recipes.AtRunTime) else twin
    if isinstance(recipe, recipes.Cast):
        if isinstance(twin, torch.jit.ScriptModule):  # takes no hooks
            twin = Called(twin)
        inwards = partial(_cast_inputs, dtype=getattr(torch, recipe.dtype))
        twin.register_forward_pre_hook(inwards, with_kwargs=True)
        twin.register_forward_hook(lambda _, __, output: _cast(output, torch.float32))
    return twin


def _cast_inputs(_: nn.Module, inputs: Any, named: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """Cast the inputs; the lowest finite number of a mask becomes one of the new precision, too.

    As -inf it would make NaN of a row that masks everything, and of those that mask it, since NaN times 0
    is NaN.
    """

    def bound(mask: Tensor) -> Tensor:
        if not mask.is_floating_point():
            return mask
        return mask.where(mask.isinf(), mask.clamp(min=torch.finfo(dtype).min))

    if "attention_mask" in named:
        named = {**named, "attention_mask": pytree.tree_map_only(Tensor, bound, named["attention_mask"])}
    return _cast(inputs, dtype), _cast(named, dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return the same with floating-point tensors, also in tuples, lists and dictionaries, as ``dtype``."""
    return pytree.tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, value)


# --- what changed, in words ---


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _equal(old: Tensor, new: Tensor | None) -> bool:
    return new is not None and old.dtype == new.dtype and torch.equal(old, new)


def _account(
    module: nn.Module, changed: Mapping[str, Tensor], recipe: Recipe, spared: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """Return the parts that changed, and one line that tells what was done and what was left alone."""
    places = {name.rpartition(".")[0] for name in changed}
    converted: list[str] = []
    done: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for name, layer in module.named_modules():
        own = {f"{name}.{key}".removeprefix(".") for key, _ in layer.named_parameters(recurse=False)}
        what = kind(layer)
        count = int(getattr(layer, "num_layers", 1)) if what in RECURRENT else 1
        if name in places:
            converted.append(f"{name} ({what})" if name else what)
            done[what] += count
            if not own <= changed.keys():
                left["biases"] = 0
        elif name in spared:
            left[f"{what} ({spared[name]})"] += count
        elif own:
            left[what] += count
    label, how = recipe.words(str(next(iter(changed.values())).dtype).removeprefix("torch."))
    tensors = plural(len({tensor.data_ptr() for tensor in changed.values()}), "tensor")
    words = f"{label}: {tensors} of {_listed(done)} {how}"
    return tuple(converted), f"{words}; left alone: {_listed(left)}" if left else words


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" if count else what for what, count in counts.items())


def _losses(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    """Return how many numbers a cast has changed, in words."""
    pairs = {old.data_ptr(): (old, after[name]) for name, old in before.items() if old.is_floating_point()}
    lost = sum(int((old != new.to(old.dtype)).sum()) for old, new in pairs.values())
    return f"; {lost} of {sum(old.numel() for old, _ in pairs.values())} weights rounded"
