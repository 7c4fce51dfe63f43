"""Does what a causal language model writes depend on the batch that a row is in?"""

from dataclasses import replace

import torch

from benchmarks.causal_models import Subject, prompts, subjects, target_of
from benchmarks.figures import Measured, Options, noted
from benchmarks.ties import Parting, partings
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.types import Batch

ROWS, NEW, SIZE, LENGTHS = 1000, 32, 64, (8, 64)  # rows, new tokens, rows in a batch, tokens of prompts
QUICK = (12, 4, 4, (3, 8))
SHOWN = 3  # changed rows that a line tells of


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``batch_changes``, in float32: of the models measured the worst."""
    values, lines = [], []
    with subjects(options) as models:
        for model in models:
            value, line = changed(replace(model, dtype="float32"), options.quick)
            values.append(value)
            lines.append(noted(line))
    return {keys[0]: Measured(max(values), tuple(lines))}


def changed(model: Subject, quick: bool) -> tuple[int, str]:
    """How many rows change and no tie explains it, and a line on them."""
    rows, new, size, lengths = QUICK if quick else (ROWS, NEW, SIZE, LENGTHS)
    target = target_of(model, new, lengths[1], endless=False)
    batch = Batch.of([target.space.encode(prompt) for prompt in prompts(target, rows, *lengths)])
    parted: list[Parting] = []
    texts, noise = 0, 0.0
    for start in range(0, len(batch), size):
        some, more, most = compared(target, batch[start : start + size])
        texts += some
        parted += [replace(one, row=start + one.row) for one in more]
        noise = max(noise, most)
    odd = [one for one in parted if not one.tied]
    return len(odd), told(model.name, len(batch), texts, parted, noise)


@torch.inference_mode()
def compared(target: CausalLM, batch: Batch) -> tuple[int, list[Parting], float]:
    """The rows of a batch together and each alone: texts that differ, where tokens part, noise of logits."""
    wants = frozenset({"text", "logits"})
    together = target.decode(batch, wants)
    alone = [target.decode(batch[i : i + 1], wants) for i in range(len(batch))]
    texts = target.show(batch, together, frozenset({"text"}))["text"]
    others = [
        target.show(batch[i : i + 1], one, frozenset({"text"}))["text"][0] for i, one in enumerate(alone)
    ]
    parted, noise = partings(
        torch.cat([one.tokens for one in alone], dim=1).cpu(), together.tokens.cpu(),
        torch.cat([one.logits for one in alone], dim=1).cpu(), together.logits.cpu(), target.reader.dtype,
    )  # fmt: skip
    return sum(text != other for text, other in zip(texts, others, strict=True)), parted, noise


def told(name: str, rows: int, texts: int, parted: list[Parting], noise: float) -> str:
    """One line on a model."""
    line = (
        f"{name}: of {rows} rows {texts} change their text, {len(parted)} their tokens;"
        f" logits differ by {noise:.1g} at most"
    )
    for one in parted[:SHOWN]:
        verdict = "a tie" if one.tied else "no tie"
        line += f"; row {one.row}, token {one.step}: gap {one.gap:.1g}, noise {one.noise:.1g}, {verdict}"
    more = len(parted) - SHOWN
    return line + (
        f"; and {more} more, {sum(one.tied for one in parted[SHOWN:])} of them ties" if more > 0 else ""
    )
