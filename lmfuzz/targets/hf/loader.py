"""Hugging Face folders and hub names to a model and its tokenizer; a sentence for every error."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmfuzz.errors import TargetError, UsageError, one_line, quiet
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.contents import Adapter, Header, require_files, require_texts, require_weights
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.template import Template, in_template
from lmfuzz.text import WIDTH, cut, escape

LARGE = 50_000_000  # parameters from which on several threads are worth it
_LEAST_SHARE = 0.5  # of the model's embeddings that its tokenizer uses: makers pad them by a few per cent
_SIGNS = {  # what libraries raise -> what is wrong and what would be right
    "MemoryError": "there is not enough memory for {name}; --dtype bfloat16 needs half as much as float32",
    "trust_remote_code": "{name} comes with its own code, which runs only with --trust-remote-code",
    "SafetensorError": "the weights of {name} are cut short or damaged; copy its safetensors again",
    "Weights only load failed": "the pickled weights of {name} hold more than tensors, and are not read;"
    " convert them to model.safetensors",
    "does not recognize this architecture": "the config.json of {name} names a model_type that this version"
    " of transformers does not know; upgrade transformers",
}


@dataclass(frozen=True)
class CausalFolder:
    """Hold a causal language model, its tokens, the ids that end a text, and notes for a person.

    The ``clock`` is the time that its chat template is told, '' if that does not ask for it.
    """

    model: nn.Module
    tokens: Tokens
    ends: tuple[int, ...]
    notes: tuple[str, ...] = ()
    clock: str = ""


def load(name: str, how: HFOptions, allow_pickle: bool = False) -> CausalFolder:
    """Load the model in a folder, or of that name on the hub; HF_HUB_OFFLINE is respected.

    Args:
        name: The folder, or OWNER/NAME.
        how: How to load and use it.
        allow_pickle: Whether pickled weights may be read.

    Raises:
        TargetError: There is no such model, or it is not a decoder-only model that can be used.
    """
    with quiet():  # what matters becomes a sentence
        import_module("transformers").utils.logging.disable_progress_bar()
        source, offline = _located(name)
        with _explaining(name, "adapter"):
            adapter = Adapter.find(source, offline)
        if adapter is None or adapter.base == source:
            return _loaded(name, source, offline, adapter, how, allow_pickle)
        try:
            return _loaded(adapter.base, *_located(adapter.base), adapter, how, allow_pickle)
        except TargetError as error:
            raise TargetError(f"{name} is an adapter of {adapter.base}: {error}") from error


def _located(name: str) -> tuple[str, bool]:
    """Return a folder or hub name as transformers takes it, and whether to do without the hub."""
    local = Path(name).expanduser()
    if local.is_dir():
        require_texts(local)
        return str(local), True
    return name, not _hub_answers()


def _loaded(
    name: str, source: str, offline: bool, adapter: Adapter | None, how: HFOptions, allow_pickle: bool
) -> CausalFolder:
    """Return the model at ``source`` with the adapter, whose tokenizer counts if it has one."""
    transformers = import_module("transformers")
    device = _device(how.device)
    more: dict[str, Any] = {"trust_remote_code": how.trust_remote_code, "local_files_only": offline}
    header, local = None, Path(source).is_dir()
    with _explaining(name, "configuration"):
        if local and (header := Header.find(source, offline, allow_pickle)):
            header.require_layers(name, json.loads((Path(source) / "config.json").read_bytes()))
        config = transformers.AutoConfig.from_pretrained(source, **more)
    _require_decoder(name, config)
    own = adapter if adapter and adapter.has_tokenizer else None
    if local:
        require_files(Path(source), allow_pickle, tokenizer=not own)
    with _explaining(name, "tokenizer"):
        place, alone = (own.place, own.offline) if own else (source, offline)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **more | {"local_files_only": alone})
    tokens = _tokens(name, tokenizer, how)
    automatic = "auto" if device.type == "cuda" else torch.float32
    more |= {
        "config": config, "dtype": automatic if how.dtype == "auto" else getattr(torch, how.dtype),
        "use_safetensors": None if allow_pickle else True,
        "output_loading_info": True, "ignore_mismatched_sizes": True,  # refused in one sentence
        # Else transformers adds an adapter to the model, unmerged, and asks the hub for it.
        "adapter_kwargs": {"subfolder": "none", "local_files_only": offline},
    }  # fmt: skip
    with _explaining(name, "model"):
        if header := header or Header.find(source, offline, allow_pickle):
            header.require_layers(name, config.to_dict())
            header.require_sizes(name, config, how.trust_remote_code)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(source, **more)
    notes = require_weights(name, model, info)
    if adapter is not None:
        model, note = adapter.merge(model, allow_pickle)
        notes.append(note)
    with _explaining(name, "model"):
        model = model.to(device).eval()
    large = sum(weights.numel() for weights in model.parameters()) >= LARGE
    # Measured for small models: two threads on two busy cores are slower than one.
    torch.set_num_threads(how.threads or ((os.cpu_count() or 1) if large else 1))
    found = _folder(name, _with_fast_gelu(model), tokens, tokenizer)
    return replace(found, notes=(*notes, *found.notes))


def wrap(model: Any, tokenizer: Any, name: str, how: HFOptions) -> CausalFolder:
    """Return a model that is already loaded, on whatever device it is, with its tokenizer.

    Raises:
        TargetError: It is not a decoder-only language model, or the tokenizer is another model's.
        UsageError: The options say how to load it.
    """
    if moved := [key for key in ("device", "dtype") if key in how.given]:
        raise UsageError(f"{name} is already loaded; leave out {moved[0]}, and move it with its own .to()")
    if getattr(model, "config", None) is None:
        raise TargetError(f"{name} is not a Hugging Face model: it has no config; leave out the tokenizer")
    _require_decoder(name, model.config)
    return _folder(name, model, _tokens(name, tokenizer, how), tokenizer)


def _folder(name: str, model: Any, tokens: Tokens, tokenizer: Any) -> CausalFolder:
    rows, notes = model.get_input_embeddings().weight.shape[0], []
    if beyond := tokens.added(rows):
        if needed := [token for i, token in beyond.items() if i in tokens.needed]:
            raise TargetError(
                f"prompts of {name} need the token {needed[0]}, which is beyond the model's {rows}"
                " embeddings; give the model one for it, or try --template raw"
            )
        tokens = tokens.within(rows)
        some = cut(escape(", ".join(beyond.values())), WIDTH)
        notes.append(f"no prompt has {some}, which the tokenizer has beyond the model's {rows} embeddings")
    known = tokens.size
    largest = max(tokens.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= rows or known < _LEAST_SHARE * rows:
        raise TargetError(
            f"the tokenizer in {name} does not belong to the model: it has {known} tokens, the last"
            f" {largest}, and the model knows {rows}; give the folder the model's own tokenizer"
        )
    ends: list[int] = []
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        ids = ids if isinstance(ids, list | tuple) else [ids] if ids is not None else []
        if wrong := [one for one in ids if type(one) is not int]:
            raise TargetError(f"eos_token_id of {name} must be the number of a token, not {wrong[0]!r}")
        ends += ids
    ends = [token for token in dict.fromkeys(ends) if 0 <= token < rows]
    if not ends:
        notes.append("the model has no end of text: every output goes on to --max-new")
    if tokenizer.pad_token_id is None:
        notes.append("the tokenizer has no padding token; none is needed, padding is masked")
    clock = tokens.template.clock if isinstance(tokens.template, Template) else ""
    if clock:
        notes.append(f"the chat template shows the time, which stands still at {clock}")
    return CausalFolder(model, tokens, tuple(ends), tuple(notes), clock)


def _hub_answers() -> bool:
    """Return whether the hub answers, asked once: if not, its client would retry for half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whatever kind: the client's local copies are tried
        return False
    return True


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    name = ("cuda" if cuda else "cpu") if name == "auto" else name
    if name.startswith("cuda") and not cuda:
        raise TargetError("there is no CUDA device here (or torch was built without CUDA); use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"{name!r} is not a device; --device takes cpu, cuda or auto") from None


@contextmanager
def _explaining(name: str, what: str) -> Iterator[None]:
    """Turn whatever is raised within the block into a TargetError of one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except TargetError:
        raise
    except Exception as error:
        chain = (error, error.__cause__, error.__context__)
        absent = (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError)
        away = any(isinstance(link, absent) for link in chain) or "couldn't connect" in str(error)
        if away and not Path(name).expanduser().is_dir():
            raise TargetError(
                f"there is no folder {name}, and the hub's model of that name is not here and cannot be"
                " fetched (no network, offline mode, or no such model); give a local folder or fetch it first"
            ) from error
        for sign, words in _SIGNS.items():
            if sign in f"{type(error).__name__}: {error}":
                raise TargetError(words.format(name=name)) from error
        raise TargetError(
            f"the {what} of {name} cannot be loaded; is it damaged? {one_line(error)}"
        ) from error


def _require_decoder(name: str, config: Any) -> None:
    from transformers.models.auto import modeling_auto as known

    kind = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False):
        raise TargetError(f"{name} is an encoder-decoder model ({kind}); lmfuzz audits decoder-only ones")
    masked = kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not remote and (masked or kind not in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        raise TargetError(f"{name} is a {kind} model, not a causal language model such as Llama")


def _tokens(name: str, tokenizer: Any, how: HFOptions) -> Tokens:
    """Return the tokenizer with the text before and after each prompt: the system prompt, or a template's."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TargetError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) has no tokenizer.json; save it in that"
            " form with a PreTrainedTokenizerFast"
        )
    if how.template == "raw" or (how.template == "auto" and not tokenizer.chat_template):
        return Tokens(backend.to_str(), how.system)
    return in_template(backend.to_str(), tokenizer, name, how)


def _with_fast_gelu(model: nn.Module) -> nn.Module:
    """Return the model with torch's own GELU for the one of transformers in steps: 1.2 times as fast."""
    for parent in list(model.modules()):
        for key, part in list(parent.named_children()):
            if type(part).__name__ in ("NewGELUActivation", "FastGELUActivation"):
                setattr(parent, key, nn.GELU(approximate="tanh"))
    return model
