"""Hits, confirmed alone, sorted into buckets, and kept with all that is needed to replay them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.types import SEED, Batch, Evidence, Finding, FloatArray, Minimal, State, Trace


class Findings:
    """Considers hits: at most ``keep`` findings are confirmed per bucket, all hits are counted.

    seeds: what the rows descend from. per_seed: buckets are full for each seed by itself. shrink: makes a
    finding minimal when it is kept.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        seeds: Batch,
        runs: int = 3,
        keep: int = 3,
        per_seed: bool = False,
        shrink: Callable[[Finding], Minimal | None] = lambda finding: None,
    ) -> None:
        self.evaluator, self.seeds = evaluator, seeds
        self.runs, self.keep, self.per_seed, self.shrink = runs, keep, per_seed, shrink
        self.hits: Counter[str] = Counter()  # bucket -> rows that fell into it, confirmed or not
        self.kept: Counter[str] = Counter()  # bucket -> findings kept
        self._filled: Counter[tuple[str, int]] = Counter()  # bucket and seed (SEED: all) -> findings kept
        self._rows: set[tuple[str, int, bytes]] = set()

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """The findings among the rows of a batch whose bucket is not full yet, each confirmed."""
        found, objectives = [], self.evaluator.objectives
        for row, column in np.argwhere(margins > 0).tolist():
            evidence = objectives.evidence(batch, trace, row, column)
            bucket = f"{objectives.targets[column]}: {evidence.signature}"
            self.hits[bucket] += 1
            place = bucket, int(batch.origin[row]) if self.per_seed else SEED
            key = *place, batch.row(row).tobytes()
            if self._filled[place] >= self.keep or key in self._rows:
                continue
            finding = self._finding(batch[row : row + 1], column, float(margins[row, column]), evidence)
            finding = replace(finding, output=str(trace["text"][row]), execution=execution)
            found.append(replace(finding, minimal=self.shrink(finding)))
            self._rows.add(key)
            self._filled[place] += 1
            self.kept[bucket] += 1
        return found

    def _finding(self, one: Batch, column: int, margin: float, evidence: Evidence) -> Finding:
        """The row of a batch of one as a finding, confirmed."""
        again = self.evaluator.confirm(one, column, self.runs)
        row, origin, space = one.row(0).copy(), int(one.origin[0]), self.evaluator.target.space
        distance = space.distance(row, self.seeds.row(origin))
        return Finding(
            objective=self.evaluator.objectives.targets[column], margin=margin, evidence=evidence, row=row,
            prompt=space.name(row, origin, distance), output="", parent=int(one.parent[0]),
            operator=int(one.operator[0]), execution=0, failed=again.failed, runs=self.runs,
            unscored=again.unscored, origin=origin, distance=distance,
            by_text=self.evaluator.fails_by_text(one, column),
        )  # fmt: skip

    def state(self) -> State:
        """Counts and the rows kept, for resume."""
        rows = [[bucket, seed, row.hex()] for bucket, seed, row in sorted(self._rows)]
        filled = [[bucket, seed, count] for (bucket, seed), count in self._filled.items()]
        return {"hits": dict(self.hits), "kept": dict(self.kept), "filled": filled, "rows": rows}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.hits, self.kept = Counter(state["hits"]), Counter(state["kept"])
        self._filled = Counter({(bucket, seed): count for bucket, seed, count in state["filled"]})
        self._rows = {(bucket, seed, bytes.fromhex(row)) for bucket, seed, row in state["rows"]}
