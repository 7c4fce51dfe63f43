"""From what a campaign's spec calls its model to a target."""

import json
import traceback
from pathlib import Path
from typing import Any

from lmfuzz import plugins
from lmfuzz.calls import parse
from lmfuzz.errors import TargetError, UsageError, nearest
from lmfuzz.protocols import Target
from lmfuzz.spec import Spec

BUNDLED = Path(__file__).parent.parent / "models" / "shakespeare"
_PROMISED = ("space", "channels", "identity", "run")


def load_target(spec: Spec) -> Target:
    """The target that ``spec.model`` names.

    '' is the bundled model; else a checkpoint folder, the name of an installed plug-in, or
    ``file.py:factory`` or ``module:factory``, which returns a Target or a torch module. TargetError, in
    one sentence, when it cannot be loaded.
    """
    model = spec.model
    folder = Path(model).expanduser() if model else BUNDLED
    if folder.is_dir():
        return _checkpoint(folder, spec)
    if folder.is_file() and folder.suffix != ".py":
        raise TargetError(f"{model} is a file; a model is a checkpoint folder, or file.py:factory")
    if model.endswith(".py"):
        raise TargetError(f"{model} is a Python file; say what in it makes the model: {model}:factory")
    try:
        call = parse(model)
        if call.name in plugins.names("targets"):
            return _ready(plugins.build("targets", call), model, spec)
        if ":" not in call.name:
            known = nearest(call.name, plugins.names("targets"))
            raise TargetError(f"there is no checkpoint folder {model}, and no target of that name{known}")
        if call.parameters or call.parts:
            raise TargetError(f"{call.name} is called without parameters; write a factory that gives them")
        factory = plugins.resolve(call.name)
    except UsageError as error:
        raise TargetError(str(error)) from error
    made = hasattr(factory, "state_dict") and not isinstance(factory, type)  # a module, no factory
    return _ready(factory if made or not callable(factory) else _made(factory, model), model, spec)


def _checkpoint(folder: Path, spec: Spec) -> Target:
    from lmfuzz.targets import checkpoint

    if (config := folder / checkpoint.CONFIG).is_file():
        try:
            content = json.loads(config.read_bytes())
        except (ValueError, OSError):
            content = {}  # said better where it is read
        if isinstance(content, dict) and "model_type" in content:
            raise TargetError(f"{folder} is a Hugging Face folder, which is not supported yet")
    return _module(checkpoint.load(folder, allow_pickle=spec.allow_pickle), str(folder), spec)


def _made(factory: Any, model: str) -> Any:
    """What the factory returns; whatever it raises is a TargetError that names file and line."""
    try:
        return factory()
    except (UsageError, TargetError) as error:
        raise TargetError(f"{model}: {error}") from error
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        raise TargetError(f"{model} raised {said} ({frame.filename}, line {frame.lineno})") from error


def _ready(made: Any, model: str, spec: Spec) -> Target:
    """A Target as it is; a torch module as one."""
    if hasattr(made, "run") and all(hasattr(made, name) for name in _PROMISED):
        target: Target = made
        return target
    if hasattr(made, "state_dict") and hasattr(made, "forward"):
        return _module(made, model, spec)
    lacks = ", ".join(name for name in _PROMISED if not hasattr(made, name))
    raise TargetError(
        f"{model} makes a {type(made).__name__}, which is neither a torch module nor a target: "
        f"it lacks {lacks}"
    )


def _module(module: Any, model: str, spec: Spec) -> Target:
    import torch

    from lmfuzz.targets.char_rnn import CharRNN
    from lmfuzz.targets.module import ModuleTarget
    from lmfuzz.targets.rnn_target import Decoding, RNNTarget

    torch.set_num_threads(1)  # measured: two threads on two cores are a third as fast as one
    decoding = Decoding(spec.max_new, spec.temperature, spec.decode_seed, tuple(spec.stop))
    if isinstance(module, CharRNN):
        return RNNTarget(module, decoding, spec.min_length, spec.max_length)
    return ModuleTarget(module, model, decoding, spec.min_length, spec.max_length)
