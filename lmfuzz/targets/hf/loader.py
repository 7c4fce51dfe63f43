"""Hugging Face folders and hub names to a model and its tokenizer; a sentence for all that can be wrong."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.twins.kernels import quiet

LARGE = 50_000_000  # parameters from which on several threads are worth it
_MARK, _BLANK = "lmfuzz's place", "  lmfuzz's  place  "
_LEAST_SHARE = 0.5  # of the model's rows that a tokenizer of its own uses: makers pad them by a few per cent
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "tekken.json",
)  # fmt: skip
_SIGNS = {  # what libraries raise -> what is wrong and what would be right
    "trust_remote_code": "{name} comes with code of its own, which is not run unless --trust-remote-code is"
    " given",
    "SafetensorError": "the weights of {name} are cut short or damaged; copy its safetensors again",
    "Weights only load failed": "the pickled weights of {name} hold more than tensors, and are not read;"
    " convert them to model.safetensors",
    "does not recognize this architecture": "the config.json of {name} names a model_type that this version"
    " of transformers does not know",
}
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class CausalFolder:
    """A causal language model, its tokens, and the ids that end a text; notes are for a person."""

    model: nn.Module
    tokens: Tokens
    ends: tuple[int, ...]
    notes: tuple[str, ...] = ()


def load(name: str, how: HFOptions, allow_pickle: bool = False) -> CausalFolder:
    """The model in a folder, or of that name on the hub, offline if HF_HUB_OFFLINE is set.

    allow_pickle: whether weights may be read that come as pickles.
    TargetError, one sentence, where there is none, or it is not a decoder-only model that can be used.
    """
    with quiet():  # what matters becomes a sentence
        from transformers import AutoConfig, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        device = _device(how.device)
        local = Path(name).expanduser()
        source = str(local) if local.is_dir() else name
        here = local.is_dir() or not _answers()
        remote = {"trust_remote_code": how.trust_remote_code, "local_files_only": here}
        weights = remote | {"use_safetensors": None if allow_pickle else True}
        config = _trying(name, "configuration", lambda: AutoConfig.from_pretrained(source, **remote))
        _decoder_only(name, config)
        if local.is_dir():
            _complete(local, allow_pickle)
        load_tokenizer: Any = AutoTokenizer.from_pretrained
        tokenizer = _trying(name, "tokenizer", lambda: load_tokenizer(source, **remote))
        tokens = _tokens(name, tokenizer, how)
        model = _model(name, source, config, device, how.dtype, weights)
    _threads(model, how)
    return _folder(name, _quickened(model), tokens, tokenizer)


def wrap(model: Any, tokenizer: Any, name: str, how: HFOptions) -> CausalFolder:
    """Return a model that is loaded already, on whatever device it is; its tokenizer belongs to it.

    Raises TargetError when it is not a decoder-only language model, or the tokenizer is not its own.
    """
    if moved := [key for key in ("device", "dtype") if key in how.given]:
        raise UsageError(f"{name} is loaded already; leave out {moved[0]}, and move it with its own .to(...)")
    if getattr(model, "config", None) is None:
        raise TargetError(f"{name} is not a Hugging Face model: it has no config; leave out the tokenizer")
    _decoder_only(name, model.config)
    return _folder(name, model, _tokens(name, tokenizer, how), tokenizer)


def _folder(name: str, model: nn.Module, tokens: Tokens, tokenizer: Any) -> CausalFolder:
    ends, notes = _ends(model, tokenizer), []
    _belongs(name, model, tokens)
    if not ends:
        notes.append("the model has no end of text: every output goes on to --max-new")
    if tokenizer.pad_token_id is None:
        notes.append("the tokenizer has no padding token; none is needed, padding is masked")
    return CausalFolder(model, tokens, ends, tuple(notes))


def _answers() -> bool:
    """Whether the hub does, asked once: where it does not, its client tries again for half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whatever kind: its local copies are tried
        return False
    return True


