"""Quantized kernels instead of a module's float layers: torch's dynamic ones, or torchao's."""

from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lmfuzz.errors import UsageError, explaining, extra, quiet
from lmfuzz.targets.twins.layers import is_linear, is_turned
from lmfuzz.targets.twins.recipes import GROUP


def pack_dynamic(module: nn.Module, spared: Collection[str]) -> int:
    """Replace Linear, LSTM, GRU and Conv1D by torch's dynamic int8 layers, and return how many.

    The layers named in ``spared`` stay as they are.

    Raises:
        UsageError: torch has no such layers, cannot convert the module, or they could not run: they take
            float32 on the CPU.
    """
    floats = (weight for weight in module.parameters() if weight.is_floating_point())
    kept = {f"{weight.dtype} on {weight.device.type}" for weight in floats}
    if wrong := sorted(kept - {"torch.float32 on cpu"}):
        raise UsageError(f"dynamic takes float32 layers on the CPU, not {', '.join(wrong)}; use torchao")
    try:
        dynamic = import_module("torch.ao.nn.quantized.dynamic")
        quantization = import_module("torch.ao.quantization")
    except ImportError:
        raise UsageError("this version of torch no longer has dynamic; use int8 or tflite") from None
    turned = _unfold(module, spared)
    how: dict[Any, Any] = {
        **dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), quantization.default_dynamic_qconfig),
        **dict.fromkeys(spared),  # a name counts for more than a kind
    }
    with quiet(), explaining("dynamic: torch cannot quantize this module", UsageError):
        quantization.quantize_dynamic(module, how, inplace=True)
    kinds = (dynamic.Linear, dynamic.LSTM, dynamic.GRU)
    packed = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    return _keep_state(module, packed, turned)


def pack_torchao(module: nn.Module, scheme: str, spared: Collection[str]) -> tuple[int, set[str]]:
    """Give Linear and Conv1D layers torchao's quantized weights.

    Args:
        module: The module, which is changed in place.
        scheme: The recipe's: int8, int8dq or int4.
        spared: The names of layers that stay as they are.

    Returns:
        How many layers were converted, and the names of those that int4 leaves alone, since their inputs are
        not a multiple of 32.

    Raises:
        UsageError: torchao is missing, or cannot convert the module, or a weight is not finite.
    """
    inputs = {
        name: _inputs(layer)
        for name, layer in module.named_modules(remove_duplicate=False)
        if name not in spared and (name or not is_turned(layer))  # which cannot be replaced in itself
    }
    uneven = {name for name, count in inputs.items() if count % GROUP} if scheme == "int4" else set()
    turned = _unfold(module, {*spared, *uneven})
    packed: dict[str, Any] = {
        name: module.get_submodule(name) for name, count in inputs.items() if count and name not in uneven
    }
    for name, layer in packed.items():
        if not layer.weight.isfinite().all():
            raise UsageError(f"torchao: {name or 'Linear'} has weights that are not finite")
    with quiet(), explaining("torchao cannot quantize this module", UsageError):
        with extra("torchao"):
            import_module("torchao")
            ao = import_module("torchao.quantization")
        if scheme == "int4":
            int4: Any = getattr(torch, scheme)
            config = ao.IntxWeightOnlyConfig(weight_dtype=int4, granularity=ao.PerGroup(GROUP))
        else:
            kind = ao.Int8WeightOnlyConfig if scheme == "int8" else ao.Int8DynamicActivationInt8WeightConfig
            # Else it would set the precision of every float32 product in this process, the base's, too.
            config = kind(set_inductor_config=False)
        ao.quantize_(module, config, filter_fn=lambda _, name: name in packed)
    return _keep_state(module, packed, turned), uneven


def _inputs(layer: nn.Module) -> int:
    """Return how many numbers a layer for torchao takes; 0 for other kinds."""
    return layer.weight.shape[0 if is_turned(layer) else 1] if is_linear(layer) else 0  # type: ignore


def _unfold(module: nn.Module, spared: Collection[str]) -> set[str]:
    """Replace GPT-2's Conv1D, which no library quantizes, by Linear, and return their names."""
    turned = {
        name for name, layer in module.named_modules() if is_turned(layer) and name not in {"", *spared}
    }
    for name in turned:
        old: Any = module.get_submodule(name)
        inputs, outputs = old.weight.shape
        new: Any = nn.Linear(inputs, outputs, device="meta")
        new.weight, new.bias = nn.Parameter(old.weight.T.contiguous()), old.bias
        module.set_submodule(name, new.train(old.training))
    return turned


def _keep_state(module: nn.Module, packed: Mapping[str, nn.Module], turned: set[str]) -> int:
    """Let the module's state show what is packed as the base's does; return how many layers these are."""
    for layer in packed.values():
        layer.register_forward_pre_hook(_present)
    hook = partial(_unpacked, packed=packed, turned=turned)
    module.register_state_dict_post_hook(hook)  # type: ignore[no-untyped-call]
    return len(packed)


def _unpacked(
    _: nn.Module, state: dict[str, Any], prefix: str, __: Any, packed: Mapping[str, Any], turned: set[str]
) -> None:
    """Replace what is packed in a state by float tensors under the names of the base's."""
    for name, layer in packed.items():
        start = f"{prefix}{name}." if name else prefix
        for key in [key for key in state if key.startswith(start)]:
            del state[key]
        for key, tensor in _tensors(layer).items():
            if tensor is not None:
                plain = tensor.detach().dequantize()
                state[start + key] = plain.T if name in turned and plain.ndim == 2 else plain


def _tensors(layer: Any) -> dict[str, Tensor | None]:
    if hasattr(layer, "get_weight"):  # torch's LSTM and GRU
        return {**layer.get_weight(), **layer.get_bias()}
    if callable(layer.weight):  # torch's Linear
        return {"weight": layer.weight(), "bias": layer.bias()}
    return {"weight": layer.weight, "bias": layer.bias}


def _present(_: nn.Module, __: tuple[Tensor, ...]) -> None:
    """Do nothing: with a hook torch's fused encoder, which reads weights that are packed, is not used."""
