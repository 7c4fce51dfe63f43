"""From what a campaign's spec calls its model, and its twin, to a target."""

import inspect
import json
import re
import traceback
from pathlib import Path
from typing import Any

from lmfuzz.errors import TargetError, UsageError, nearest
from lmfuzz.inputs.bundled import MODELS, PREFIX, expand, resource
from lmfuzz.plugins.grammar import parse
from lmfuzz.plugins.modules import resolve
from lmfuzz.protocols import Target
from lmfuzz.spec import NOTHING, PYTHON, Own, Spec, own_object
from lmfuzz.targets import TARGETS
from lmfuzz.targets.kinds import as_target, given, hugging_face, is_function, is_module
from lmfuzz.targets.twins.recipes import RECIPES, is_recipe

BUNDLED = f"{MODELS}shakespeare"
_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # OWNER/NAME
FILES = (".pt", ".pth", ".pt2", ".ts")  # TorchScript and exported programs


def load_target(spec: Spec, own: Own = NOTHING) -> Target:
    """Return the target that ``spec.model`` names; with ``spec.twin``, the pair of both.

    '' is the bundled model; else a checkpoint folder, a TorchScript file or exported program, the name of an
    installed plug-in, or ``file.py:factory`` or ``module:factory``, which returns a Target or a torch
    module, or is a function with a ``space``. A twin is named in the same way, or is a recipe for one.
    TargetError, in one sentence, when one cannot be loaded or the two do not fit each other.
    """
    base = _load(spec.model or BUNDLED, spec, own)
    if not spec.twin:
        return base
    known_kind = is_recipe(spec.twin) or ":" in spec.twin or _HUB.fullmatch(spec.twin)
    if not known_kind and not Path(spec.twin).expanduser().exists():
        known = nearest(spec.twin, RECIPES.table) or f"; recipes are {', '.join(RECIPES.table)}"
        raise TargetError(f"there is neither a model nor a recipe {spec.twin}{known}")
    from lmfuzz.targets.twins.pair import pair

    if not is_recipe(spec.twin) or Path(spec.twin).exists():
        return pair(base, _load(spec.twin, spec, own))
    return pair(base, *_compressed(base, spec))


def _load(model: str, spec: Spec, own: Own) -> Target:
    """The target that a name stands for."""
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

        return as_target(load_file(path), model, spec)
    if path.is_file() and path.suffix != ".py":
        raise TargetError(f"{model} is a file; a model is a checkpoint folder, or file.py:factory")
    if _HUB.fullmatch(model) and not path.exists():
        return hugging_face(model, model, spec)
    return as_target(_named(model), model, spec)


def _for_transformers(folder: Path) -> bool:
    """Whether a folder holds a model in the Hugging Face format."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (ValueError, OSError):
        return False  # what is wrong is said better where it is read
    return isinstance(content, dict) and "model_type" in content


def _named(model: str) -> Any:
    """What a plug-in or a factory makes, or the module or function that ``module:name`` is itself."""
    if model.endswith(".py"):
        raise TargetError(f"{model} is a Python file; say what in it makes the model: {model}:factory")
    try:
        call = parse(model)
        if call.name in TARGETS.names():
            return TARGETS.build(call.map_texts(expand))
        if ":" not in call.name:
            known = nearest(call.name, TARGETS.names())
            raise TargetError(f"there is no checkpoint folder {model}, and no target of that name{known}")
        if call.parameters or call.parts:
            raise TargetError(f"{call.name} is called without parameters; write a factory that gives them")
        factory = resolve(call.name)
    except UsageError as error:
        raise TargetError(str(error)) from error
    made = is_module(factory) and not isinstance(factory, type)
    return factory if made or not callable(factory) or is_function(factory) else _made(factory, model)


def _made(factory: Any, model: str) -> Any:
    """What the factory returns; whatever it raises is a TargetError that names file and line."""
    if _asks(factory):
        raise TargetError(
            f"{model} takes arguments, so it is no factory; a function of tensors declares its box of legal "
            "values: @on(BoxSpace((N,), LOW, HIGH)) above it, with lmfuzz.targets.function.on"
        )
    try:
        return factory()
    except (UsageError, TargetError) as error:
        raise TargetError(f"{model}: {error}") from error
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        raise TargetError(f"{model} raised {said} ({frame.filename}, line {frame.lineno})") from error


def _asks(factory: Any) -> bool:
    """Whether something cannot be called without arguments."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def _compressed(base: Target, spec: Spec) -> tuple[Target, str]:
    """The twin of ``base`` that a recipe makes, and what it converted."""
    from lmfuzz.targets.capabilities import Compressible
    from lmfuzz.targets.twins.compress import make_twin

    if not isinstance(base, Compressible):
        raise TargetError(f"the recipe {spec.twin} needs a torch module; {spec.model} is none")
    made = make_twin(base.module, spec.twin)
    twin = base.like(made.module, f"the twin {spec.twin}")
    twin.identity = f"{twin.identity}-{made.recipe}"  # what is rounded on the way is in no tensor
    return twin, made.words
