"""How fast are modules of a user's own against the same weights in a folder, and do they come as near?"""

import json
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.campaigns import Eye, assembled, window_prompts
from benchmarks.figures import Measured, Options, noted, spread
from lmfuzz.inputs.bundled import resource
from lmfuzz.protocols import Target
from lmfuzz.spec import Spec
from lmfuzz.targets import checkpoint
from lmfuzz.targets.importing.folder import make
from lmfuzz.targets.kinds import Given, given
from lmfuzz.targets.loading import load_target
from lmfuzz.types import Step

WORDS = [
    "cholera",
    "dungeon",
    "emerald",
    "fandango",
    "glacier",
    "harpoon",
    "isthmus",
    "juniper",
    "kestrel",
    "lantern",
]
LETTERS = string.ascii_letters + string.digits + " .,\n"


class Network(nn.Module):
    """The bundled model as a user would write it: embedding, LSTM, linear; the state goes in and out."""

    def __init__(self) -> None:
        super().__init__()
        bundled = checkpoint.load(resource("models:shakespeare"))
        self.alphabet = bundled.config.alphabet
        self.embedding, self.rnn, self.output = bundled.embedding, bundled.rnn, bundled.output

    def forward(self, symbols: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """Logits (B, T, V), and the state."""
        hidden, state = self.rnn(self.embedding(symbols), state)
        return self.output(hidden), state


class Scaled(Network):
    """The same with a factor of one at the end, so that the fast kernels do not know it."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, symbols: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """Logits (B, T, V), and the state."""
        logits, after = super().forward(symbols, state)
        return logits * self.factor, after


class Block(nn.Module):
    """A block of a small GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.ln_1, self.ln_2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({
            "c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)
        })  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The states (B, T, width) after the block."""
        rows, steps, width = x.shape
        parts = self.attn["c_attn"](self.ln_1(x)).split(width, dim=2)
        query, key, value = (p.view(rows, steps, self.heads, -1).transpose(1, 2) for p in parts)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attn["c_proj"](seen.transpose(1, 2).reshape(rows, steps, width))
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class GPT(nn.Module):
    """A small GPT of random weights, without a cache, with the names that nanoGPT gives its tensors."""

    alphabet = LETTERS

    def __init__(self, layers: int = 4, width: int = 128, heads: int = 4, longest: int = 256) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arguments = {
            "n_layer": layers, "n_head": heads, "n_embd": width, "block_size": longest, "bias": True,
            "vocab_size": len(LETTERS), "dropout": 0.0,
        }  # fmt: skip
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(len(LETTERS), width), "wpe": nn.Embedding(longest, width),
            "h": nn.ModuleList([Block(width, heads) for _ in range(layers)]), "ln_f": nn.LayerNorm(width),
        })  # fmt: skip
        self.lm_head = nn.Linear(width, len(LETTERS), bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, symbols: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        parts = self.transformer
        x = parts["wte"](symbols) + parts["wpe"](torch.arange(symbols.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


def rate(target: Target, seeds: list[str], executions: int) -> float:
    """Executions per second of a campaign by ``walk``, after calibration."""
    with assembled(seeds, target, search="walk", batch=64) as (campaign, store):
        before = campaign.executor.executions

        def step(_: Step) -> None:
            if campaign.executor.executions - before >= executions:
                campaign.stop()

        started = time.perf_counter()
        campaign.run(store, Eye(step))
        return (campaign.executor.executions - before) / (time.perf_counter() - started)


def raced(module: Target, folder: Target, seeds: list[str], executions: int, turns: int) -> Measured:
    """How many times as fast campaigns on the module are, taken in turns with those on the folder."""
    pairs = [(rate(folder, seeds, executions), rate(module, seeds, executions)) for _ in range(turns)]
    ratios = [own / theirs for theirs, own in pairs]
    theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    stepper = type(module._stepper).__name__  # type: ignore[attr-defined]
    line = f"{own:.0f} against {theirs:.0f} executions/s ({stepper}); {spread(ratios, '{:.2f}x'.format)}"
    return Measured(statistics.median(ratios), (noted(line),))


def nearest(target: Target, seeds: list[str], executions: int) -> float:
    """The mean over ten words of the best gap in nats, after a campaign by ``directed``."""
    best = np.full(10, -np.inf)
    settings = {"search": "directed", "objectives": [f"phrases:words={json.dumps(WORDS)}"]}
    with assembled(seeds, target, **settings) as (campaign, store):

        def step(one: Step) -> None:
            np.fmax(best, np.fmax.reduce(one.margins[:, : len(WORDS)], axis=0), out=best)
            if campaign.executor.executions >= executions:
                campaign.stop()

        campaign.run(store, Eye(step))
    return float(best.mean())


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """Campaigns on modules and on folders of the same weights, in turns."""
    spec = Spec(max_new=8) if options.quick else Spec()
    bundled = load_target(spec)
    seeds = window_prompts(bundled.space, 8 if options.quick else 64, 40)
    executions, turns = (64, 1) if options.quick else (4000, 5)
    found: dict[str, Measured] = {}
    makers: dict[str, Callable[[], nn.Module]] = {"module_known": Network, "module_state": Scaled}
    for key, maker in makers.items():
        if key in keys:
            found[key] = raced(own(maker(), spec), bundled, seeds, executions, turns)
    if "module_causal" in keys:
        with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as place:
            module, file = GPT(1, 16, 2) if options.quick else GPT(), Path(place) / "ckpt.pt"
            torch.save({"model": module.state_dict(), "model_args": module.arguments}, file)
            make(file, Path(place) / "folder", alphabet=LETTERS)
            folder = load_target(spec.model_copy(update={"model": str(Path(place) / "folder"), "threads": 1}))
            seeds_here = ["".join(c for c in seed if c in LETTERS) for seed in seeds]
            found["module_causal"] = raced(own(module, spec), folder, seeds_here, executions // 4, turns)
    if "module_gap" in keys:
        budget = 300 if options.quick else 20_000
        gaps = [nearest(target, seeds, budget) for target in (bundled, own(Scaled(), spec))]
        line = f"mean best gap of ten words: folder {gaps[0]:.2f}, module {gaps[1]:.2f} nats"
        found["module_gap"] = Measured(gaps[1] - gaps[0], (noted(line),))
    return found


def own(module: nn.Module, spec: Spec) -> Target:
    """The module as a target."""
    return given(Given(module), "the module", spec)
