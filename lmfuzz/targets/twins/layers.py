"""The layers of a module, for compression: their kinds, and their weights.

Layers are known by the names of their classes, so that transformers' Conv1D and the parts of a
TorchScript module are found without an import or an isinstance.
"""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lmfuzz.errors import UsageError

RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})
_TRANSPOSED = frozenset({"ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"})
_FORWARD = frozenset({"Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention", "Conv1D"})
_KNOWN = _FORWARD | _TRANSPOSED | RECURRENT
_COMPUTED = ("_orig", "_g", "_v")  # parameters of which pruning and weight_norm compute a weight at each call


def kind(layer: nn.Module) -> str:
    """Return the name of a layer's class, also inside a TorchScript module."""
    name = str(getattr(layer, "original_name", type(layer).__name__))
    return name.removeprefix("NonDynamicallyQuantizable")  # attention's output layer


def is_turned(layer: nn.Module) -> bool:
    """Return whether a layer is GPT-2's Conv1D: a linear one with weights (inputs, outputs)."""
    weight = getattr(layer, "weight", None)
    return "Conv1D" in _kinds(layer) and isinstance(weight, Tensor) and weight.ndim == 2


def is_linear(layer: nn.Module) -> bool:
    """Return whether a layer is called as Linear or GPT-2's Conv1D; attention's output layer is not."""
    linear = isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)
    return linear or is_turned(layer)


def tied(module: nn.Module) -> set[str]:
    """Return the names of the layers whose weight is that of an embedding, as the output head's often is.

    To change it would change the embedding, what the model reads; quantizers leave it in float.
    """
    layers = [(name, layer, getattr(layer, "weight", None)) for name, layer in module.named_modules()]
    places = {
        weight.data_ptr()
        for _, layer, weight in layers
        if "Embedding" in _kinds(layer) and isinstance(weight, Tensor) and weight.numel()
    }
    return {
        name
        for name, layer, weight in layers
        if _kinds(layer) & _KNOWN and isinstance(weight, Tensor) and weight.data_ptr() in places
    }


def weights(name: str, layer: nn.Module) -> Iterator[Tensor]:
    """Yield a layer's own weight matrices and kernels, without biases; none for a layer of another kind.

    Raises:
        UsageError: A weight is computed again at each call; the error calls the layer ``name``.
    """
    if not _kinds(layer) & _KNOWN:
        return
    own = {key: tensor for key, tensor in layer.named_parameters(recurse=False) if "weight" in key}
    if hasattr(layer, "parametrizations") or any(key.endswith(_COMPUTED) for key in own):
        raise UsageError(
            f"{name or kind(layer)} computes its weight again at each call (a parametrization, weight_norm or"
            " pruning mask); remove that first, as torch.nn.utils.prune.remove does"
        )
    for weight in own.values():
        if weight.ndim >= 2 and weight.is_floating_point() and weight.numel():
            yield weight


def channels_first(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a view (groups, output channels, inputs ...) of a layer's weight."""
    if _kinds(layer) & _TRANSPOSED:
        groups = int(layer.groups)  # type: ignore[arg-type]
        return weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return (weight.T if is_turned(layer) else weight)[None]


def _kinds(layer: nn.Module) -> set[str]:
    """Return the names of a layer's classes."""
    return {kind(layer), *(one.__name__ for one in type(layer).__mro__)}
