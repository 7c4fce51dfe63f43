"""Checkpoint folders of lmfuzz's own networks: ``config.json`` beside ``model.safetensors``."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from lmfuzz import files
from lmfuzz.errors import TargetError, nearest
from lmfuzz.plugins.coerce import complaint
from lmfuzz.targets.classifiers import Classifier, ClassifierConfig
from lmfuzz.targets.importing.state_dict import read, require_fit, tensors_in, without_prefix
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")

Config = CharRNNConfig | ClassifierConfig
Network = CharRNN | Classifier
_NETWORKS: dict[type[Config], Any] = {CharRNNConfig: CharRNN, ClassifierConfig: Classifier}
_FORMATS: dict[str, type[Config]] = {kind.model_fields["format"].default: kind for kind in _NETWORKS}


def save(model: Network, folder: Path) -> None:
    """Write ``model`` as a checkpoint folder, which is created if it does not exist."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    files.write(safetensors.torch.save(tensors), folder / WEIGHTS)
    config = json.dumps(model.config.model_dump(), indent=2, ensure_ascii=True)
    files.write(config + "\n", folder / CONFIG)


def load(folder: Path, *, allow_pickle: bool = False) -> Network:
    """Return the network in ``folder``, in evaluation mode.

    Args:
        folder: The checkpoint folder.
        allow_pickle: Whether the tensors of a pickle may be read if there is no safetensors file.

    Raises:
        TargetError: The folder is not a sound checkpoint: a file is missing, a field or tensor is missing,
            unknown or misshapen, weights are not finite, or there is only a pickle.
    """
    config = _config(folder / CONFIG)
    tensors = _tensors(folder, allow_pickle)
    network = _NETWORKS[type(config)]
    with torch.device("meta"):  # a wrong size in the config must not fill the memory
        wanted = network(config).state_dict()
    if not tensors.keys() & wanted.keys():  # all are prefixed, or are another model's
        names = dict(zip(without_prefix(wanted), wanted, strict=True))
        tensors = {names.get(name, name): tensor for name, tensor in without_prefix(tensors).items()}
    require_fit(tensors, wanted, f"the checkpoint in {folder}", f"its {CONFIG}")
    model: Network = network(config)
    model.load_state_dict(tensors)
    return model.eval()


def _config(path: Path) -> Config:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise TargetError(f"{path.parent} is not a checkpoint folder: it has no {CONFIG}") from None
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{path} is not JSON: {error}") from None
    name = content.get("format") if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in _FORMATS:
        formats = " or ".join(f'"{known}"' for known in _FORMATS)
        raise TargetError(
            f"{path} is not one of lmfuzz's: it must be a JSON object with "
            f'"format": {formats}{f", not {name!r:.80}" if name else ""}'
        )
    kind = _FORMATS[name]
    fields = kind.model_fields
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # a key that is not valid Unicode
            raise TargetError(f"{path} cannot be used: {first['msg']}") from None
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise TargetError(f"{path} has an unknown key {key!r}{nearest(key, fields)}") from None
        if first["type"] == "missing":
            raise TargetError(f"{path} lacks the key {key!r}") from None
        wrong = complaint(error, content[key], fields[key].annotation)
        raise TargetError(f"in {path}, {key} {wrong}") from None


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.exists():
        path = find_pickle(folder, allow_pickle)
    return tensors_in(read(path), path)


def find_pickle(folder: Path, allow_pickle: bool) -> Path:
    """Return the first pickle of a folder that has no safetensors.

    Raises:
        TargetError: There is none, or it may not be read.
    """
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        raise TargetError(f"{folder} has no weights: a {WEIGHTS} belongs beside its {CONFIG}")
    if not allow_pickle:
        raise TargetError(
            f"{pickles[0]} is a pickle, which can run code when it is read; convert it to {WEIGHTS}, or pass"
            " --allow-pickle to read only its tensors"
        )
    return pickles[0]
