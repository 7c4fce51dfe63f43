"""Compressed twins of a torch module: cast, rounded, pruned or quantised, and shown to differ from it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils import prune

from lmfuzz.errors import UsageError, one_line
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.twins import recipes
from lmfuzz.targets.twins.kernels import pack_dynamic, pack_torchao
from lmfuzz.targets.twins.layers import RECURRENT, channels_first, is_turned, kind, tied, weights
from lmfuzz.targets.twins.recipes import GROUP, SMALLEST, Recipe, read


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
    """Make the twin of ``module`` that ``recipe`` (see recipes.py) names; the module stays as it is.

    It takes and gives float32, and its ``state_dict()`` holds the converted weights. A CharRNN's twin is
    a CharRNN, of half precision with fp16 and bf16; where its layers run in another way (tflite, dynamic,
    torchao) it is a Called. But for a cast, a layer whose weight is an embedding's is left alone.
    UsageError when there is no such recipe, it cannot be followed, or it changes no tensor.
    """
    chosen = read(recipe)
    if isinstance(chosen, recipes.AtRunTime) and isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"{chosen} changes how layers run, which TorchScript forbids; give a Python module")
    if packed := {type(weight.data) for weight in module.parameters()} - {Tensor}:
        packs = _listed(sorted(one.__name__ for one in packed))
        raise UsageError(f"{chosen}: this {kind(module)} is quantised already ({packs}); give one of floats")
    twin = _copy(module, chosen)
    found, spared = _compress(twin, chosen)
    before, after = _state(module), _state(twin)
    changed = {name: old for name, old in before.items() if _differs(old, after.get(name))}
    if not changed:
        none = " but ".join(["and there are none", *([_listed(_excused(module, spared))] if spared else [])])
        why = f"whose tensors ({found}) stay as they were" if found else none
        raise UsageError(
            f"{chosen} changes nothing in this {kind(module)}: it looks for {chosen.seeks}, {why}"
        )
    converted, words = _account(module, changed, chosen, spared)
    if isinstance(chosen, recipes.Cast):
        words += _losses(before, after)
    return Twin(_framed(twin, chosen), str(chosen), converted, words)


def _compress(twin: nn.Module, recipe: Recipe) -> tuple[int, dict[str, str]]:
    """Follows a recipe in place; how many layers or tensors it changed, and why it spared which layers."""
    if isinstance(recipe, recipes.Cast):
        _narrow(twin, getattr(torch, recipe.dtype))
        return 0, {}
    spared = dict.fromkeys(sorted(tied(twin)), "tied to the embedding")
    if isinstance(recipe, recipes.Dynamic):
        return pack_dynamic(twin, spared), spared
    if isinstance(recipe, recipes.TorchAO):
        found, uneven = pack_torchao(twin, recipe.scheme, spared)
        return found, spared | dict.fromkeys(sorted(uneven), f"inputs no multiple of {GROUP}")
    return _convert(twin, recipe, spared), spared


def _copy(module: nn.Module, recipe: Recipe) -> nn.Module:
    """A deep copy in which tensors that share memory still do."""
    try:
        twin = deepcopy(module)
    except Exception as error:
        raise UsageError(f"{recipe}: this {kind(module)} cannot be copied: {one_line(error)}") from error
    shared: dict[object, Tensor] = {}
    for old, new in zip(module.parameters(), twin.parameters(), strict=True):
        if place := old.data_ptr():  # none on meta, or where there are no numbers
            new.data = shared.setdefault((place, old.shape, old.stride()), new.data)
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


def _convert(twin: nn.Module, recipe: Recipe, spared: Collection[str]) -> int:
    """Changes the weights that the recipe is for in place; how many tensors these are."""
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
            hook = partial(_quantise_input, axes=axes, symmetric=recipe.activations == "symmetric")
            layer.register_forward_pre_hook(hook)
    return len(seen)


def _change(recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """What becomes of a weight tensor, as rows (channels, inputs)."""
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


# --- TFLite's hybrid kernels: activations are quantised, too ---


def _hybrid(layer: nn.Module) -> bool:
    """Whether TFLite would quantise a layer; attention's output layer is never called, so takes no hook."""
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return False
    fits = isinstance(layer, nn.Linear | nn.Conv2d) or is_turned(layer)
    return fits and layer.weight.numel() >= SMALLEST  # type: ignore[operator]


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


