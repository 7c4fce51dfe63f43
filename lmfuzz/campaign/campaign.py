"""A campaign: everything its spec names, put together, run, and taken note of."""

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import lmfuzz
from lmfuzz import loop
from lmfuzz import spec as specs
from lmfuzz.budget import Budget
from lmfuzz.campaign.build import Parts
from lmfuzz.coverage.archive import Archive
from lmfuzz.coverage.calibrate import Calibration, measure
from lmfuzz.coverage.per_seed import Apart, Archives
from lmfuzz.errors import DiskError, UsageError
from lmfuzz.files import CAMPAIGN, PICTURES
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import BoxSpace, describe
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.seed_outcomes import outcomes_of
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.schema import Sample
from lmfuzz.storage.store import Store
from lmfuzz.text import plural, resume_command
from lmfuzz.types import Batch, Finding, State, Step, join

MUTANTS = 512  # rows that the radius is calibrated with, fewer where there are few seeds
SPARING = 64  # seeds, and mutants, that a target is calibrated with whose rows cost much
FEW = 8  # rows that the objectives are tried on


class Observer(Protocol):
    """Who looks on: a screen, a log, a test."""

    def note(self, line: str) -> None:
        """Something a person should know once."""

    def found(self, number: int, finding: Finding) -> None:
        """A finding, which is on disk by now."""

    def step(self, step: Step) -> None:
        """A step is done."""


class Silent:
    """An observer that shows nothing."""

    def note(self, line: str) -> None:
        """Show nothing."""

    def found(self, number: int, finding: Finding) -> None:
        """Show nothing."""

    def step(self, step: Step) -> None:
        """Show nothing."""


