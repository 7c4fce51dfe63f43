"""Recurrent networks of Keras, in an HDF5 or a .keras file, as torch's tensors.

Kernels are (in, out) in Keras and (out, in) in torch. The gates of an LSTM have the same order in both; those
of a GRU are z, r, h in Keras and r, z, n in torch, and with reset_after both compute the same.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmfuzz.errors import TargetError, explaining, extra

SUFFIXES = (".h5", ".hdf5", ".keras")
_FOLDERS = ("model_weights", "layers", "_layer_checkpoint_dependencies")  # of all layers, in the file
_RNN = {"activation": ("tanh",), "go_backwards": (False,)}
_GATED = {**_RNN, "recurrent_activation": ("sigmoid",)}
_LOGITS = {"activation": ("softmax", "linear", "log_softmax")}
_LAYERS: dict[str, dict[str, tuple[Any, ...]]] = {  # the layers that are read -> what their settings may be
    "InputLayer": {}, "Dropout": {}, "Embedding": {"mask_zero": (False,)}, "SimpleRNN": _RNN, "LSTM": _GATED,
    "GRU": {**_GATED, "reset_after": (True,)}, "Dense": _LOGITS, "Activation": _LOGITS,
}  # fmt: skip


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a recurrent network under names as torch has them.

    Without a configuration, as in .weights.h5, settings are taken to be Keras's defaults.

    Raises:
        TargetError: The file is damaged, or has a layer that is not read.
        UsageError: h5py is not installed.
    """
    with extra("keras"):
        import h5py
    with explaining(f"{path} is not a sound file of Keras"):
        data, config = path.read_bytes(), None
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                data, config = archive.read("model.weights.h5"), json.loads(archive.read("config.json"))
        layers: dict[str, dict[str, Tensor]] = {}

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not re.match("optim|.*/seed_", name):
                parts = name.split("/")
                layer = parts[parts[0] in _FOLDERS]
                layers.setdefault(layer, {})[name] = torch.as_tensor(item[()])

        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(keep)
            config = config or json.loads(file.attrs.get("model_config", "null"))
        order = _names(config, path) if config else []
        if path.suffix == ".keras":
            order = []  # its groups are numbered, whatever the layers are called
        tensors: dict[str, Tensor] = {}
        places = {name: place for place, name in enumerate(order)}
        for layer in sorted(layers, key=lambda name: (places.get(name, -1), _key(name))):
            tensors |= _converted(layer, layers[layer], len(tensors))
    return tensors


def _key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts lstm before lstm_2, and that before lstm_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _names(config: Any, path: Path) -> list[str]:
    """Return the names of a model's layers; raise TargetError for one that is not read."""
    names, layers = [], config["config"]
    for layer in layers["layers"] if isinstance(layers, dict) else layers:
        names.append(layer["config"]["name"])
        inner = layer["config"]["layer"] if layer["class_name"] == "TimeDistributed" else layer
        kind = inner["class_name"]
        where = f"layer {names[-1]} ({kind}) of {path}"
        if kind not in _LAYERS:
            raise TargetError(f"{where} cannot be imported; lmfuzz imports {', '.join(_LAYERS)}")
        for key, right in _LAYERS[kind].items():
            if (found := inner["config"].get(key, right[0])) not in right:
                raise TargetError(f"{where} has {key}={found}; lmfuzz imports {' or '.join(map(str, right))}")
    return names


def _converted(layer: str, tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return the tensors of a layer under torch's names; ``number`` is larger than that of layers before."""
    names = sorted(tensors, key=lambda name: (name.rpartition("/")[2].startswith("bias"), name))
    given = [tensors[name] for name in names]
    match [tensor.ndim for tensor in given]:
        case [2] if "embed" in names[0]:
            return {f"{layer}.weight": given[0]}
        case [2] | [2, 1]:
            return dict(zip((f"{layer}.weight", f"{layer}.bias"), (t.t() for t in given), strict=False))
        case [2, 2] | [2, 2, 1 | 2]:
            width, wide = given[1].shape
            if wide == 3 * width and given[-1].ndim == 1:
                return tensors  # without reset_after: torch has none like it
            if wide == 3 * width:
                swap = torch.arange(wide).view(3, width)[[1, 0, 2]].flatten()
                given = [tensor[:, swap] for tensor in given]
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            parts = [*given[:2], *(bias for both in given[2:] for bias in both.view(-1, wide))]
            return {f"rnn.{kind}_l{number}": part.t() for kind, part in zip(kinds, parts, strict=False)}
    return tensors
