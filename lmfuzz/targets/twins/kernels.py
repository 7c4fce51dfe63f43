"""Quantised kernels in the place of a module's float layers: torch's dynamic ones, or torchao's."""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lmfuzz.errors import UsageError, one_line
from lmfuzz.targets.twins.layers import is_turned
from lmfuzz.targets.twins.recipes import GROUP


def pack_dynamic(module: nn.Module, spared: Collection[str]) -> int:
    """Puts torch's dynamic int8 layers in the place of Linear, LSTM, GRU and Conv1D; how many.

    The layers called ``spared`` stay as they are. UsageError when torch has none, or cannot, or they could
    not run: they take float32 on the CPU.
    """
    try:
        from torch.ao.nn.quantized import dynamic
        from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic
    except ImportError:
        raise UsageError("dynamic is gone from this version of torch; use int8 or tflite") from None
    floats = (weight for weight in module.parameters() if weight.is_floating_point())
    kept = {f"{weight.dtype} on {weight.device.type}" for weight in floats}
    if wrong := sorted(kept - {"torch.float32 on cpu"}):
        raise UsageError(
            f"dynamic: torch's layers take float32 on the CPU, not {', '.join(wrong)}; use torchao"
        )
    turned = _unfold(module, spared)
    how: dict[Any, Any] = {
        **dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), default_dynamic_qconfig),
        **dict.fromkeys(spared),  # a name counts for more than a kind
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        try:
            quantize_dynamic(module, how, inplace=True)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise UsageError(f"dynamic: torch cannot quantise this module: {one_line(error)}") from error
    kinds = dynamic.Linear | dynamic.LSTM | dynamic.GRU
    packed = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    return _keep_state(module, packed, turned)


def pack_torchao(module: nn.Module, scheme: str, spared: Collection[str]) -> tuple[int, set[str]]:
    """Gives Linear and Conv1D layers torchao's quantised weights; how many, and which do not divide.

    ``scheme`` is one of the recipe's; the layers called ``spared`` stay as they are, and so do those of int4
    whose inputs are no multiple of 32, the names that are returned. UsageError when torchao is missing
    or cannot, or a weight is not finite.
    """
    quantize, config = _torchao(scheme)
    inputs = {
        name: _inputs(layer)
        for name, layer in module.named_modules(remove_duplicate=False)
        if name not in spared and (name or not is_turned(layer))  # which cannot be put in its own place
    }
    uneven = {name for name, count in inputs.items() if count % GROUP} if scheme == "int4" else set()
    turned = _unfold(module, {*spared, *uneven})
    packed: dict[str, Any] = {
        name: module.get_submodule(name) for name, count in inputs.items() if count and name not in uneven
    }
    for name, layer in packed.items():
        if not layer.weight.isfinite().all():
            raise UsageError(f"torchao: {name or 'Linear'} has weights that are not finite")
    try:
        with quiet():
            quantize(module, config, filter_fn=lambda _, name: name in packed)
    except Exception as error:
        raise UsageError(f"torchao cannot quantise this module: {one_line(error)}") from error
    return _keep_state(module, packed, turned), uneven


def _torchao(scheme: str) -> tuple[Any, Any]:
    """The function of torchao that quantises, and its configuration of a scheme."""
    try:
        with quiet():
            import_module("torchao")
            ao = import_module("torchao.quantization")
    except ModuleNotFoundError as error:
        if error.name != "torchao":
            raise UsageError(f"torchao cannot be imported: {one_line(error)}") from error
        raise UsageError(
            "the recipe torchao needs the package torchao, which is not installed: pip install"
            " 'lmfuzz[torchao]'"
        ) from None
    except Exception as error:
        raise UsageError(f"torchao cannot be imported: {one_line(error)}") from error
    if scheme == "int4":
        weights: Any = getattr(torch, scheme)
        return ao.quantize_, ao.IntxWeightOnlyConfig(weight_dtype=weights, granularity=ao.PerGroup(GROUP))
    config = ao.Int8WeightOnlyConfig if scheme == "int8" else ao.Int8DynamicActivationInt8WeightConfig
    # Else it would set the precision of every float32 product in this process, the base's, too.
    return ao.quantize_, config(set_inductor_config=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence: torchao reports kernels of other machines that it cannot load, and torch how it is used."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _inputs(layer: nn.Module) -> int:
    """How many numbers a layer for torchao takes; 0 for those of other kinds, and the output of attention."""
    if isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear):
        return layer.in_features
    return len(layer.weight) if is_turned(layer) else 0  # type: ignore[arg-type]


def _unfold(module: nn.Module, spared: Collection[str]) -> set[str]:
    """Puts Linear in the place of GPT-2's Conv1D, which is quantised by nobody; the names of these."""
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
    """Lets the module's state show what is packed as the base's does; how many layers these are."""
    for layer in packed.values():
        layer.register_forward_pre_hook(_present)
    hook = partial(_unpacked, packed=packed, turned=turned)
    module.register_state_dict_post_hook(hook)  # type: ignore[no-untyped-call]
    return len(packed)


def _unpacked(
    _: nn.Module, state: dict[str, Any], prefix: str, __: Any, packed: Mapping[str, Any], turned: set[str]
) -> None:
    """Puts float tensors under the names of the base's in the place of what is packed in a state."""
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
    """Does nothing; torch's fused encoder, which reads weights that are packed away, makes way for hooks."""
