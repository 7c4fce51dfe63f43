"""From the names of a campaign's model and twin to a target."""

import inspect
import json
import re
import traceback
from pathlib import Path
from typing import Any

from lmfuzz.errors import INTERRUPTS, TargetError, UsageError, nearest, one_line
from lmfuzz.inputs.bundled import MODELS, PREFIX, expand, resource
from lmfuzz.plugins.grammar import parse
from lmfuzz.plugins.modules import resolve
from lmfuzz.protocols import Target
from lmfuzz.spec import NO_OBJECTS, PYTHON, Own, Spec, own_object
from lmfuzz.targets import TARGETS
from lmfuzz.targets.kinds import as_target, given, hugging_face, is_function, is_module
from lmfuzz.targets.twins.recipes import RECIPES, is_recipe
from lmfuzz.text import import_command

BUNDLED = f"{MODELS}shakespeare"
_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # OWNER/NAME
FILES = (".pt", ".pth", ".pt2", ".ts")  # TorchScript and exported programs
CHECKPOINTS = (".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras")


def load_target(spec: Spec, own: Own = NO_OBJECTS) -> Target:
    """Return the target that ``spec.model`` names; with ``spec.twin``, the pair of both.

    '' is the bundled model. Other models are a checkpoint folder, a TorchScript file or exported program, the
    name of an installed plug-in, OWNER/NAME on the hub, or ``file.py:factory`` or ``module:factory``, which
    returns a Target or a torch module, or is a function with a ``space``. A twin is named in the same way,
    or by a recipe.

    Raises:
        TargetError: One cannot be loaded, or the two do not fit each other.
    """
    base = _load(spec.model or BUNDLED, spec, own)
    if not spec.twin:
        return base
    from lmfuzz.targets.capabilities import Compressible
    from lmfuzz.targets.twins.compress import make_twin
    from lmfuzz.targets.twins.pair import pair

    if is_recipe(spec.twin) and not Path(spec.twin).exists():
        if not isinstance(base, Compressible):
            raise TargetError(f"the recipe {spec.twin} needs a torch module, which {spec.model} is not")
        made = make_twin(base.module, spec.twin)
        twin = base.like(made.module, f"the twin {spec.twin}")
        twin.identity = f"{twin.identity}-{made.recipe}"  # rounding at run time is in no tensor
        return pair(base, twin, made.words)
    if not (":" in spec.twin or _HUB.fullmatch(spec.twin) or Path(spec.twin).expanduser().exists()):
        known = nearest(spec.twin, RECIPES.table) or f"; recipes are {', '.join(RECIPES.table)}"
        raise TargetError(f"there is neither a model nor a recipe {spec.twin}{known}")
    same = spec.model_copy(update={"clock": spec.clock or base.info.clock})
    return pair(base, _load(spec.twin, same, own))


def _load(model: str, spec: Spec, own: Own) -> Target:
    """Return the target that a name stands for."""
    if (found := own_object(model, own)) is not None:
        return given(found, model.removeprefix(PYTHON), spec)
    try:
        file, python, attribute = model.partition(".py:")  # corpora:examples/broken_loss.py:broken_loss, too
        path = resource(file + ".py") if python else resource(model)
    except UsageError as error:
        raise TargetError(str(error)) from None
    if python:
        place = f"{path}:{attribute}" if model.startswith(PREFIX) else model
        return as_target(_named(place), model, spec)
    if path.is_dir():
        if _for_transformers(path):
            return hugging_face(str(path), model, spec)
        from lmfuzz.targets import checkpoint

        return as_target(checkpoint.load(path, allow_pickle=spec.allow_pickle), model, spec)
    if path.is_file() and path.suffix in FILES:
        from lmfuzz.targets.image import load_file

        return as_target(load_file(path, trust=spec.trust_remote_code), model, spec)
    if path.is_file() and path.suffix in CHECKPOINTS:
        raise TargetError(
            f"{model} is a checkpoint, weights without what runs them; make a folder of it with:"
            f" {import_command(path)}"
        )
    if path.is_file() and path.suffix != ".py":
        raise TargetError(f"{model} is not a model; give a checkpoint folder, or a function as model.py:make")
    if _HUB.fullmatch(model) and not path.exists():
        return hugging_face(model, model, spec)
    return as_target(_named(model), model, spec)


def _for_transformers(folder: Path) -> bool:
    """Return whether a folder holds a model in the Hugging Face format, or an adapter of one."""
    if (folder / "adapter_config.json").exists():
        return True
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (ValueError, OSError, RecursionError):
        return False  # what reads it says better what is wrong
    return isinstance(content, dict) and "model_type" in content


def _named(model: str) -> Any:
    """Return what a plug-in or factory makes, or the module or function that ``module:name`` is itself."""
    if model.endswith(".py"):
        raise TargetError(f"{model} is a Python file; name the function that makes the model: {model}:make")
    try:
        call = parse(model)
        if call.name in TARGETS.names():
            return TARGETS.build(call.map_texts(expand))
        if ":" not in call.name:
            known = nearest(call.name, TARGETS.names())
            raise TargetError(f"there is no checkpoint folder {model}, and no target of that name{known}")
        if call.parameters or call.parts:
            raise TargetError(f"{call.name} takes no parameters; write a function that passes them to it")
        factory = resolve(call.name)
    except UsageError as error:
        raise TargetError(str(error)) from error
    made = is_module(factory) and not isinstance(factory, type)
    return factory if made or not callable(factory) or is_function(factory) else _made(factory, model)


def _made(factory: Any, model: str) -> Any:
    """Return what the factory makes; what it raises becomes a TargetError that names file and line."""
    try:
        inspect.signature(factory).bind()
    except ValueError:  # no signature: of what is written in C
        pass
    except TypeError:
        raise TargetError(
            f"{model} takes arguments, so it cannot be called to make the model; if it is a function of"
            " tensors, declare its box of legal values above it: @lmfuzz.on(BoxSpace((2,), -1.0, 1.0))"
        ) from None
    try:
        return factory()
    except (UsageError, TargetError) as error:
        raise TargetError(f"{model}: {error}") from error
    except INTERRUPTS:
        raise
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raised = one_line(error).removesuffix(":")
        raise TargetError(f"{model} raised {raised} ({frame.filename}, line {frame.lineno})") from error
