"""One cell of an experiment: one search on one model or pair, in a process of its own.

Run as ``python -m reproduction.cells FILE``, which holds a Cell as JSON.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.spec import Spec

Result = dict[str, Any]
PARTING = "parting"  # the column whose largest margin per prompt is asked for


@dataclass(frozen=True)
class Cell:
    """``search`` is what the table calls it; ``spec`` fixes the campaign; ``kind`` says what is counted."""

    experiment: str
    case: str  # the model or the pair
    search: str
    kind: str  # "seeds", "first", "gaps" or "hits"
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.experiment}, {self.case}, {self.search}"


def run(cell: Cell) -> Result:
    """What became of the seeds, as lists with one entry per trial, and what it took."""
    campaign = Campaign.begin(build(Spec(**cell.spec)))
    started = campaign.executor.executions
    count = {"seeds": _seeds, "first": _first, "gaps": _gaps, "hits": _hits}[cell.kind]
    found = count(campaign)
    return {
        **found, "executions": campaign.executor.executions - started,
        "seconds": round(campaign.budget.elapsed(), 1), "time_in_target": round(campaign.executor.seconds, 1),
    }  # fmt: skip


def _seeds(campaign: Campaign) -> Result:
    """Each seed by itself: was a mutant of it found, with how many queries, how far away?"""
    for _ in campaign.steps():
        pass
    trials = campaign.outcomes
    assert trials is not None, "the search works per seed"
    tried = ~trials.natural
    return {
        "natural": int(trials.natural.sum()), "found": trials.solved[tried].tolist(),
        "queries": trials.queries[tried].tolist(), "distance": trials.distance[tried].tolist(),
    }  # fmt: skip


def _first(campaign: Campaign) -> Result:
    """One trial: how many mutants until the first finding?"""
    mutants, found = 0, False
    for step in campaign.steps():
        hits = (step.margins > 0).any(axis=1)
        bred = step.batch.parent >= 0
        if found := bool(hits.any()):
            mutants += int(bred[: int(np.argmax(hits)) + 1].sum())
            break
        mutants += int(bred.sum())
    return {"natural": 0, "found": [found], "queries": [mutants], "distance": [float("nan")]}


def _gaps(campaign: Campaign) -> Result:
    """One trial: which prompts have a row that parts, and the base's largest top-two gap at a parting."""
    column = campaign.objectives.targets.index("gap")
    best = np.full(len(campaign.context.seeds), -np.inf)
    for step in campaign.steps():
        np.maximum.at(best, step.batch.origin, step.margins[:, column].astype(np.float64))
    parted = np.isfinite(best)
    largest = float(best.max()) + GAPLESS if parted.any() else 0.0
    return {"natural": 0, "found": parted.tolist(), "gaps": [largest], "queries": [], "distance": []}


def _hits(campaign: Campaign) -> Result:
    """Behaviour that only the twin shows: the buckets that were found, with how many rows in each."""
    for _ in campaign.steps():
        pass
    hits = dict(campaign.findings.hits)
    return {"natural": 0, "found": [bool(hits)], "queries": [], "distance": [], "buckets": hits}


GAPLESS = (
    1000.0  # nats: no base is as sure as this, so that nothing is a finding and every prompt is searched on
)


def gap(batch: Any, trace: Any) -> Any:
    """The base's top-two gap where the texts part, less GAPLESS nats; -inf where they do not."""
    at = trace["parting"]
    gaps = trace["base_gap"][np.arange(len(at)), np.maximum(at, 0)]
    return np.where(at >= 0, gaps - GAPLESS, -np.inf)


gap.needs = ("parting", "base_gap")  # type: ignore[attr-defined]  # what a detector says of itself


if __name__ == "__main__":
    given = Cell(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps({"cell": asdict(given), **run(given)}))
