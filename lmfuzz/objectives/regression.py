"""What a twin does wrong and its base does not: what compression or retraining broke."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.objectives.detectors import as_detector
from lmfuzz.types import CRASH, OWN, Batch, Evidence, FloatArray, Trace

BASE = "base/"
ROWS = OWN | {CRASH}  # channels about the row, which are the same for both models
SHOWN = 60  # characters of the base's text in the evidence


class Regression:
    """Hit when the twin is bad and its base is fine, as one part judges: ``regression(repetition)``.

    Margins, for each column of the part: the smaller of the twin's margin and, if the base hits, minus the
    base's; NaN if either could not be scored. If the part's margins are graded by channels on demand, those
    of the twin are read. Evidence: the part's for the twin, and what the base wrote.
    """

    def __init__(self, parts: Sequence[object]) -> None:
        if len(parts) != 1:
            raise UsageError(f"regression takes exactly one objective in parentheses, not {len(parts)}")
        self._part = as_detector(parts[0])
        twin = self._part.needs | {"text"}
        self.needs = twin | {BASE + name for name in twin - ROWS}
        self.targets = tuple(f"regression/{target}" for target in self._part.targets)
        self.grades = self._part.grades

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, N) for the N columns of the part."""
        twin, base = self._part(batch, trace), self._part(batch, _of_base(trace))
        fine = np.where(base > 0, -base, np.inf)
        return np.where(np.isnan(base), np.nan, np.minimum(twin, fine))

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return why the twin is bad, and what the base wrote instead."""
        found = self._part.evidence(batch, trace, row, column)
        text = str(trace[f"{BASE}text"][row])
        shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."
        return replace(found, words=f"{found.words}; the base instead: '{shown}'")


def _of_base(trace: Trace) -> Trace:
    """Return what the base showed, under its own names, and what is about the rows."""
    of_base = {name.removeprefix(BASE): trace[name] for name in trace if name.startswith(BASE)}
    return {name: trace[name] for name in ROWS & trace.keys()} | of_base
