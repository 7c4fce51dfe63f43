"""What a model folder holds besides the model: adapters, other weights, and settings for ``generate``."""

import json
import math
import shlex
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

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
_LAYERS = 1000  # that a model may have whatever its weights
_BUFFERS = 2**28  # numbers in buffers, of which the files may say nothing
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


@dataclass(frozen=True)
class Header:
    """Hold what the files with the weights say of themselves; no weights are read.

    Attributes:
        files: their names, for errors.
        shapes: tensor -> its shape; {} if they do not say.
        size: their bytes.
    """

    files: str
    shapes: dict[str, tuple[int, ...]]
    size: int

    @classmethod
    def find(cls, source: str, offline: bool, allow_pickle: bool) -> "Header | None":
        """Return the header of a folder's weights, or of a model of the hub; None if there are none."""
        for name in ("model.safetensors", "pytorch_model.bin")[: 1 + allow_pickle]:
            found = [_file(source, name, offline)]
            if not found[0] and (index := _file(source, f"{name}.index.json", offline)):
                parts = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
                found = [_file(source, part, offline) for part in parts]
            if paths := [path for path in found if path]:
                shapes = dict(pair for path in paths for pair in _shapes(path))
                files = " to ".join(path.name for path in [paths[0], *paths[1:][-1:]])
                return cls(files, shapes, sum(path.stat().st_size for path in paths))
        return None

    def require_layers(self, name: str, config: Any) -> None:
        """Raise TargetError if a configuration asks for many more layers than there are tensors."""
        for key, value in _integers(config):
            if ("layer" in key or key == "num_labels") and value > max(_LAYERS, len(self.shapes)):
                parts = [part for tensor in self.shapes for part in tensor.split(".")]
                layers = 1 + max((int(part) for part in parts if part.isdecimal()), default=-1)
                held = plural(layers, "layer") if layers else plural(len(self.shapes), "tensor")
                raise TargetError(
                    f"the config.json of {name} says {key} {value}, but the weights in {self.files} hold"
                    f" {held}"
                )

    def require_sizes(self, name: str, config: Any, trust_remote_code: bool) -> None:
        """Raise TargetError if the model of a configuration is much larger than the weights in the files.

        It is built without memory for its weights. What cannot be built so is left to transformers.
        """
        most, made = 4 * len(self.shapes) + _LAYERS, 0

        def count(*_: object) -> None:
            nonlocal made
            made += 1
            if made > most:
                raise OverflowError

        model, build = None, import_module("transformers").AutoModelForCausalLM.from_config
        hook = register_module_parameter_registration_hook(count)
        with suppress(Exception), torch.device("meta"):
            model = build(deepcopy(config), trust_remote_code=trust_remote_code)
        hook.remove()
        fields = dict(_integers(config.to_dict()))
        if model is not None:
            wanted, buffers = (sum(t.numel() for t in of) for of in (model.parameters(), model.buffers()))
            packed = getattr(config, "quantization_config", None) or not self.shapes  # up to 8 in a byte
            held = 8 * self.size if packed else 2 * sum(map(math.prod, self.shapes.values()))
            if wanted <= held + _LAYERS**2 and buffers <= held + _BUFFERS:
                return
            self._require_same(name, model, fields)
        elif made <= most:
            return
        value, key = max((value, key) for key, value in fields.items())
        raise TargetError(
            f"the config.json of {name} asks for a far larger model than {self.files} holds; its largest"
            f" number is {key} {value}"
        )

    def _require_same(self, name: str, model: Any, fields: dict[str, int]) -> None:
        """Raise TargetError if a tensor has another shape in the files, with the field that is to blame."""
        prefix, wrong = f"{model.base_model_prefix}.", []
        for key, weights in sorted(model.named_parameters(), key=lambda pair: -pair[1].numel()):
            for tensor in {key, prefix + key, key.removeprefix(prefix)} & self.shapes.keys():
                pairs = zip(weights.shape, self.shapes[tensor], strict=False)
                wrong += [(tensor, want) for want, have in pairs if want != have]
        sizes = sorted(((value, key) for key, value in fields.items() if value > 1), reverse=True)
        same = [(tensor, size) for tensor, want in wrong for size in sizes if want == size[0]]
        same += [(tensor, size) for tensor, want in wrong for size in sizes if not want % size[0]]
        if same:
            tensor, (value, key) = same[0]
            raise TargetError(
                f"the config.json of {name} says {key} {value}, but {tensor} in {self.files} has the shape"
                f" {self.shapes[tensor]}"
            )


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the tensors in a file; of a pickle only if it can be mapped."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            yield from ((key, tuple(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118
        return
    with suppress(Exception):  # what is wrong with it is said when it is read
        found = torch.load(path, map_location="meta", weights_only=True, mmap=True)
        yield from ((key, tuple(value.shape)) for key, value in found.items() if isinstance(value, Tensor))


def _integers(config: Any) -> Iterator[tuple[str, int]]:
    """Yield the integers of a configuration and of those within it, by name."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if type(value) is int:
            yield key, value
        yield from _integers(value)


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
