"""Hits, each confirmed alone, sorted into buckets, and kept with everything that a replay needs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.storage.known import Known
from lmfuzz.types import SEED, Batch, Evidence, Finding, FloatArray, Minimal, State, Trace


@dataclass(eq=False)
class Findings:
    """Confirm hits and keep at most ``keep`` findings per bucket; every hit is counted.

    Args:
        evaluator: what runs and judges rows.
        seeds: the rows that all others descend from.
        runs: how often a hit is run again to confirm it.
        keep: the maximum number of findings per bucket.
        per_seed: whether each seed has buckets of its own.
        shrink: what shrinks a finding when it is kept.
        known: the buckets that are known already, whose hits are only counted.
    """

    evaluator: Evaluator
    seeds: Batch
    runs: int = 3
    keep: int = 3
    per_seed: bool = False
    shrink: Callable[[Finding], Minimal | None] | None = None
    known: Known = field(default_factory=lambda: Known({}, ()))

    def __post_init__(self) -> None:
        self.hits: Counter[str] = Counter()  # bucket -> rows that fell into it, confirmed or not
        self.kept: Counter[str] = Counter()  # bucket -> findings
        self.known_hits: Counter[str] = Counter()  # bucket that is known -> rows that fell into it
        self._filled: Counter[tuple[str, int]] = Counter()  # bucket and seed (or SEED for all) -> findings
        self._rows: set[tuple[str, int, bytes]] = set()

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """Return the hits in a batch whose bucket is not full yet, each confirmed, as findings."""
        found, objectives = [], self.evaluator.objectives
        for row, column in np.argwhere(margins > 0).tolist():
            evidence = objectives.evidence(batch, trace, row, column)
            bucket = f"{objectives.targets[column]}: {evidence.signature}"
            if bucket in self.known:
                self.known_hits[bucket] += 1
                continue
            self.hits[bucket] += 1
            place = bucket, int(batch.origin[row]) if self.per_seed else SEED
            key = *place, batch.row(row).tobytes()
            if self._filled[place] >= self.keep or key in self._rows:
                continue
            finding = self._finding(batch[row : row + 1], column, float(margins[row, column]), evidence)
            finding = replace(finding, output=str(trace["text"][row]), execution=execution)
            found.append(replace(finding, minimal=self.shrink(finding)) if self.shrink else finding)
            self._rows.add(key)
            self._filled[place] += 1
            self.kept[bucket] += 1
        return found

    def _finding(self, one: Batch, column: int, margin: float, evidence: Evidence) -> Finding:
        """The only row of a batch as a finding, confirmed; its output and execution are still missing."""
        again = self.evaluator.confirm(one, column, self.runs)
        by_text = self.evaluator.fails_by_text(one, column)
        objective, space = self.evaluator.objectives.targets[column], self.evaluator.target.space
        row, origin = one.row(0).copy(), int(one.origin[0])
        parent, operator = int(one.parent[0]), int(one.operator[0])
        distance = space.distance(row, self.seeds.row(origin))
        prompt = space.name(row, origin, distance)
        found = Finding(
            objective, margin, evidence, row, prompt, "", parent, operator, 0, again.failed, self.runs
        )
        return replace(found, unscored=again.unscored, origin=origin, distance=distance, by_text=by_text)

    def state(self) -> State:
        """Return the counts and the rows that were kept, for resume."""
        rows = [[bucket, seed, row.hex()] for bucket, seed, row in sorted(self._rows)]
        filled = [[bucket, seed, count] for (bucket, seed), count in self._filled.items()]
        counts = {"hits": dict(self.hits), "kept": dict(self.kept), "known": dict(self.known_hits)}
        return {**counts, "filled": filled, "rows": rows}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.hits, self.kept = Counter(state["hits"]), Counter(state["kept"])
        self.known_hits = Counter(state.get("known", {}))
        self._filled = Counter({(bucket, seed): count for bucket, seed, count in state["filled"]})
        self._rows = {(bucket, seed, bytes.fromhex(row)) for bucket, seed, row in state["rows"]}
