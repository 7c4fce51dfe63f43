"""Findings run again, alone: do they still fail?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmfuzz.assembly import load_target, objectives
from lmfuzz.errors import UsageError
from lmfuzz.executors import CRASH, LocalExecutor
from lmfuzz.findings import Finding, Reruns, confirm
from lmfuzz.objectives.combine import Panel
from lmfuzz.show import pick
from lmfuzz.spaces import BoxSpace, Space
from lmfuzz.spec import Spec
from lmfuzz.store import Store
from lmfuzz.types import Array

FEW = 8  # rows of the corpus that the target is tried on


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of finding ``number``; ``output`` is the last run's text, ``why`` why it was not judged."""

    number: int
    finding: Finding
    again: Reruns
    output: str
    why: str

    @property
    def fixed(self) -> bool:
        """Whether every run was judged and passed."""
        return not (self.again.failed or self.again.unscored)

    @property
    def words(self) -> str:
        """``still fails``, ``flaky k of n``, ``could not be judged (why)`` or ``fixed``."""
        failed, passed, unscored = self.again.failed, self.again.passed, self.again.unscored
        if failed:
            return f"flaky {failed} of {failed + passed + unscored}" if passed + unscored else "still fails"
        return f"could not be judged ({self.why})" if unscored else "fixed"


class Replay:
    """The campaign in a directory, ready to have its findings run again.

    ``changed`` says that the target is another than the one they were found on. UsageError and
    TargetError when the model or an objective cannot be had any more.
    """

    def __init__(self, directory: Path, number: int | None = None) -> None:
        with Store.read(directory) as store:
            meta, found, rows, found_in = store.meta, store.findings(), store.rows(), store.space
            noise = store.state()["panel"]["noise"]
            if number is not None:
                pick(store, number)
        numbers = range(1, len(found) + 1) if number is None else [number]
        self._chosen = [(n, found[n - 1]) for n in numbers]
        self._spec = Spec(**meta["spec"])
        target = load_target(self._spec)
        self._objective: Panel = objectives(self._spec, target.space)
        self._objective.noise = noise
        self._wants = self._objective.needs | {"text"}
        self._executor = LocalExecutor(target)
        self.changed = target.identity != meta["identity"]
        self._same_rows = _spelling(target.space) == _spelling(found_in)
        self._executor.run(rows[:FEW], self._wants)  # a target that raises on all of them is broken

    def __iter__(self) -> Iterator[Verdict]:
        """A verdict for every finding, one after the other."""
        runs = self._spec.confirm
        for number, finding in self._chosen:
            if finding.objective not in self._objective.targets:
                raise UsageError(
                    f"finding {number} is about {finding.objective}, which the objectives no longer look for"
                )
            column = self._objective.targets.index(finding.objective)
            row = self._executor.target.space.batch([self._row(number, finding)])
            again = confirm(row, column, self._objective, self._executor, self._wants, runs)
            trace = self._executor.run(row, self._wants)
            why = str(trace[CRASH][0]) or (self._objective.why(column) if again.unscored else "")
            yield Verdict(number, finding, again, str(trace["text"][0]), why)

    def _row(self, number: int, finding: Finding) -> Array:
        if self._same_rows:
            return finding.row
        space = self._executor.target.space
        if isinstance(space, BoxSpace):
            raise UsageError(
                f"the model takes inputs of shape {space.shape} now, finding {number} has another"
            )
        if not space.knows(finding.prompt):
            raise UsageError(f"the model's alphabet cannot spell the prompt of finding {number} any more")
        return space.encode(finding.prompt)


def _spelling(space: Space) -> tuple[object, ...]:
    """What must be equal for a row to mean the same."""
    return space.shape if isinstance(space, BoxSpace) else (space.symbols, space.tokens)
