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
    unscored: int = 0  # re-runs that could not be judged

    @property
    def bucket(self) -> str:
        """Objective and signature: two findings in one bucket are the same behaviour."""
        return f"{self.objective}: {self.evidence.signature}"

    @property
    def label(self) -> str:
        """``confirmed``, or ``flaky k/n``, with how many re-runs could not be judged."""
        if self.failed == self.runs:
            return "confirmed"
        return f"flaky {self.failed}/{self.runs}" + (f", {self.unscored} unscored" if self.unscored else "")


@dataclass(frozen=True, slots=True)
class Reruns:
    """How many re-runs of a row failed, how many passed, and how many could not be judged."""

    failed: int
    passed: int
    unscored: int


def confirm(
    row: Batch, column: int, objective: Objective, executor: Executor, wants: frozenset[str], runs: int
) -> Reruns:
    """What ``runs`` re-runs of one row, alone and unpadded, come to in this column; NaN is unscored."""
    alone = row.alone(0)
    margins = np.array([objective(alone, executor.run(alone, wants))[0, column] for _ in range(runs)])
    failed, unscored = int((margins > 0).sum()), int(np.isnan(margins).sum())
    return Reruns(failed, runs - failed - unscored, unscored)


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
            again = confirm(
                batch[row : row + 1], column, self.objective, self.executor, self.wants, self.runs
            )
            finding = Finding(
                objective=self.objective.targets[column], margin=float(margins[row, column]),
                evidence=evidence, symbols=symbols.copy(), prompt=self.executor.target.space.decode(symbols),
                output=str(trace["text"][row]), parent=int(batch.parent[row]),
                operator=int(batch.operator[row]), execution=execution, failed=again.failed,
                runs=self.runs, unscored=again.unscored,
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
