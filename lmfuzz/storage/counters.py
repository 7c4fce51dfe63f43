"""What a campaign counts while it searches."""

from dataclasses import dataclass

import numpy as np

from lmfuzz.types import FloatArray, IntArray, State, Step


@dataclass
class Tally:
    """Count the rows that a search tried, and those that were worth it, for each of O operators.

    Attributes:
        rows: how many rows were tried.
        novel: how many of them led to a new state.
        mutants: rows (O,) that each operator made.
        fruitful: those of them (O,) that were novel, or hits.
        last_novel: the campaign's time, in seconds, when it last saw a new state.
        novel_hits: how many of the novel rows were hits.
    """

    rows: int
    novel: int
    mutants: IntArray
    fruitful: IntArray
    last_novel: float = 0.0
    novel_hits: int = 0

    @classmethod
    def of(cls, operators: int) -> "Tally":
        """Begin to count for this many operators."""
        return cls(0, 0, np.zeros(operators, np.int64), np.zeros(operators, np.int64))

    def add(self, step: Step, seconds: float) -> None:
        """Count a step that ended ``seconds`` into the campaign."""
        self.rows += len(step.batch)
        novel = int(step.novel.sum())
        self.novel += novel
        if novel:
            self.last_novel = seconds
        made, size = step.batch.operator >= 0, len(self.mutants)
        hit = (step.margins > 0).any(axis=1)
        self.novel_hits += int((step.novel & hit).sum())
        fruitful = made & (step.novel | hit)
        self.mutants += np.bincount(step.batch.operator[made], minlength=size)
        self.fruitful += np.bincount(step.batch.operator[fruitful], minlength=size)

    @property
    def novelty(self) -> float:
        """The share of rows that were novel."""
        return self.novel / max(1, self.rows)

    @property
    def yields(self) -> FloatArray:
        """Fruitful mutants in a thousand, for each operator (O,)."""
        return 1000 * self.fruitful / self.mutants.clip(1)

    def state(self) -> State:
        """Return all counts, for resume."""
        return dict(vars(self))
