"""The dictionary of tensors in a file: pickled or not, nested in others, its names prefixed."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lmfuzz.errors import TargetError

T = TypeVar("T")
DEPTH = 4  # of dictionaries within each other that are looked into
_USUAL = ("model_state_dict", "state_dict", "model")  # if there are others of as many tensors


def read(path: Path) -> Any:
    """Return what a file of torch or safetensors holds; no code that is in it runs.

    Raises:
        TargetError: It is damaged, or holds more than tensors and plain data.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise TargetError(f"{path} is not a sound safetensors file: {error}") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # about protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds; torch's own message advises to trust the file
        objects = _objects(path)
        what = f": objects such as {objects}" if objects else f" or is damaged ({type(error).__name__})"
        raise TargetError(
            f"{path} holds more than tensors{what}; these alone are read, since other objects can run code:"
            " where the model was trained, save its state_dict: torch.save(model.state_dict(), 'weights.pt')"
        ) from None


def _objects(path: Path) -> str:
    """Return the name of a class in a pickle that is not plain data, or '' if it does not say."""
    try:
        return min(torch.serialization.get_unsafe_globals_in_checkpoint(path), default="")[:80]
    except Exception:  # not a zip file, or damaged
        return ""


def tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the dictionary of most tensors in what a file holds, those of an optimizer aside.

    Raises:
        TargetError: There is none, or several have as many and none a usual name.
    """
    found = dict(_dictionaries(content))
    most = max(map(len, found.values()), default=0)
    best = [name for name, tensors in found.items() if len(tensors) == most]
    if not best:
        raise TargetError(f"{path} is not a dictionary of tensors (a state_dict), and holds none")
    chosen = best[0] if len(best) == 1 else next((name for name in _USUAL if name in best), None)
    if chosen is None:
        raise TargetError(
            f"{path} holds several networks, {' and '.join(best[:3])}; save the state_dict of one alone"
        )
    return found[chosen]


def _dictionaries(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(content, dict) or depth > DEPTH:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield name, tensors
    for key, value in named.items():
        if not key.lower().startswith("optim"):
            yield from _dictionaries(value, f"{name}.{key}" if name else key, depth + 1)


def without_prefix(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return tensors by their names without the parts that all begin with, such as ``module.``."""
    while all("." in name for name in tensors) and len({name.partition(".")[0] for name in tensors}) == 1:
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return dict(tensors)


def require_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: object, asks: str) -> None:
    """Raise TargetError unless these are the wanted tensors, of finite floating-point numbers.

    Args:
        given: The tensors.
        wanted: Tensors of the right names and shapes.
        place: What the tensors are in.
        asks: What asks for the wanted ones.
    """
    for verb, more, less in (("lacks", wanted, given), ("has unknown", given, wanted)):
        if names := sorted(more.keys() - less):
            raise TargetError(f"{place} {verb} tensors: {listed({name: more[name] for name in names})}")
    for name, tensor in given.items():
        shape, right = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != right:
            raise TargetError(f"tensor {name} in {place} has shape {shape}; {asks} asks for {right}")
        if tensor.is_meta or tensor.layout != torch.strided or not tensor.is_floating_point():
            raise TargetError(f"tensor {name} in {place} does not hold plain floating-point numbers")
        if not tensor.float().isfinite().all():
            raise TargetError(f"tensor {name} in {place} holds NaN or infinite weights")


def listed(tensors: Mapping[str, Tensor], most: int = 6) -> str:
    """Return the names and shapes of tensors, of the first ``most`` of them."""
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
