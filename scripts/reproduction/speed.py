"""How many images a second a campaign searches, against the bare forward passes of both models."""

import statistics
import time
from typing import Any

import torch

from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.spec import Spec
from lmfuzz.targets.image import ImageTarget

BATCH, ROUNDS, STEPS, WARM = 250, 9, 20, 150


def measure(quick: bool = False) -> dict[str, Any]:
    """The ratio of the two speeds, taken in turns in one run: its median, least and most."""
    spec = Spec(
        model="models:mnist/lenet5", twin="tflite", shape=[28, 28, 1], seeds=["mnist"], count=BATCH,
        objectives=["disagreement"], search="walk", budget="100h", batch=BATCH,
    )  # fmt: skip
    campaign = Campaign.begin(build(spec))
    base, twin = campaign.target.base, campaign.target.twin  # type: ignore[attr-defined]
    assert isinstance(base, ImageTarget)
    assert isinstance(twin, ImageTarget)
    ratios, speeds, steps = [], [], campaign.steps()
    for _ in range(WARM):  # the first findings of every pair of labels are re-run alone, three times each
        next(steps)
    for _ in range(3 if quick else ROUNDS):
        started = time.perf_counter()
        batches = [next(steps).batch for _ in range(STEPS)]
        whole = time.perf_counter() - started
        alone = bare(base.module, twin.module, batches)
        rows = sum(map(len, batches))
        ratios.append(alone / whole)
        speeds.append(rows / whole)
    return {
        "images_vs_bare": round(statistics.median(ratios), 4), "least": round(min(ratios), 4),
        "most": round(max(ratios), 4), "images_per_second": round(statistics.median(speeds)),
    }  # fmt: skip


@torch.inference_mode()
def bare(base: torch.nn.Module, twin: torch.nn.Module, batches: list[Any]) -> float:
    """Seconds of the two forward passes on the same rows, and nothing else."""
    inputs = [torch.from_numpy(batch.data).permute(0, 3, 1, 2).contiguous() for batch in batches]
    started = time.perf_counter()
    for rows in inputs:
        base(rows)
        twin(rows)
    return time.perf_counter() - started
