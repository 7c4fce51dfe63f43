"""From what a campaign's spec calls its model, and its twin, to a target."""

import inspect
import json
import re
import traceback
from pathlib import Path
from typing import Any

from lmfuzz.errors import TargetError, UsageError, nearest
from lmfuzz.inputs.bundled import MODELS, PREFIX, expand, resource
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.plugins.grammar import parse
from lmfuzz.plugins.modules import resolve
from lmfuzz.protocols import Target
from lmfuzz.spec import Spec
from lmfuzz.targets import TARGETS
from lmfuzz.targets.twins.recipes import RECIPES, is_recipe

BUNDLED = f"{MODELS}shakespeare"
_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # OWNER/NAME
_CAUSAL = (
    "level",
    "system",
    "template",
    "layer",
    "device",
    "dtype",
    "batch_tokens",
    "threads",
    "trust_remote_code",
)
FILES = (".pt", ".pth", ".pt2", ".ts")  # TorchScript and exported programs
PROMISED = ("space", "channels", "identity", "run")  # of a target
LARGE = 256  # rows: on an H200 a batch of them takes as long as one of 64


def load_target(spec: Spec) -> Target:
    """The target that ``spec.model`` names; with ``spec.twin``, the pair of both.

    '' is the bundled model; else a checkpoint folder, a TorchScript file or exported program, the name of an
    installed plug-in, or ``file.py:factory`` or ``module:factory``, which returns a Target or a torch
    module, or is a function with a ``space``. A twin is named in the same way, or is a recipe for one.
    TargetError, in one sentence, when one cannot be loaded or the two do not fit each other.
    """
    found = _found(spec.model or BUNDLED, spec)
    base = _target(found, spec.model or BUNDLED, spec)
    if not spec.twin:
        return base
    known_kind = is_recipe(spec.twin) or ":" in spec.twin or _HUB.fullmatch(spec.twin)
    if not known_kind and not Path(spec.twin).expanduser().exists():
        known = nearest(spec.twin, RECIPES.table) or f"; recipes are {', '.join(RECIPES.table)}"
        raise TargetError(f"there is neither a model nor a recipe {spec.twin}{known}")
    if not is_recipe(spec.twin) or Path(spec.twin).exists():
        twin, words = _target(_found(spec.twin, spec), spec.twin, spec), ""
    else:
        twin, words = _compressed(base, spec)
    return _pair(base, twin, words)


def _found(model: str, spec: Spec) -> Any:
    """The torch module, the target or the function that a name stands for."""
    try:
        file, python, attribute = model.partition(".py:")  # corpora:examples/broken_loss.py:broken_loss, too
        path = resource(file + ".py") if python else resource(model)
    except UsageError as error:
        raise TargetError(str(error)) from None
    model = f"{path}:{attribute}" if python and model.startswith(PREFIX) else model
    path = Path(model) if python else path
    if path.is_dir():
        return _checkpoint(path, spec)
    if _HUB.fullmatch(model) and not path.exists():
        return _causal(model, spec)
    if path.is_file() and path.suffix in FILES:
        from lmfuzz.targets.image import load_file

        return load_file(path)
    if path.is_file() and path.suffix != ".py":
        raise TargetError(f"{model} is a file; a model is a checkpoint folder, or file.py:factory")
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
    made = hasattr(factory, "state_dict") and not isinstance(factory, type)  # a module, no factory
    ready = made or not callable(factory) or isinstance(getattr(factory, "space", None), BoxSpace)
    return factory if ready else _made(factory, model)


def _checkpoint(folder: Path, spec: Spec) -> Any:
    from lmfuzz.targets import checkpoint

    if (config := folder / checkpoint.CONFIG).is_file():
        try:
            content = json.loads(config.read_bytes())
        except (ValueError, OSError):
            content = {}  # said better where it is read
        if isinstance(content, dict) and "model_type" in content:
            return _causal(str(folder), spec)
    return checkpoint.load(folder, allow_pickle=spec.allow_pickle)


def _causal(name: str, spec: Spec) -> Any:
    """A Hugging Face model with its tokenizer."""
    from lmfuzz.targets.hf.loader import Loading, load

    how = Loading(
        spec.device,
        spec.dtype,
        spec.template,
        spec.system,
        spec.trust_remote_code,
        spec.allow_pickle,
        spec.threads,
    )
    return load(name, how)


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
    needed = (
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        for p in signature.parameters.values()
    )
    return any(needed)


