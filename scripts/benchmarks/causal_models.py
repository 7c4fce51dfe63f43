"""Causal language models to measure: two shapes with random weights, and one that is there already."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lmfuzz
from benchmarks.figures import Options, Wrong
from lmfuzz.errors import UsageError, quiet
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.seeds import BUNDLED
from lmfuzz.spec import Spec
from lmfuzz.targets.hf.loader import load
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.sampling import Decoding

CHAT = Path(lmfuzz.__file__).parent / "models" / "chat"  # the bundled one, where it is there
VOCABULARY = 1024  # tokens, those of a tokenizer that learnt from the bundled seed prompts
WINDOW = 512
# Layers, width, heads: small as on a CPU, and over 100 million parameters as on a GPU.
CPU, CUDA, QUICK = (4, 128, 4), (12, 1024, 16), (1, 32, 2)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model folder to measure: what to call it, where it is, how it is loaded."""

    name: str
    folder: Path
    device: str
    dtype: str
    trained: bool = False


@contextmanager
def subjects(options: Options) -> Iterator[list[Subject]]:
    """The two shapes, made in a folder that is gone afterwards, and the model of the options.

    On a GPU in 16 bits, as it is used there. Wrong where there is no such device.
    """
    if options.device != "cpu" and not torch.cuda.is_available():
        raise Wrong("there is no CUDA device here, or torch was built without CUDA; take --device cpu")
    dtype = "float32" if options.device == "cpu" else "bfloat16"
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        made = []
        for kind in ("gpt2", "llama"):
            shape = QUICK if options.quick else CPU if options.device == "cpu" else CUDA
            parameters = make(Path(folder) / kind, kind, shape)
            words = f"{kind}, {shape[0]} layers of {shape[1]}, {parameters / 1e6:.1f} M random parameters"
            made.append(Subject(words, Path(folder) / kind, options.device, dtype))
        found = options.model or (None if options.quick else CHAT)
        if found is not None and found.is_dir():
            made.append(Subject(found.name, found, options.device, dtype, trained=True))
        yield made


def make(folder: Path, kind: str, shape: tuple[int, int, int]) -> int:
    """Write a model without an end of text, its weights drawn with seed 0; how many parameters it has."""
    with quiet():
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
    layers, width, heads = shape
    size = tokenizer(folder)
    no_ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    torch.manual_seed(0)
    model: Any
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=size, n_positions=WINDOW, n_embd=width, n_layer=layers, n_head=heads, **no_ends
        ))  # fmt: skip
    else:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=size, hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads // 2, max_position_embeddings=WINDOW,
            **no_ends,
        ))  # fmt: skip
    model.save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def tokenizer(folder: Path) -> int:
    """Write a tokenizer of byte pairs that learnt from the bundled seed prompts; how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([corpus()], trainer)
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return int(made.get_vocab_size())


def corpus() -> str:
    """The bundled seed prompts as one text."""
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(resource(BUNDLED).glob("*.txt")))


def target_of(subject: Subject, new: int, longest: int, endless: bool) -> CausalLM:
    """The model as lmfuzz loads it, greedy, prompts of tokens; ``endless``: without an end of text."""
    threads = 1 if subject.device == "cpu" else None
    options = HFOptions("token", device=subject.device, dtype=subject.dtype, threads=threads)
    found = load(str(subject.folder), options)
    if endless:
        found = replace(found, ends=())
    return CausalLM(found, subject.name, Decoding(max_new=new), options, max_length=longest)


def settings_of(subject: Subject, new: int, longest: int) -> dict[str, Any]:
    """What of a spec belongs to ``target_of``."""
    given = {"model": str(subject.folder), "device": subject.device, "dtype": subject.dtype}
    made = Spec(**given, level="token", max_new=new, max_length=longest)
    return made.model_dump(include={*given, "level", "max_new", "max_length"})


def prompts(target: CausalLM, rows: int, shortest: int, longest: int) -> list[str]:
    """Distinct windows of the bundled seed prompts that are spelled with so many tokens, evenly drawn."""
    space, rng = target.space, np.random.default_rng(0)
    assert space.tokens is not None
    text, plain = corpus(), set(space.tokens.plain)
    found: dict[str, None] = {}
    for _ in range(200 * rows):
        if len(found) == rows:
            break
        wanted = int(rng.integers(shortest, longest + 1))
        start = int(rng.integers(max(1, len(text) - 8 * wanted)))
        try:
            ids = space.encode(text[start : start + 8 * wanted])[:wanted]
            window = space.decode(ids)
            again = space.encode(window)
        except UsageError:  # nothing is left of it by itself
            continue
        if len(again) == wanted and plain.issuperset(again.tolist()):
            found[window] = None
    return list(found)


class Plain:
    """``model.generate`` on rows of tokens, in batches, as a user would write it: greedy, padded on the left.

    The model is loaded by transformers alone. Neither making tokens of texts nor texts of tokens is counted.
    """

    def __init__(self, subject: Subject, new: int, batch: int = 64) -> None:
        from transformers import AutoModelForCausalLM

        load_plain: Any = AutoModelForCausalLM.from_pretrained
        self.model = load_plain(subject.folder, dtype=getattr(torch, subject.dtype)).to(subject.device).eval()
        self.model.generation_config.eos_token_id = None  # equal lengths, for both
        self.new, self.batch = new, batch

    @torch.inference_mode()
    def write(self, prompts: list[list[int]], logits: bool = False) -> tuple[Tensor, Tensor]:
        """Tokens int64 (T, B) behind the prompts, and the logits float32 (T, B, V) where they are wanted."""
        tokens, shown = [], []
        for start in range(0, len(prompts), self.batch):
            some = prompts[start : start + self.batch]
            longest = max(map(len, some))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in some])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in some])
            device = self.model.device
            made = self.model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=self.new,
                do_sample=False, pad_token_id=0, output_logits=logits, return_dict_in_generate=True,
            )  # fmt: skip
            tokens.append(made.sequences[:, longest:].T.cpu())
            if logits:
                shown.append(torch.stack(made.logits).float().cpu())
        return torch.cat(tokens, dim=1), torch.cat(shown, dim=1) if shown else torch.empty(0)