class Campaign:
    """One search with one spec: begun from its parts, or gone on with, then run."""

    def __init__(self, parts: Parts, calibration: Calibration, budget: Budget) -> None:
        self.spec, self.parts, self.calibration, self.budget = parts.spec, parts, calibration, budget
        self.context, self.search, self.findings = parts.context, parts.search, parts.findings
        self.objectives, self.corpus, self.streams = parts.objectives, parts.context.corpus, parts.streams
        self.target, self.executor = parts.evaluator.target, parts.evaluator.executor
        self.space, self.operators = parts.context.space, list(parts.context.operators)
        self.outcomes = outcomes_of(self.search)
        self.feature = parts.feature if self.outcomes is None else Apart(parts.feature)
        one = self.context.seeds[:1]
        dimensions = self.feature(self.executor.run(one, self.feature.needs)).shape[1]
        self.archive = (Archive if self.outcomes is None else Archives)(calibration.radius, dimensions)
        self.tally = Tally.of(len(self.operators))
        self.kept: list[Finding] = []
        self.reason = ""  # why the last run ended
        self._interrupted = False

    @classmethod
    def begin(cls, parts: Parts) -> "Campaign":
        """Try the objectives on a few seeds, fit the feature, find the radius; nothing is written.

        Raises UsageError when an objective returns a wrong shape, or asks for what the target cannot grade (a
        phrase outside its alphabet), or no seed can be placed.
        """
        spec, evaluator, objectives = parts.spec, parts.evaluator, parts.objectives
        budget = replace(Budget.parse(spec.budget), findings=spec.stop_after)
        few = parts.context.seeds[:FEW]
        objectives.check(few, evaluator.run(few))
        graded = evaluator.channels.union(*objectives.grades)
        evaluator.executor.run(few, graded)  # what no model can grade shows now
        measured = _measure(parts, _mutants(parts))
        made = cls(parts, replace(measured, radius=spec.radius) if spec.radius else measured, budget)
        budget.calibration = budget.spent_executions = made.executor.executions
        return made

    @classmethod
    def restore(cls, parts: Parts, store: Store) -> "Campaign":
        """Go on from the last commit; UsageError when the target or the objectives are others now."""
        record = store.record()
        _check_same(parts, record)
        calibration = Calibration(**record.calibration)
        _measure(parts, parts.context.seeds[:0])  # fits the feature, as it was
        made = cls(parts, calibration, replace(record, spec=parts.spec).budget)
        made.archive.restore(record.states.points.reshape(-1, made.archive.dimensions), record.visits)
        made.kept, made.tally = record.findings, record.tally
        made.streams.restore(record.state["streams"])
        made.search.restore(record.state["search"])
        made.findings.restore(record.state["findings"])
        made.objectives.restore(record.state["panel"])
        made.executor.executions, made.executor.seconds = record.executions, record.time_in_target
        if spec_changed := record.spec != made.spec:
            store.describe(made._about_spec())
        if spec_changed or not (store.directory / CAMPAIGN).exists():
            made.write_spec(store.directory)
        return made

    def create(self, directory: Path) -> Store:
        """Begin on disk; UsageError when the directory is not free, DiskError when the disk is full."""
        store = Store.create(directory, {
            "seeds": len(self.context.seeds), "operators": self.operators, "targets": self.objectives.targets,
            "identity": self.target.identity, "space": describe(self.space),
            "calibration": asdict(self.calibration), "calibration_executions": self.budget.calibration,
            **self._about_spec(),
        })  # fmt: skip
        store.commit(self.state(), self.corpus, self.operators)
        self.write_spec(directory)
        return store

    def write_spec(self, directory: Path) -> None:
        """Write campaign.toml."""
        made_with = {"lmfuzz": lmfuzz.__version__, "numpy": np.__version__}
        try:
            specs.write(self.spec, directory / CAMPAIGN, made_with, {"identity": self.target.identity})
        except OSError as error:
            raise DiskError(directory / CAMPAIGN, str(error), []) from error

    def _about_spec(self) -> dict[str, Any]:
        return {"spec": self.spec.model_dump()}

    # -- the run ----------------------------------------------------------------------------------

    def run(self, store: Store, observer: Observer) -> None:
        """Search until the budget is spent or ``stop`` is called, committing on the way and at the end.

        DiskError when the disk takes no more; the store then holds the commit before.
        """
        self.reason = ""
        with closing(self.steps()) as steps:
            for step in steps:
                seconds = self.budget.elapsed()
                self.tally.add(step, seconds)
                store.add(step, self.corpus)
                self.kept += step.findings
                store.sample(self._sample(step, seconds))
                if store.due():
                    self._commit(store, observer)
                observer.step(step)
                if self._interrupted:
                    break
        self.reason = "interrupted" if self._interrupted else self.budget.reason() or "done"
        self._commit(store, observer)
        self.archive.close()

    def steps(self) -> Generator[Step]:
        """The loop alone, without disk and screen; nothing is written."""
        return loop.run(
            self.search, self.executor, self.feature, self.objectives, self.archive, self.findings,
            self.budget, self.spec.batch, self.parts.wants,
        )  # fmt: skip

    def stop(self) -> None:
        """End after the step under way."""
        self._interrupted = True

    def _sample(self, step: Step, seconds: float) -> Sample:
        return Sample(
            step.executions, seconds, self.executor.seconds, len(self.corpus), len(self.archive),
            len(self.kept), float(step.novel.mean()),
        )  # fmt: skip

    def _commit(self, store: Store, observer: Observer) -> None:
        for number, finding in store.commit(self.state(), self.corpus, self.operators):
            self._picture(store.directory, number, finding)
            observer.found(number, finding)

    def _picture(self, directory: Path, number: int, finding: Finding) -> None:
        """Save a finding that is an image as PNG."""
        if not (isinstance(self.space, BoxSpace) and self.space.image):
            return
        from lmfuzz.inputs import render as pictures  # only where it is used: it loads Pillow

        seed = self.context.seeds.row(finding.origin)
        try:
            pictures.save(directory / PICTURES, number, finding.row, seed, self.space)
            if small := finding.minimal:
                pictures.save_minimal(directory / PICTURES, number, small.row, seed, self.space)
        except OSError as error:
            raise DiskError(directory / PICTURES, str(error), []) from error

    def state(self) -> State:
        """Everything that ``restore`` needs but the rows, points and findings."""
        return {
            "search": self.search.state(), "streams": self.streams.state(), "panel": self.objectives.state(),
            "findings": self.findings.state(), "tally": self.tally.state(),
            "executions": self.executor.executions, "seconds": self.budget.elapsed(),
            "time_in_target": self.executor.seconds, "reason": self.reason,
            "corpus_size": len(self.corpus), "archive_size": len(self.archive), "visits": self.archive.visits,
            "trials": None if self.outcomes is None else self.outcomes.state(),
        }  # fmt: skip

    @property
    def unjudged(self) -> str:
        """Why it says nothing that nothing was found: no row was searched, or never scored; else ''."""
        if not self.tally.rows and self.reason == "seconds":
            return (
                f"nothing was searched: calibration took {plural(self.budget.calibration, 'execution')},"
                " all of the budget; go on with a larger one, or begin with fewer seeds (--count)"
            )
        if self.kept or not (blind := self.objectives.blind):
            return ""
        never = " and ".join(f"{name} never scored a row ({why})" for name, why in blind.items())
        return f"nothing was found, but {never}: fix it and run again"


