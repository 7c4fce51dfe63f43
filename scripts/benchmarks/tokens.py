"""How fast does the scan for under-trained tokens ask about a vocabulary of 32 000?"""

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.figures import Measured, Options, percent, spread
from lmfuzz.analysis.token_scan import FIXED, Scan
from lmfuzz.errors import quiet
from lmfuzz.spec import Spec

VOCABULARY, LAYERS, WIDTH = 32_000, 4, 128
TURNS = 2


def tokenizer(size: int) -> transformers.PreTrainedTokenizerFast:
    """All bytes, and texts of up to eight letters, spelled pair by pair: as a trained one has them."""
    draw, letters = random.Random(0), list("abcdefghijklmnopqrstuvwxyz")
    names = dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet()))
    texts, merges = letters, []
    while len(names) < size:
        pair = draw.choice(texts), draw.choice(texts)
        text = "".join(pair)
        if len(text) <= 8 and text not in names:
            merges.append(pair)
            texts.append(text)
            names[text] = None
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def save(folder: Path, size: int) -> str:
    """A Llama with random weights, as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=WIDTH * 8 // 3 // 32 * 32,
        num_hidden_layers=LAYERS, num_attention_heads=4, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with quiet():
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer(size).save_pretrained(folder)
    return str(folder)


class Inside:
    """Wall seconds inside the model's forward passes, and how many there were."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.seconds, self.passes = 0.0, 0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, model: torch.nn.Module, inputs: Any) -> None:
        self._wait(model)
        self._started = time.perf_counter()

    def _end(self, model: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._wait(model)
        self.seconds += time.perf_counter() - self._started
        self.passes += 1

    @staticmethod
    def _wait(model: torch.nn.Module) -> None:
        if next(model.parameters()).device.type == "cuda":
            torch.cuda.synchronize()


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``token_scan_per_second``: the median of whole scans, all that a person is shown included."""
    size, turns = (1_000, 1) if options.quick else (VOCABULARY, TURNS)
    speeds, shares = [], []
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        spec = Spec(model=save(Path(folder), size), device=options.device, **FIXED)
        for _ in range(turns):
            scan = Scan(spec)
            inside = Inside(scan.vocabulary.reader.model)
            started = time.perf_counter()
            asked = sum(scan)
            list(scan.lines(20))
            wall = time.perf_counter() - started
            speeds.append(asked / wall)
            shares.append(1 - inside.seconds / wall)
    outside = percent(statistics.median(shares))
    lines = (
        f"Llama of {LAYERS} layers of width {WIDTH}, {size} tokens, {inside.passes} passes;"
        f" {spread(speeds, '{:.0f}/s'.format)}, {outside} of the time outside them",
    )
    return {keys[0]: Measured(statistics.median(speeds), lines)}