def _target(found: Any, model: str, spec: Spec) -> Target:
    """A Target as it is; a torch module, a Hugging Face model or a function as one."""
    if hasattr(found, "tokens") and hasattr(found, "ends"):
        from lmfuzz.targets.hf.target import CausalLM, HFOptions

        manner = HFOptions(
            _decoding(spec), spec.level, spec.layer, spec.batch_tokens, spec.min_length, spec.max_length
        )
        made = CausalLM(found.model, found.tokens, found.ends, model, manner, found.notes)
        if made.reader.device.type != "cpu" and spec.batch < LARGE:
            made.notes += (f"a GPU is many times as fast with larger batches; --batch {spec.batch} is small",)
        return made
    _no_other_kind(model, spec)
    if hasattr(found, "run") and all(hasattr(found, name) for name in PROMISED):
        target: Target = found
        return target
    if isinstance(getattr(found, "space", None), BoxSpace) and callable(found):
        from lmfuzz.targets.function import FunctionTarget

        return FunctionTarget(found, found.space, model)
    if hasattr(found, "state_dict") and hasattr(found, "forward"):
        return _module(found, model, spec)
    lacks = ", ".join(name for name in PROMISED if not hasattr(found, name))
    raise TargetError(
        f"{model} makes a {type(found).__name__}, which is neither a torch module nor a target: "
        f"it lacks {lacks}"
    )


def _module(module: Any, model: str, spec: Spec) -> Target:
    import torch

    from lmfuzz.targets.rnn.model import CharRNN
    from lmfuzz.targets.rnn.target import RNNTarget
    from lmfuzz.targets.torch_module import ModuleTarget

    torch.set_num_threads(1)  # measured: two threads on two cores are a third as fast as one
    if shape := _image(module, spec):
        from lmfuzz.targets.image import ImageTarget

        return ImageTarget(module, BoxSpace(shape), model)
    if isinstance(module, CharRNN):
        return RNNTarget(module, _decoding(spec), spec.min_length, spec.max_length)
    return ModuleTarget(module, model, _decoding(spec), spec.min_length, spec.max_length)


def _decoding(spec: Spec) -> Any:
    from lmfuzz.targets.rnn.target import Decoding

    return Decoding(spec.max_new, spec.temperature, spec.decode_seed, tuple(spec.stop))


def _no_other_kind(model: str, spec: Spec) -> None:
    """UsageError where the spec says how to use a Hugging Face model, and this is another."""
    for key in _CAUSAL:
        if (key, getattr(spec, key)) == ("threads", 1):  # as every other model runs
            continue
        if getattr(spec, key) != Spec.model_fields[key].default:
            raise UsageError(f"--{key.replace('_', '-')} is for Hugging Face models; {model} is none")


def _image(module: Any, spec: Spec) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that a module takes, () when it takes no images."""
    config = getattr(module, "config", None)
    if any(hasattr(thing, "alphabet") for thing in (module, config)):
        return ()
    said = getattr(module, "shape", getattr(config, "shape", None))
    return tuple(said if isinstance(said, tuple | list) else spec.shape)


def _compressed(base: Target, spec: Spec) -> tuple[Target, str]:
    """The twin of ``base`` that a recipe makes, and what it converted."""
    from lmfuzz.targets.twins.compress import make_twin

    module = getattr(base, "module", getattr(base, "model", None))
    if module is None:
        raise TargetError(f"the recipe {spec.twin} needs a torch module; {spec.model} is none")
    made = make_twin(module, spec.twin)
    if like := getattr(base, "like", None):
        twin: Target = like(made.module, f"the twin {spec.twin}")
        twin.identity = f"{twin.identity}-{made.recipe}"
        return twin, made.words
    twin = _module(made.module, f"the twin {spec.twin}", spec.model_copy(update={"shape": _shape(base)}))
    twin.identity = f"{twin.identity}-{made.recipe}"  # what is rounded on the way is in no tensor
    return twin, made.words


def _shape(target: Target) -> list[int]:
    return list(target.space.shape) if isinstance(target.space, BoxSpace) else []


def _pair(base: Target, twin: Target, words: str) -> Target:
    if base.identity == twin.identity:
        raise TargetError("the twin is its base: the same weights, which can differ in nothing")
    from lmfuzz.targets.twins.pair import Pair
    from lmfuzz.targets.twins.text_pair import TextPair

    pair: Any = TextPair(base, twin) if _follow(base, twin) else Pair(base, twin)  # type: ignore[arg-type]
    pair.told = getattr(base, "told", None)
    pair.seeds, pair.sparing = getattr(base, "seeds", None), getattr(base, "sparing", False)
    pair.notes = (*getattr(base, "notes", ()), *((f"the twin: {words}",) if words else ()))
    made: Target = pair
    return made


def _follow(base: Target, twin: Target) -> bool:
    """Whether the twin can follow what the base writes, token by token."""
    both = all(hasattr(model, "follow") for model in (base, twin)) and type(base) is type(twin)
    same = getattr(base, "same_tokens", None)
    return both and (same is None or same(twin))
