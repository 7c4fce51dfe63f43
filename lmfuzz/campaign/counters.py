"""What a campaign keeps count of while it searches."""

import numpy as np

from lmfuzz.types import State, Step


class Tally:
    """How many rows a search tried, and how many of them were worth it, by operator."""

    def __init__(self, operators: int) -> None:
        self.rows = self.novel = 0
        self.mutants = np.zeros(operators, np.int64)  # rows made by each operator
        self.fruitful = np.zeros(operators, np.int64)  # those among them that were novel, or hits
        self.last_novel = 0.0  # seconds of the campaign when the last new state was seen

    def add(self, step: Step, seconds: float) -> None:
        """Count a step that ended ``seconds`` into the campaign."""
        self.rows += len(step.batch)
        novel = int(step.novel.sum())
        self.novel += novel
        if novel:
            self.last_novel = seconds
        made, size = step.batch.operator >= 0, len(self.mutants)
        fruitful = made & (step.novel | (step.margins > 0).any(axis=1))
        self.mutants += np.bincount(step.batch.operator[made], minlength=size)
        self.fruitful += np.bincount(step.batch.operator[fruitful], minlength=size)

    @property
    def novelty(self) -> float:
        """The share of rows that were novel."""
        return self.novel / max(1, self.rows)

    def state(self) -> State:
        """All counts, for resume."""
        return dict(vars(self))

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        vars(self).update(state)