def _mutants(parts: Parts) -> Batch:
    """Mutants of the seeds to calibrate with: many small batches, so that every operator takes part."""
    rng, context = parts.streams["calibration"], parts.context
    mutator = Mutator(replace(context, rng=rng, corpus=Corpus(context.space)))
    size = min(MUTANTS, max(64, 4 * len(context.seeds)), _most(parts)) // 16
    return join([mutator.mutate(rng.integers(mutator.seeded, size=size)) for _ in range(16)])


def _measure(parts: Parts, mutants: Batch) -> Calibration:
    objectives, feature = parts.objectives, parts.feature
    seeds, wants = parts.context.seeds[: _most(parts)], feature.needs | objectives.noise_needs
    executor, compare = parts.evaluator.executor, objectives.measure_noise
    return measure(executor, feature, seeds, mutants, wants, parts.spec.batch, compare)


def _most(parts: Parts) -> int:
    """How many seeds to calibrate with at most, and how many mutants."""
    return SPARING if parts.evaluator.target.info.sparing else sys.maxsize


def _check_same(parts: Parts, record: CampaignRecord) -> None:
    """UsageError unless the parts are those that a campaign was begun with."""
    identity = parts.evaluator.target.identity
    if record.identity != identity:
        raise UsageError(
            f"the campaign in {record.directory} belongs to another target: its model was "
            f"{record.identity}, this one is {identity}"
        )
    for what, then, now in (
        ("targets", record.targets, list(parts.objectives.targets)),
        ("operators", record.operators, list(parts.context.operators)),
    ):
        if then != now:
            odd = ", ".join(sorted(set(then) ^ set(now))) or "their order"
            raise UsageError(
                f"the campaign in {record.directory} was begun with other {what}; what differs: {odd}"
            )


def spec_for_resume(directory: Path, budget: str | None = None, stop_after: int | None = None) -> Spec:
    """The spec of the campaign in ``directory``, with a larger budget where one is given.

    UsageError when its campaign.toml was changed, or when nothing is left to spend.
    """
    record = CampaignRecord.read(directory)
    if (path := directory / CAMPAIGN).exists():
        was, now = record.spec.model_dump(), specs.resolve(specs.load(path), {}).model_dump()
        if changed := [key for key in now if now[key] != was[key]]:
            raise UsageError(
                f"{path} was changed since the campaign began ({', '.join(changed)}); put it back, or begin"
                f" another with it: lmfuzz fuzz --config {path}"
            )
    more = {"budget": budget, "stop_after": stop_after}
    spec = specs.resolve(record.spec.model_dump(exclude_none=True), more)
    if why := replace(record, spec=spec).budget.reason():
        found = record.finding_count
        spent, option = f"the budget of {spec.budget}", "--budget MORE"
        if why == "findings":
            spent, option = plural(found, "finding"), f"--stop-after {found + 1}"
        raise UsageError(
            f"{spent} of the campaign in {directory} is spent; give a larger one: "
            f"{resume_command(directory)} {option}"
        )
    return spec
