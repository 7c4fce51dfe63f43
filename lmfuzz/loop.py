"""The loop: TensorFuzz's algorithm (Odena & Goodfellow 2018, section 3) with graded objectives."""

from collections.abc import Generator

import numpy as np

from lmfuzz.budget import Budget
from lmfuzz.protocols import Archive, Executor, Feature, Findings, Objective, Search
from lmfuzz.types import Step


def run(
    search: Search, executor: Executor, feature: Feature, objective: Objective,
    archive: Archive, findings: Findings, budget: Budget, batch_size: int, always: frozenset[str],
) -> Generator[Step]:  # fmt: skip
    """Search until the budget is spent, or the search has nothing left to try; a generator of steps.

    always: the channels that feature, objective and search need of every row. Disk and screen consume the
    steps.
    """
    while not budget.spent():
        batch = search.ask(batch_size)  # which rows to try next
        if not len(batch):  # nothing is left to try
            return
        wants = always.union(*(objective.grades[column] for column in search.focus))
        trace = executor.run(batch, wants)  # the only expensive line
        margins = objective(batch, trace)  # did it misbehave, or how far from it?
        points = feature(trace)  # where did it go?
        novel = archive.admit(points, where=~np.any(margins > 0, axis=1))
        search.tell(batch, trace, margins, novel)  # learn
        found = findings.consider(batch, trace, margins, executor.executions)  # confirm alone, keep
        budget.spent_executions = executor.executions
        budget.spent_findings += len(found)
        yield Step(executor.executions, batch, points, margins, novel, found)
