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
    """Search until the budget is spent or the search has nothing left to try; yield a Step per batch.

    Args:
        search: which rows to run next.
        executor: runs them on the target.
        feature: where in state space each row went.
        objective: how far each row is from misbehaving.
        archive: which of those points are new.
        findings: confirms and keeps the hits.
        budget: when to stop; what is spent is counted here.
        batch_size: rows per batch at most.
        always: the channels that feature, objective and search need of every row.
    """
    while not budget.spent():
        batch = search.ask(batch_size)
        if not len(batch):
            return
        wants = always.union(*(objective.grades[column] for column in search.focus))
        trace = executor.run(batch, wants)  # the only expensive line
        margins = objective(batch, trace)
        found = findings.consider(batch, trace, margins, executor.executions)
        points = feature(trace)
        novel = archive.admit(points, where=~np.any(margins > 0, axis=1) | findings.rare)
        search.tell(batch.copy(), trace, margins.copy(), novel.copy())
        budget.spent_executions = executor.executions
        budget.spent_findings += len(found)
        yield Step(executor.executions, batch, points, margins, novel, found)
