"""The experiments: which cells each is made of, with the papers' settings where there are any."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz.inputs.images import read_images
from reproduction.cells import Cell

KEYS = ("nan", "fp16", "twins", "twins_linf", "text_twins", "images_vs_bare")
TWINS = ("tflite", "prune:0.5", "int4")
NETS = ("lenet1", "lenet5")
INT8 = "tflite"  # the published compressed models are TFLite's hybrid int8
# TriggerFinder's paper and its published program accept mutants by different rules: both are run.
SEARCHES = {
    "boundary": "boundary", "boundary_byte": "boundary", "triggerfinder": "triggerfinder",
    "triggerfinder_code": "triggerfinder:fitness=code", "walk": "walk", "random": "random",
    "tensorfuzz": "tensorfuzz", "diffchaser": "diffchaser",
}  # fmt: skip
# The paper's noise is 0.2 where pixels go from -1 to 1, as they do inside this network: 0.1 here. With it
# TensorFuzz found 6 of 10 within a million mutants, random and walk none; with half of it, it finds more.
NOISE = "noise:sigma=0.05"
TEXT_TWINS = ("fp16", "int8", "int4", "prune:0.5")
CHUNK = 20  # seeds of one campaign in the experiment with 16 bits
GUIDE = 20.0  # nats: more than any gap that was seen, so that the climb does not end
CELLS = str(Path(__file__).parent / "cells.py")


@dataclass(frozen=True)
class Sizes:
    """How large the experiments are; ``quick`` is a tenth of the trials."""

    initialisations: int = 10
    fp16_seeds: int = 100
    twin_seeds: int = 300
    prompts: int = 200
    diffchaser_seeds: int = 50
    linf_seeds: int = 100
    linf_diffchaser_seeds: int = 10
    nan_cap: int = 1_000_000  # mutants per trial at most
    fp16_cap: int = 50_000  # queries per seed at most, here and below
    diffchaser_cap: int = 100_000
    cap: int = 10_000
    blind_cap: int = 1_000  # of the searches that do not look at the difference: random, tensorfuzz
    linf_cap: int = 500
    linf_diffchaser_cap: int = 10_000
    text_trials: int = 6
    text_budget: int = 3_000  # rows per trial, over all prompts

    @classmethod
    def quick(cls) -> "Sizes":
        """A tenth of the trials."""
        return cls(1, 10, 30, 20, 5, 10, 2, text_trials=2)


def nan(sizes: Sizes, unsafe: Path) -> Iterator[Cell]:
    """TensorFuzz, section 4.1: a non-finite input of the network with the unsafe loss, from one image."""
    for number in range(sizes.initialisations):
        for search in ("tensorfuzz", "directed", "random", "walk"):
            yield Cell("nan", "unsafe loss", search, "first", {
                "model": str(unsafe / str(number)), "seeds": ["mnist"], "count": 1, "batch": 100,
                "resolution": "float", "objectives": ["nonfinite"], "search": search,
                "operators": [] if search == "directed" else [NOISE],
                "feature": "total:channel=logits,radius=0.7071", "budget": f"{sizes.nan_cap}x",
                "seed": number, "confirm": 1,
            })  # fmt: skip


def fp16(sizes: Sizes, folder: Path) -> Iterator[Cell]:
    """TensorFuzz, section 4.2: labels that differ in 16 bits, within 0.4 of a seed.

    Nearly every row is new where coverage is the float model's logits, and all are kept: some seeds at a
    time, from files in ``folder``, so that they fit into memory.
    """
    images = read_images(["mnist"], sizes.fp16_seeds).values / np.float32(255)
    for start in range(0, len(images), CHUNK):
        file = folder / f"fp16-{start}.npy"
        np.save(file, images[start : start + CHUNK])
        for search in ("tensorfuzz", "boundary", "directed", "walk", "random"):
            yield Cell("fp16", "mlp", search, "seeds", {
                **_pair("safe", "fp16", search, CHUNK, sizes.fp16_cap), "linf": 0.4, "seeds": [str(file)],
                "operators": ["noise"], "resolution": "float", "batch": 500,
                "feature": 'channels:names=["base/logits"],radius=0.7071',
            })  # fmt: skip


def twins(sizes: Sizes, linf: float | None = None) -> Iterator[Cell]:
    """TriggerFinder, section 5: labels that differ between a network and its compressed twin."""
    experiment = "twins" if linf is None else "twins_linf"
    for net in NETS:
        for twin in TWINS:
            for name, search in SEARCHES.items():
                seeds, cap = _amounts(sizes, search, linf)
                spec = _pair(net, twin, search, seeds, cap)
                if linf is not None:
                    spec["linf"] = linf
                if name == "boundary":
                    spec["resolution"] = "float"
                spec["batch"] = 1000 if search == "diffchaser" else seeds
                if search in ("walk", "random"):
                    spec["operators"] = list(SEVEN)
                yield Cell(experiment, f"{net} {twin}", name, "seeds", spec)


def _amounts(sizes: Sizes, search: str, linf: float | None) -> tuple[int, int]:
    """How many seeds a search gets, and how many queries for each."""
    if search == "diffchaser" and linf is not None:
        return sizes.linf_diffchaser_seeds, sizes.linf_diffchaser_cap
    if search == "diffchaser":
        return sizes.diffchaser_seeds, sizes.diffchaser_cap
    if linf is not None:
        return sizes.linf_seeds, sizes.linf_cap
    return sizes.twin_seeds, sizes.blind_cap if search in ("random", "tensorfuzz") else sizes.cap


SEVEN = (
    "gaussian_noise", "salt_pepper", "multiplicative", "pixels", "mean_blur", "gaussian_blur", "median_blur",
)  # fmt: skip


def _pair(net: str, twin: str, search: str, seeds: int, cap: int) -> dict[str, Any]:
    return {
        "model": f"models:mnist/{net}", "twin": twin, "seeds": ["mnist"], "count": seeds, "search": search,
        "objectives": ["disagreement"], "per_seed": cap, "confirm": 1, "keep": 1, "budget": "100h",
        "feature": 'channels:names=["base/probabilities","twin/probabilities"],radius=0.7071',
    }  # fmt: skip


def text_twins(sizes: Sizes, prompts: Path) -> Iterator[Cell]:
    """Greedy texts of the bundled LSTM and its twins, at most 3 edits from natural prompts."""
    for trial in range(sizes.text_trials):
        for twin in TEXT_TWINS:
            for search in ("directed", "walk", "random", "tensorfuzz"):
                common = {
                    "twin": twin, "edits": 3, "seeds": [str(prompts)], "search": search, "seed": trial,
                    "budget": f"{sizes.text_budget}x",
                }  # fmt: skip
                yield Cell("text_twins", twin, search, "gaps", {
                    **common, "objectives": [f"{CELLS}:gap", f"disagreement:gap={GUIDE:g}"],
                })  # fmt: skip
                if trial == 0:
                    yield Cell("text_twins", f"{twin}, only the twin", search, "hits", {
                        **common, "budget": f"{2 * sizes.text_budget}x",
                        "objectives": [
                            "regression(repetition)",
                            "regression(phrases:file=corpora:words/blacklist.txt)",
                        ],
                    })  # fmt: skip


def write_prompts(text: Path, count: int, file: Path) -> None:
    """``count`` windows of 16 to 48 characters of the training text's last tenth, which was held out."""
    content = text.read_text(encoding="utf-8")
    content, rng = content[len(content) * 9 // 10 :], np.random.default_rng(7)
    lengths = rng.integers(16, 49, size=count)
    starts = rng.integers(len(content) - 100, size=count)
    rows = [content[start : start + n] for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    file.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows), encoding="utf-8")


def data_folder() -> Path | None:
    """The folder that LMFUZZ_DATA names."""
    named = os.environ.get("LMFUZZ_DATA")
    return Path(named).expanduser() if named else None
