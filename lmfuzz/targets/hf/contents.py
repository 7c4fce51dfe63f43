"""What a model folder holds besides the model: adapters, other weights, and settings for ``generate``."""

import json
import shlex
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from lmfuzz.errors import TargetError, explaining, extra, one_line
from lmfuzz.spec import option_name
from lmfuzz.targets.checkpoint import find_pickle
from lmfuzz.targets.sampling import Decoding
from lmfuzz.text import plural

ADAPTER, _BASE = "adapter_config.json", "base_model_name_or_path"
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "tekken.json",
)  # fmt: skip
_MARKS = BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE
_HARMLESS = ("masked_bias", "rotary_emb.inv_freq")  # constants that older versions saved
_WITHOUT = {  # settings of generate that lmfuzz does not have -> the value that changes nothing
    "repetition_penalty": 1, "encoder_repetition_penalty": 1, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": [], "suppress_tokens": [],
    "begin_suppress_tokens": [], "forced_bos_token_id": None, "forced_eos_token_id": None, "min_length": 0,
    "min_new_tokens": 0, "exponential_decay_length_penalty": None, "sequence_bias": {}, "guidance_scale": 1,
    "num_beams": 1, "penalty_alpha": 0, "dola_layers": None, "watermarking_config": None,
    "force_words_ids": [], "constraints": [], "token_healing": False, "remove_invalid_values": False,
    "max_time": None,
}  # fmt: skip
# The same for those that count only if it samples.
_SAMPLING = {"min_p": 0, "top_h": 1, "typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0}
_USUAL = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # what generate samples with unless it is told


@dataclass(frozen=True)
class Adapter:
    """Hold where an adapter is, and the folder or hub name of the model that it adapts."""

    place: str
    base: str
    offline: bool

    @classmethod
    def find(cls, source: str, offline: bool) -> "Adapter | None":
        """Return the adapter in a folder, or of that name on the hub, or None if there is none.

        Raises:
            TargetError: peft is not installed, or an adapter without a model does not say which it adapts.
        """
        if (found := _file(source, ADAPTER, offline)) is None:
            return None
        base, folder = json.loads(found.read_bytes()).get(_BASE), Path(source)
        if any(folder.glob("model*.safetensors*")) or any(folder.glob("pytorch_model*.bin*")):
            base = source
        elif not base:
            raise TargetError(f"the adapter in {source} does not say which model it adapts; set {_BASE}")
        with extra("peft", TargetError):
            import_module("peft")
        return cls(source, base, offline)

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer beside the adapter."""
        return _file(self.place, "tokenizer_config.json", self.offline) is not None

    def merge(self, model: nn.Module, allow_pickle: bool) -> tuple[nn.Module, str]:
        """Return the model with the adapter's changes in its weights, and a note.

        Raises:
            TargetError: The adapter cannot be merged.
        """
        peft, pickled = import_module("peft"), _file(self.place, "adapter_model.bin", self.offline)
        if not (_file(self.place, "adapter_model.safetensors", self.offline) or (pickled and allow_pickle)):
            more = ", or pass --allow-pickle to read the tensors of adapter_model.bin" if pickled else ""
            raise TargetError(f"the adapter in {self.place} has no adapter_model.safetensors; save it{more}")
        with explaining(f"the adapter in {self.place} cannot be merged into the weights of {self.base}"):
            config = peft.PeftConfig.from_pretrained(self.place, local_files_only=self.offline)
            config.inference_mode = True
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            if config.is_prompt_learning:
                raise TargetError(f"the adapter in {self.place} is a {kind}, not weights such as LoRA's")
            adapted = peft.PeftModel(model, config)
            where = {"torch_device": "cpu", "local_files_only": self.offline}
            read = adapted.load_adapter(self.place, "default", **where)
            merged = adapted.merge_and_unload(safe_merge=True)
        left = [f"{_some(read.missing_keys)} missing"] if read.missing_keys else []
        left += [f"{_some(read.unexpected_keys)} not used"] if read.unexpected_keys else []
        note = f"the adapter in {self.place} ({kind}) is merged into the weights of {self.base}"
        return merged, ", ".join([note, *left])


def _file(source: str, name: str, offline: bool) -> Path | None:
    """Return a file of a folder, or of a model of the hub, or None if it has no such file."""
    if Path(source).is_dir():
        found = Path(source) / name
        return found if found.exists() else None
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import cached_file

    more: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    path = try_to_load_from_cache(source, name) if offline else cached_file(source, name, **more)
    return Path(path) if isinstance(path, str) else None


def require_texts(folder: Path) -> None:
    """Raise TargetError if transformers would not read a text file in a local folder, or read it wrongly."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja") or path.name in (*_TOKENIZERS, "merges.txt"):
            with path.open("rb") as file:
                if file.read(3).startswith(_MARKS):
                    raise TargetError(
                        f"{path} begins with a byte order mark, which transformers does not skip; save it as"
                        " UTF-8 without one"
                    )
    settings = folder / "generation_config.json"
    try:
        json.loads(settings.read_bytes() if settings.exists() else "{}")
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{settings} is not JSON: {one_line(error)}") from None


