"""What can be a target, and how each kind of it becomes one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.protocols import Target, TargetInfo
from lmfuzz.spec import Own, Spec
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.types import Alphabet

if TYPE_CHECKING:
    from lmfuzz.targets.hf.loader import CausalFolder

LARGE = 256  # prompts: on an H200 a batch of as many takes as long as one of 64
_REQUIRED = ("space", "channels", "identity", "run")  # of a PlainTarget
_ANY = ("clock", "trust_remote_code")  # settings that are no mistake: the other model may be of that kind
_OPTIONAL = ("sample", "margin_gradients", "classes", "lexicon")


def as_target(found: Any, model: str, spec: Spec) -> Target:
    """Return what the name ``model`` stands for as a target, used as the spec says.

    Raises:
        TargetError: It cannot be one.
        UsageError: The spec has options for Hugging Face models, and this is another.
    """
    for name in HFOptions.of(spec).given:
        if name not in _ANY and (name, spec.threads) != ("threads", 1):  # the model may be another's twin
            raise UsageError(f"--{name.replace('_', '-')} is for Hugging Face models, which {model} is not")
    if isinstance(found, type):
        raise TargetError(f"{model} gives the class {found.__name__}; it must give an instance of it")
    lacks = [name for name in _REQUIRED if not hasattr(found, name)]
    if not lacks:
        return with_info(found, spec)
    if is_function(found):
        from lmfuzz.targets.function import FunctionTarget

        return FunctionTarget(found, found.space, model)
    if is_module(found):
        return _module(found, model, spec)
    if found is None:
        raise TargetError(f"{model} gives None; it must give the model: end it with: return model")
    if isinstance(found, Mapping):
        raise TargetError(
            f"{model} gives a dict of {len(found)} entries; if these are weights (a state_dict), put them"
            " into their module with load_state_dict, and return the module"
        )
    raise TargetError(
        f"{model} is not a model: an object of type {type(found).__name__} is neither a torch module, nor a"
        f" function with a box of legal values (lmfuzz.on), nor a target: it lacks {', '.join(lacks)}"
    )


def is_function(found: Any) -> bool:
    """Return whether this is a function of tensors whose box of legal values is declared."""
    return isinstance(getattr(found, "space", None), BoxSpace) and callable(found)


def is_module(found: Any) -> bool:
    """Return whether this looks like a torch module, without torch."""
    return hasattr(found, "state_dict") and hasattr(found, "forward")


@dataclass(frozen=True)
class Given:
    """Hold a model that was given from Python.

    Attributes:
        model: The model.
        tokenizer: The tokenizer of a Hugging Face model.
        alphabet: The alphabet of a module: symbol i is its character i, or its i-th text; or a dict.
    """

    model: Any
    tokenizer: Any = None
    alphabet: Alphabet | None = None


def given(found: Any, name: str, spec: Spec) -> Target:
    """Return a model that was given from Python as a target; raise TargetError if it cannot be one."""
    one = found if isinstance(found, Given) else Given(found)
    model, tokenizer, alphabet = one.model, one.tokenizer, one.alphabet
    if alphabet is not None and not (is_module(model) and tokenizer is None):
        raise TargetError(f"{name}: alphabet= is for a torch module that has no tokenizer=")
    if tokenizer is not None:
        from lmfuzz.targets.hf.loader import wrap

        return _causal(wrap(model, tokenizer, name, HFOptions.of(spec)), name, spec)
    if isinstance(getattr(getattr(model, "config", None), "model_type", None), str):
        raise TargetError(f"{name} is a Hugging Face model; pass its tokenizer, too, as tokenizer=")
    if alphabet is not None:
        from lmfuzz.targets.modules.wrapped import WithAlphabet

        model = WithAlphabet(model, alphabet)
    return as_target(model, name, spec)


@contextmanager
def lent(own: Own) -> Iterator[None]:
    """Restore the modules that were given from Python, and torch's threads, at the end of the block."""
    import torch

    models = [one.model if isinstance(one, Given) else one for one in own.values()]
    modules = [part for model in models if isinstance(model, torch.nn.Module) for part in model.modules()]
    modes = [(module, module.training) for module in modules]
    weights = [(one, one.requires_grad) for module in modules for one in module.parameters(recurse=False)]
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for module, mode in modes:
            module.training = mode
        for one, wanted in weights:
            one.requires_grad_(wanted)


def with_info(found: Any, spec: Spec) -> Target:
    """Return a target of the user's own as it is, or with an ``info`` if it has none.

    The info is made of the object's notes, seeds, sparing, told and clock, if it has them. If it has a
    ``module`` or a ``model``, a recipe can make a twin of that, which is then run as any module is.
    """
    if isinstance(getattr(found, "info", None), TargetInfo):
        return found

    def members(*names: str) -> dict[str, Any]:
        return {name: getattr(found, name) for name in names if hasattr(found, name)}

    more: dict[str, Any] = {}
    if hasattr(found, "set_decoding"):
        from lmfuzz.targets.sampling import Decoding

        more["decoding"] = decoding = Decoding.of(spec)
        found.set_decoding(**asdict(decoding))
    more |= members(*_REQUIRED, *_OPTIONAL)
    module = getattr(found, "module", getattr(found, "model", None))
    if module is not None:
        shape = list(found.space.shape) if isinstance(found.space, BoxSpace) else []
        how = spec.model_copy(update={"shape": shape})
        more |= {"module": module, "like": lambda twin, name: _module(twin, name, how)}
    return SimpleNamespace(info=TargetInfo(**members(*TargetInfo.__annotations__)), **more)


def hugging_face(source: str, name: str, spec: Spec) -> Target:
    """Return the causal language model in a folder, or of that name on the hub, as the target ``name``."""
    from lmfuzz.targets.hf.loader import load

    return _causal(load(source, HFOptions.of(spec), spec.allow_pickle), name, spec)


def _causal(found: "CausalFolder", name: str, spec: Spec) -> Target:
    from lmfuzz.targets.hf.contents import not_applied
    from lmfuzz.targets.hf.target import CausalLM
    from lmfuzz.targets.sampling import Decoding

    decoding, options = Decoding.of(spec), HFOptions.of(spec)
    made = CausalLM(found, name, decoding, options, spec.min_length, spec.max_length)
    notes = not_applied(getattr(found.model, "generation_config", None), decoding, spec.max_length)
    if made.reader.device.type != "cpu" and spec.batch < LARGE:
        slow = f"--batch {spec.batch} is small for a GPU; try --batch {LARGE}, which is many times as fast"
        notes.append(slow)
    made.info = replace(made.info, notes=(*made.info.notes, *notes))
    return made


def _module(module: Any, model: str, spec: Spec) -> Target:
    """Return a torch module as a target: a classifier of images, or what writes text."""
    import torch

    from lmfuzz.targets.modules.target import writer
    from lmfuzz.targets.sampling import Decoding

    torch.set_num_threads(1)  # measured: two threads on two cores are a third as fast as one
    if shape := _image(module, spec.shape):
        from lmfuzz.targets.image import ImageTarget

        return ImageTarget(module, BoxSpace(shape), model)
    lengths, logits_only = (spec.min_length, spec.max_length), spec.states == "logits"
    return writer(module, model, Decoding.of(spec), *lengths, logits_only)


def _image(module: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape (H, W, C) of the images that a module takes, or () if it takes none."""
    config = getattr(module, "config", None)
    if any(hasattr(thing, "alphabet") for thing in (module, config)):
        return ()
    own_shape = getattr(module, "shape", getattr(config, "shape", None))
    return tuple(own_shape if isinstance(own_shape, tuple | list) else shape)