# --- half precision ---


def _narrow(twin: nn.Module, dtype: torch.dtype) -> None:
    """Casts weights and buffers, but for the frequencies of rotary positions.

    transformers keeps those in float32, too: rounded, they would turn late symbols to other places.
    """
    kept = [
        (part, name, buffer)
        for part in twin.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    twin.to(dtype)
    for part, name, buffer in kept:
        setattr(part, name, buffer)


def _framed(twin: nn.Module, recipe: Recipe) -> nn.Module:
    """The twin as its caller needs it; the decoder of CharRNNs looks after precisions itself."""
    if isinstance(twin, CharRNN):  # the decoder would step by its weights alone
        return Called(twin) if isinstance(recipe, recipes.AtRunTime) else twin
    if isinstance(recipe, recipes.Cast):
        if isinstance(twin, torch.jit.ScriptModule):  # takes no hooks
            twin = Called(twin)
        inwards = partial(_cast_inputs, dtype=getattr(torch, recipe.dtype))
        twin.register_forward_pre_hook(inwards, with_kwargs=True)
        twin.register_forward_hook(_cast_output)
    return twin


def _cast_inputs(_: nn.Module, inputs: Any, named: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    if "attention_mask" in named:
        named = {**named, "attention_mask": _bounded(named["attention_mask"], torch.finfo(dtype))}
    return _cast(inputs, dtype), _cast(named, dtype)


def _bounded(mask: Any, info: torch.finfo) -> Any:
    """A mask, or a dictionary of some, whose lowest finite number is one in the precision to come, too.

    A row that masks all would be NaN with -inf, and NaN times nothing is NaN for those that mask it.
    """
    if isinstance(mask, dict):
        return {name: _bounded(one, info) for name, one in mask.items()}
    if isinstance(mask, Tensor) and mask.is_floating_point():
        return mask.where(mask.isinf(), mask.clamp(min=info.min))
    return mask


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


def _account(
    module: nn.Module, changed: Mapping[str, Tensor], recipe: Recipe, spared: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """The parts that changed, and one line that tells what was done to them and what was left alone."""
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
            left["biases"] |= not own <= changed.keys()
        elif own and name not in spared:
            left[what] += count
    label, how = recipe.words(str(next(iter(changed.values())).dtype).removeprefix("torch."))
    tensors = len({tensor.data_ptr() for tensor in changed.values()})
    kinds, layers = _listed(f"{count} {what}" for what, count in done.items()), done.total()
    words = f"{label}: {tensors} tensor{'s'[: tensors > 1]} of {kinds} layer{'s'[: layers > 1]} {how}"
    alone = [what if what == "biases" else f"{count} {what}" for what, count in left.items() if count]
    if alone := [*alone, *_excused(module, spared)]:
        words += f"; {_listed(alone)} left alone"
    return tuple(converted), words


def _excused(module: nn.Module, spared: Mapping[str, str]) -> list[str]:
    """Layers that were left alone, with the reason: by name if it is one, else how many of which kind."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in spared.items():
        groups.setdefault((kind(module.get_submodule(name)), reason), []).append(name)
    return [
        f"{(names[0] or what) if len(names) == 1 else f'{len(names)} {what}'} ({reason})"
        for (what, reason), names in groups.items()
    ]


def _losses(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    """How many numbers a cast has changed."""
    pairs = {old.data_ptr(): (old, after[name]) for name, old in before.items() if old.is_floating_point()}
    lost = sum(int((old != new.to(old.dtype)).sum()) for old, new in pairs.values())
    total = sum(old.numel() for old, _ in pairs.values())
    return f"; {lost} of {total} weights rounded" if lost else "; every weight is representable as it is"


def _listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
