"""Hits, confirmed alone, sorted into buckets, and kept with all that is needed to replay them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from lmfuzz.executors import LocalExecutor
from lmfuzz.protocols import Executor, Objective
from lmfuzz.types import Batch, Evidence, FloatArray, IntArray, State, Trace


@dataclass(frozen=True, slots=True)
class Finding:
    """A row whose margin was > 0, with what the re-runs alone and unpadded said of it.

    ``failed`` of ``runs`` re-runs failed again: a flaky finding is one with failed < runs.
    """

    objective: str  # the column of the margins, e.g. "phrases/zounds"
    margin: float
    evidence: Evidence
    symbols: IntArray  # (T,) the prompt that ran
    prompt: str
    output: str
    parent: int  # corpus id, SEED for a seed
    operator: int
    execution: int  # how many rows had been run when it was found
    failed: int
    runs: int

    @property
    def bucket(self) -> str:
        """Objective and signature: two findings in one bucket are the same behaviour."""
        return f"{self.objective}: {self.evidence.signature}"

    @property
    def label(self) -> str:
        """``confirmed``, or ``flaky k/n``."""
        return "confirmed" if self.failed == self.runs else f"flaky {self.failed}/{self.runs}"


def confirm(
    row: Batch, column: int, objective: Objective, executor: Executor, wants: frozenset[str], runs: int
) -> int:
    """How many of ``runs`` re-runs of one row, alone and unpadded, fail in this column."""
    alone = row.alone(0)
    margins = (objective(alone, executor.run(alone, wants))[0, column] for _ in range(runs))
    return sum(bool(margin > 0) for margin in margins)


class Findings:
    """Considers hits: at most ``keep`` findings are confirmed per bucket, all hits are counted."""

    def __init__(
        self,
        objective: Objective,
        executor: LocalExecutor,
        wants: frozenset[str],
        runs: int = 3,
        keep: int = 3,
    ) -> None:
        self.objective, self.executor, self.wants = objective, executor, wants
        self.runs, self.keep = runs, keep
        self.hits: Counter[str] = Counter()  # bucket -> rows that fell into it, confirmed or not
        self.kept: Counter[str] = Counter()  # bucket -> findings kept
        self._prompts: set[tuple[str, bytes]] = set()

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """The findings among the rows of a batch whose bucket is not full yet, each confirmed."""
        found = []
        for row, column in np.argwhere(margins > 0).tolist():
            evidence = self.objective.evidence(batch, trace, row, column)
            bucket = f"{self.objective.targets[column]}: {evidence.signature}"
            self.hits[bucket] += 1
            symbols = batch.row(row)
            key = bucket, symbols.tobytes()
            if self.kept[bucket] >= self.keep or key in self._prompts:
                continue
            failed = confirm(
                batch[row : row + 1], column, self.objective, self.executor, self.wants, self.runs
            )
            finding = Finding(
                objective=self.objective.targets[column], margin=float(margins[row, column]),
                evidence=evidence, symbols=symbols.copy(), prompt=self.executor.target.space.decode(symbols),
                output=str(trace["text"][row]), parent=int(batch.parent[row]),
                operator=int(batch.operator[row]), execution=execution, failed=failed, runs=self.runs,
            )  # fmt: skip
            self._prompts.add(key)
            self.kept[bucket] += 1
            found.append(finding)
        return found

    def state(self) -> State:
        """Counts and the prompts kept, for resume."""
        prompts = [[bucket, symbols.hex()] for bucket, symbols in sorted(self._prompts)]
        return {"hits": dict(self.hits), "kept": dict(self.kept), "prompts": prompts}

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.hits, self.kept = Counter(state["hits"]), Counter(state["kept"])
        self._prompts = {(bucket, bytes.fromhex(symbols)) for bucket, symbols in state["prompts"]}