def require_files(folder: Path, allow_pickle: bool, tokenizer: bool = True) -> None:
    """Raise TargetError if a local folder lacks weights, or a ``tokenizer`` that is wanted."""
    if not any(folder.glob("*.safetensors*")):
        find_pickle(folder, allow_pickle)
    if tokenizer and not any((folder / file).exists() for file in _TOKENIZERS):
        raise TargetError(
            f"{folder} has no tokenizer: a tokenizer.json belongs beside its config.json (save it with "
            "tokenizer.save_pretrained)"
        )


def require_weights(name: str, model: nn.Module, info: dict[str, Any]) -> list[str]:
    """Return a note if weights are left over.

    Raises:
        TargetError: The weights are not those that the configuration asks for, or not finite.
    """
    wrong = [f"lack {key}" for key in sorted(info["missing_keys"])]
    for key, there, wanted in sorted(info.get("mismatched_keys", [])):
        wrong.append(f"have {key} in the shape {tuple(there)} instead of {tuple(wanted)}")
    if wrong:
        more = f", and {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""
        raise TargetError(
            f"the weights of {name} {wrong[0]}{more}: they are not what its config.json asks for, and belong"
            " to another model"
        )
    for key, value in model.named_parameters():
        if not value.isfinite().all():
            raise TargetError(f"tensor {key} of {name} holds NaN or infinite weights")
    left = [key for key in info["unexpected_keys"] if not key.endswith(_HARMLESS)]
    words = "that its config.json does not ask for, so not used"
    return [f"the weights of {name} hold {_some(left)} {words}"] if left else []


def _some(keys: Iterable[str]) -> str:
    """Return how many tensors there are, and the names of the first and the last."""
    first, *others = sorted(keys)
    return f"{plural(1 + len(others), 'tensor')} ({' to '.join([first, *others[-1:]])})"


def not_applied(settings: Any, decoding: Decoding, longest: int) -> list[str]:
    """Return notes of how ``generate`` would decode otherwise than lmfuzz does, by the model's own settings.

    Args:
        settings: The model's GenerationConfig; None if it has none.
        decoding: How lmfuzz decodes.
        longest: The most symbols of a prompt.
    """
    known = {} if settings is None else {k: v for k, v in settings.to_dict().items() if v is not None}
    samples = bool(known.get("do_sample"))
    neutral = _WITHOUT | (_SAMPLING if samples else {})
    left = {key: known[key] for key, value in neutral.items() if known.get(key, value) != value}
    if known.get("max_length", longest + decoding.max_new) < longest + decoding.max_new:
        left["max_length"] = known["max_length"]
    wanted = {key: known.get(key, usual) for key, usual in _USUAL.items()} if samples else {}
    wanted = {key: value for key, value in wanted.items() if value != getattr(decoding, key)}
    if known.get("max_new_tokens", decoding.max_new) < decoding.max_new:
        wanted["max_new"] = known["max_new_tokens"]
    stops = known.get("stop_strings", [])
    stops = [text for text in ([stops] if isinstance(stops, str) else stops) if text not in decoding.stop]
    options = [f"{option_name(key)} {value}" for key, value in wanted.items()]
    options += [f"--stop {shlex.quote(text)}" for text in stops]
    notes = []
    if left:
        words = ", ".join(f"{key} {value!r:.60}" for key, value in left.items())
        notes.append(f"generation_config.json sets {words}, which lmfuzz does not apply")
    if options:
        notes.append(f"generation_config.json decodes otherwise; to do the same, add {' '.join(options)}")
    return notes
