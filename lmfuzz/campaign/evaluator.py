"""A target and the objectives that judge it: rows are run, judged, and confirmed alone."""

import numpy as np

from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Objective, Target
from lmfuzz.types import Batch, Reruns, Trace


class Evaluator:
    """Run rows on a target and judge them.

    Attributes:
        target: the model under test.
        objectives: what counts as misbehaviour, with N columns.
        executor: what runs the target, and counts its executions.
        channels: what the target is asked to show for every row.
    """

    def __init__(self, target: Target, objectives: Objective, timeout: float | None = None) -> None:
        self.target, self.objectives = target, objectives
        self.executor = LocalExecutor(target, timeout)
        self.channels = objectives.needs | {"text"}

    def run(self, batch: Batch) -> Trace:
        """Return the channels that the objectives judge by, and the output texts, of B rows."""
        return self.executor.run(batch, self.channels)

    def confirm(self, row: Batch, column: int, runs: int) -> Reruns:
        """Return how many of ``runs`` re-runs of one row, alone and unpadded, failed in one column."""
        alone = row.alone(0)
        margins = np.array([self.objectives(alone, self.run(alone))[0, column] for _ in range(runs)])
        failed, unscored = int((margins > 0).sum()), int(np.isnan(margins).sum())
        return Reruns(failed, runs - failed - unscored, unscored)

    def fails_by_text(self, row: Batch, column: int) -> bool | None:
        """Return whether the text of a failing row of tokens fails too; None if rows are not tokens.

        The tokenizer may turn the text into other tokens than the row has.
        """
        space = self.target.space
        if not (isinstance(space, TextSpace) and space.tokens is not None):
            return None
        tokenized = space.respelled(row.row(0))
        if tokenized is None:
            return True
        again = Batch.of([tokenized])
        return bool(space.legal(again)[0]) and self.confirm(again, column, 1).failed > 0