def _device(name: str) -> torch.device:
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name.startswith("cuda") and not there:
        raise TargetError("there is no CUDA device here (or torch was built without CUDA); take --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"{name!r} is no device; --device takes cpu, cuda or auto") from None


def _trying(name: str, what: str, do: Any) -> Any:
    """What ``do`` gives; what it raises is a TargetError in one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return do()
    except TargetError:
        raise
    except MemoryError:
        raise TargetError(
            f"there is not enough memory for {name}; --dtype bfloat16 needs half of float32"
        ) from None
    except Exception as error:
        local = Path(name).expanduser().is_dir()
        chain = [error, error.__cause__, error.__context__]
        absent = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)
        away = any(isinstance(link, absent) for link in chain) or "couldn't connect" in str(error)
        if away and not local:
            raise TargetError(
                f"there is no folder {name}, and the hub's model of that name is not here and cannot be"
                " fetched (no network, offline mode, or no such model); give a local folder or fetch it first"
            ) from error
        for sign, words in _SIGNS.items():
            if sign in f"{type(error).__name__}: {error}":
                raise TargetError(words.format(name=name)) from error
        said = " ".join(str(error).split())
        said = said if len(said) <= 160 else said[:157] + "..."
        raise TargetError(
            f"the {what} of {name} cannot be loaded, it may be damaged: {type(error).__name__}: {said}"
        ) from error


def _decoder_only(name: str, config: Any) -> None:
    from transformers.models.auto import modeling_auto as known

    kind = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False):
        raise TargetError(
            f"{name} is an encoder-decoder model ({kind}); lmfuzz audits decoder-only ones, such as Llama"
        )
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    causal = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        causal = False  # an encoder, as it is
    if not causal and not remote:
        raise TargetError(f"{name} is a {kind} model, which is no causal language model")


def _complete(folder: Path, allow_pickle: bool) -> None:
    """TargetError where a local folder lacks weights or a tokenizer."""
    safe = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]
    if not safe:
        others = sorted(p.name for pattern in _WEIGHTS for p in folder.glob(pattern))
        if others and not allow_pickle:
            raise TargetError(
                f"{folder} has no safetensors, only {others[0]}: pickles can run code when they are read;"
                " convert it to model.safetensors, or pass --allow-pickle to read its tensors"
            )
        if not others:
            raise TargetError(f"{folder} has no weights: a model.safetensors belongs beside its config.json")
    if not any((folder / file).exists() for file in _TOKENIZERS):
        raise TargetError(
            f"{folder} has no tokenizer: a tokenizer.json belongs beside its config.json (save it with "
            "tokenizer.save_pretrained)"
        )


def _tokens(name: str, tokenizer: Any, how: HFOptions) -> Tokens:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TargetError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) has no tokenizer.json; save it in that"
            " form with a PreTrainedTokenizerFast"
        )
    before, behind, strips, chat = _surroundings(name, tokenizer, how)
    return Tokens(backend.to_str(), before, behind, not chat, strips)


def _surroundings(name: str, tokenizer: Any, how: HFOptions) -> tuple[str, str, bool, bool]:
    """Text before and behind a prompt, whether the template strips prompts, and whether there is one."""
    if how.template == "raw" or (how.template == "auto" and not tokenizer.chat_template):
        return how.system, "", False, False
    if not tokenizer.chat_template:
        raise UsageError(f"the tokenizer of {name} has no chat template; take --template raw")

    def rendered(prompt: str) -> str:
        turns = [{"role": "system", "content": how.system}] if how.system else []
        turns.append({"role": "user", "content": prompt})
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    try:
        whole, spaced = rendered(_MARK), rendered(_BLANK)
    except Exception as error:
        said = " ".join(str(error).split())[:120]
        cause = "; does it take a system turn?" if how.system else ""
        raise TargetError(
            f"the chat template of {name} cannot be used: {type(error).__name__}: {said}{cause} (--template"
            " raw goes without it)"
        ) from error
    before, mark, behind = whole.partition(_MARK)
    if not mark or (how.system and how.system.strip() not in before + behind):
        lost = "prompt" if not mark else "system prompt"
        raise TargetError(f"the chat template of {name} leaves out the {lost}; take --template raw")
    return before, behind, _BLANK not in spaced, True


def _model(
    name: str, source: str, config: Any, device: torch.device, precision: str, weights: dict[str, Any]
) -> nn.Module:
    from transformers import AutoModelForCausalLM

    dtype: Any = getattr(torch, precision) if precision != "auto" else None
    if dtype is None:
        dtype = "auto" if device.type == "cuda" else torch.float32
    more = {
        "dtype": dtype, "config": config, **weights,
        "output_loading_info": True, "ignore_mismatched_sizes": True,  # refused in one sentence
    }  # fmt: skip

    def loaded() -> tuple[Any, dict[str, Any]]:
        load: Any = AutoModelForCausalLM.from_pretrained
        try:
            made = load(source, attn_implementation="sdpa", **more)
        except (ValueError, ImportError) as error:
            if "attention" not in str(error).lower():
                raise
            made = load(source, attn_implementation="eager", **more)
        return made[0], made[1]

    model, info = _trying(name, "model", loaded)
    _whole(name, info)
    made: nn.Module = _trying(name, "model", lambda: model.to(device).eval())
    if broken := [key for key, value in made.named_parameters() if not value.isfinite().all()]:
        raise TargetError(f"tensor {broken[0]} of {name} holds NaN or infinite weights")
    return made


def _whole(name: str, info: dict[str, Any]) -> None:
    """TargetError where the weights are not those that the configuration asks for."""
    lacks, odd = sorted(info["missing_keys"]), sorted(info.get("mismatched_keys", []))
    if lacks or odd:
        which = f"lack {lacks[0]}" if lacks else ""
        if not lacks:
            key, there, wanted = odd[0]
            which = f"have {key} in the shape {tuple(there)} instead of {tuple(wanted)}"
        more = len(lacks) + len(odd) - 1
        raise TargetError(
            f"the weights of {name} {which}{f', and {more} more tensors' if more else ''}: they are not what"
            " its config.json asks for, and belong to another model"
        )


def _ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a text, as the model's generation settings and the tokenizer say."""
    found: list[int] = []
    for said in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(model.config, "eos_token_id", None), tokenizer.eos_token_id,
    ):  # fmt: skip
        found += said if isinstance(said, list | tuple) else [said] if said is not None else []
    rows = model.get_input_embeddings().weight.shape[0]
    return tuple(dict.fromkeys(int(i) for i in found if 0 <= i < rows))


def _belongs(name: str, model: Any, tokens: Tokens) -> None:
    """TargetError where the tokenizer has more tokens than the model knows, or hardly any of them."""
    rows, known = model.get_input_embeddings().weight.shape[0], tokens.size
    largest = max(tokens.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= rows or known < _LEAST_SHARE * rows:
        raise TargetError(
            f"the tokenizer in {name} does not belong to the model: it has {known} tokens, the last"
            f" {largest}, and the model knows {rows}; give the folder the model's own tokenizer"
        )


def _quickened(model: nn.Module) -> nn.Module:
    """The model with torch's own GELU where transformers computes it step by step: 1.2 times as fast."""
    for parent in list(model.modules()):
        for key, part in list(parent.named_children()):
            if type(part).__name__ in ("NewGELUActivation", "FastGELUActivation"):
                setattr(parent, key, nn.GELU(approximate="tanh"))
    return model


def _threads(model: nn.Module, how: HFOptions) -> None:
    large = sum(weights.numel() for weights in model.parameters()) >= LARGE
    # Measured for small models: two threads on two busy cores are slower than one.
    torch.set_num_threads(how.threads or ((os.cpu_count() or 1) if large else 1))
