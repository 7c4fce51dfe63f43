"""Hits, confirmed alone, sorted into buckets, and kept with all that is needed to replay them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Executor, Objective
from lmfuzz.types import SEED, Batch, Evidence, Finding, FloatArray, Minimal, Reruns, State, Trace


def confirm(
    row: Batch, column: int, objective: Objective, executor: Executor, wants: frozenset[str], runs: int
) -> Reruns:
    """What ``runs`` re-runs of one row, alone and unpadded, come to in this column; NaN is unscored."""
    alone = row.alone(0)
    margins = np.array([objective(alone, executor.run(alone, wants))[0, column] for _ in range(runs)])
    failed, unscored = int((margins > 0).sum()), int(np.isnan(margins).sum())
    return Reruns(failed, runs - failed - unscored, unscored)


def by_text(
    one: Batch, column: int, objective: Objective, executor: LocalExecutor, wants: frozenset[str]
) -> bool | None:
    """Whether the text of a bad row of tokens, spelled anew, is bad, too; None where rows are not tokens."""
    space = executor.target.space
    if not (isinstance(space, TextSpace) and space.tokens is not None):
        return None
    spelled = space.respelled(one.row(0))
    if spelled is None:
        return True
    if not space.legal(row := Batch.of([spelled]))[0]:
        return False
    return confirm(row, column, objective, executor, wants, 1).failed > 0


class Findings:
    """Considers hits: at most ``keep`` findings are confirmed per bucket, all hits are counted.

    seeds: what the rows descend from. per_seed: buckets are full for each seed by itself. shrink: makes a
    finding minimal when it is kept.
    """

    def __init__(
        self, objective: Objective, executor: LocalExecutor, wants: frozenset[str], seeds: Batch,
        runs: int = 3, keep: int = 3, per_seed: bool = False,
        shrink: Callable[[Finding], Minimal | None] = lambda finding: None,
    ) -> None:  # fmt: skip
        self.objective, self.executor, self.wants = objective, executor, wants
        self.seeds, self.runs, self.keep, self.per_seed, self.shrink = seeds, runs, keep, per_seed, shrink
        self.hits: Counter[str] = Counter()  # bucket -> rows that fell into it, confirmed or not
        self.kept: Counter[str] = Counter()  # bucket -> findings kept
        self._filled: Counter[tuple[str, int]] = Counter()  # bucket and seed (SEED: all) -> findings kept
        self._rows: set[tuple[str, int, bytes]] = set()

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """The findings among the rows of a batch whose bucket is not full yet, each confirmed."""
        found = []
        for row, column in np.argwhere(margins > 0).tolist():
            evidence = self.objective.evidence(batch, trace, row, column)
            bucket = f"{self.objective.targets[column]}: {evidence.signature}"
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
        again = confirm(one, column, self.objective, self.executor, self.wants, self.runs)
        row, origin, space = one.row(0).copy(), int(one.origin[0]), self.executor.target.space
        distance = space.distance(row, self.seeds.row(origin))
        return Finding(
            objective=self.objective.targets[column], margin=margin, evidence=evidence, row=row,
            prompt=space.name(row, origin, distance), output="", parent=int(one.parent[0]),
            operator=int(one.operator[0]), execution=0, failed=again.failed, runs=self.runs,
            unscored=again.unscored, origin=origin, distance=distance,
            by_text=by_text(one, column, self.objective, self.executor, self.wants),
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
