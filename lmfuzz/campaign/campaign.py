"""A campaign: everything its spec names, put together, run, and taken note of."""

import sys
import time
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
from lmfuzz.campaign import build as assembly
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.campaign.findings import Findings
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.coverage import FEATURES
from lmfuzz.coverage.archive import Archive
from lmfuzz.coverage.calibrate import Calibration, measure
from lmfuzz.coverage.per_seed import Apart, Archives
from lmfuzz.errors import UsageError
from lmfuzz.files import CAMPAIGN, PICTURES
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import BoxSpace, TextSpace, describe
from lmfuzz.protocols import Differentiable, Feature, PlainTarget, Sampler, SearchContext
from lmfuzz.rng import Streams
from lmfuzz.search.adapt import outcomes_of
from lmfuzz.search.mutation import Mutator
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.schema import Sample
from lmfuzz.storage.store import Store, Unwritten
from lmfuzz.text import plural, resume_command
from lmfuzz.types import CRASH, Batch, Finding, State, Step, join, unknown

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
    """One search with one spec.

    Making it loads and checks everything that the spec names, and neither runs the model nor writes
    anything. Then either ``calibrate`` and ``create``, or ``restore`` from the store it was made with,
    then ``run``. ``target`` is used instead of loading the spec's model.

    Raises UsageError and TargetError for whatever the spec has wrong.
    """

    calibration: Calibration
    archive: Archive | Archives

    def __init__(self, spec: Spec, target: PlainTarget | None = None, store: Store | None = None) -> None:
        self.spec = spec
        assembly.check_names(spec)
        panel = None if spec.twin else assembly.objectives(spec)  # before a model is loaded for minutes
        self.feature: Feature = FEATURES.build(assembly.read_call(spec.feature))
        self.target = assembly.load_target(spec, target)
        self.panel = panel or assembly.objectives(spec, self.target.space)
        assembly.check_objectives(spec, self.target, self.panel)
        self.space = assembly.restrict(self.target.space, spec)
        self.notes: list[str] = [*self.target.info.notes]
        self.executor = LocalExecutor(self.target)
        self.kept: list[Finding] = []
        self.corpus = Corpus(self.space)
        seeds = self._seeds(store)
        if isinstance(self.space, TextSpace):  # what stands in the seeds is drawn, too
            self.space = self.space.drawing(np.concatenate([seeds.row(i) for i in range(len(seeds))]))
        operators = assembly.operators(spec, self.target)
        self.operators = list(operators)
        self.streams = Streams(spec.seed)
        self.context = SearchContext(
            self.space, seeds, operators, self.panel.targets, self.corpus, self.streams["search"],
            self.executor if isinstance(self.target, Sampler) else None,
            bound=assembly.bound(spec, self.space, seeds), queries=spec.per_seed,
            gradients=self.executor.gradients if isinstance(self.target, Differentiable) else None,
            lexicon=assembly.lexicon(self.target),
        )  # fmt: skip
        self.search = assembly.search(spec, self.context)
        self.outcomes = outcomes_of(self.search)
        self.judged_by = self.panel.needs | {"text"}  # channels
        wanted = assembly.needs(self.judged_by, self.feature, self.search)
        assembly.check_channels(self.target, wanted)
        self._grade()
        self.wants = frozenset({"origin"}).union(*(names for _, names in wanted))
        self.findings = Findings(
            self.panel, self.executor, self.judged_by, seeds, spec.confirm, spec.keep,
            self.outcomes is not None,
        )  # fmt: skip
        if spec.shrink:
            made = Shrinker(
                self.panel, self.executor, self.judged_by, self.space, seeds, spec.batch, spec.edits
            )
            self.findings.shrink = made
        self.tally = Tally.of(len(self.operators))
        self.budget = replace(Budget.parse(spec.budget), findings=spec.stop_after)
        self.reason = ""  # why the last run ended
        self._interrupted = False

    def _grade(self) -> None:
        """Leave ungraded what the target cannot grade: the objective then says hit or no hit."""
        have = self.target.channels | {CRASH, "prompt"}
        graded = tuple(frozenset() if unknown(grade, have) else grade for grade in self.panel.grades)
        if lost := sum(now != before for now, before in zip(graded, self.panel.grades, strict=True)):
            self.notes.append(
                f"the target cannot say how near it is to {lost} of the {len(graded)} things looked for"
            )
        self.panel.grades = graded

    def _seeds(self, store: Store | None) -> Batch:
        if store is not None:  # the files may have changed since
            record = store.record()
            self.corpus.add(record.rows)
            seeds = record.seeds
            return seeds.changed(seeds.data[:, : int(seeds.lengths.max())])
        found = assembly.seeds(self.spec, self.space, self.target.info.seeds)
        for count, what in (
            (found.dropped, "characters outside the model's alphabet, dropped from the seeds"),
            (found.left_out, "seeds left out because they do not fit the model"),
        ):
            if count:
                self.notes.append(f"{what}: {count}")
        return found.batch

    # -- before the first step --------------------------------------------------------------------

    def calibrate(self) -> None:
        """Try the objectives on a few seeds, fit the feature, and find the radius.

        UsageError when an objective returns a wrong shape, or asks for what the target cannot grade (a
        phrase outside its alphabet), or no seed can be placed.
        """
        self.budget = replace(self.budget, started=time.perf_counter())  # what came before was loading
        few = self.context.seeds[:FEW]
        self.panel.check(few, self.executor.run(few, self.judged_by))
        self.executor.run(few, self.judged_by.union(*self.panel.grades))  # what no model can grade shows now
        measured = self._measure(self._mutants())
        radius = self.spec.radius
        self.calibration = replace(measured, radius=radius) if radius else measured
        self._open_archive()
        self.budget.calibration = self.budget.spent_executions = self.executor.executions

    def _mutants(self) -> Batch:
        rng = self.streams["calibration"]
        mutator = Mutator(replace(self.context, rng=rng, corpus=Corpus(self.space)))
        # Many small batches, so that every operator takes part.
        size = min(MUTANTS, max(64, 4 * len(self.context.seeds)), self._most) // 16
        return join([mutator.mutate(rng.integers(mutator.seeded, size=size)) for _ in range(16)])

    def _measure(self, mutants: Batch) -> Calibration:
        wants, compare = self.feature.needs | self.panel.noise_needs, self.panel.measure_noise
        seeds = self.context.seeds[: self._most]
        return measure(self.executor, self.feature, seeds, mutants, wants, self.spec.batch, compare)

    @property
    def _most(self) -> int:
        """How many seeds to calibrate with at most, and how many mutants."""
        return SPARING if self.target.info.sparing else sys.maxsize

    def _open_archive(self) -> None:
        one = self.context.seeds[:1]
        if self.outcomes is not None:
            self.feature = Apart(self.feature)
        dimensions = self.feature(self.executor.run(one, self.feature.needs)).shape[1]
        kind = Archive if self.outcomes is None else Archives
        self.archive = kind(self.calibration.radius, dimensions)

    def create(self, directory: Path) -> Store:
        """Begin on disk; UsageError when the directory is not free, Unwritten when the disk is full."""
        store = Store.create(directory, {
            "seeds": len(self.context.seeds), "operators": self.operators, "targets": self.panel.targets,
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
            raise Unwritten(directory / CAMPAIGN, str(error), []) from error

    def _about_spec(self) -> dict[str, Any]:
        return {"spec": self.spec.model_dump()}

    def restore(self, store: Store) -> None:
        """Go on from the last commit. UsageError when the target or the objectives are others now."""
        record = store.record()
        if record.identity != self.target.identity:
            raise UsageError(
                f"the campaign in {store.directory} belongs to another target: its model was "
                f"{record.identity}, this one is {self.target.identity}"
            )
        for what, then, now in (
            ("targets", record.targets, list(self.panel.targets)),
            ("operators", record.operators, self.operators),
        ):
            if then != now:
                odd = ", ".join(sorted(set(then) ^ set(now))) or "their order"
                raise UsageError(
                    f"the campaign in {store.directory} was begun with other {what}; what differs: {odd}"
                )
        self.calibration = Calibration(**record.calibration)
        self._measure(self.context.seeds[:0])  # fits the feature, as it was
        self._open_archive()
        points = record.states.points.reshape(-1, self.archive.dimensions)
        self.archive.restore(points, record.visits)
        self.kept = record.findings
        state = record.state
        self.streams.restore(state["streams"])
        self.search.restore(state["search"])
        self.findings.restore(state["findings"])
        self.panel.restore(state["panel"])
        self.tally = record.tally
        self.executor.executions, self.executor.seconds = record.executions, record.time_in_target
        self.budget = replace(record, spec=self.spec).budget
        if spec_changed := record.spec != self.spec:
            store.describe(self._about_spec())
        if spec_changed or not (store.directory / CAMPAIGN).exists():
            self.write_spec(store.directory)

    # -- the run ----------------------------------------------------------------------------------

    def run(self, store: Store, observer: Observer) -> None:
        """Search until the budget is spent or ``stop`` is called, committing on the way and at the end.

        Unwritten when the disk takes no more; the store then holds the commit before.
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
            self.search, self.executor, self.feature, self.panel, self.archive, self.findings, self.budget,
            self.spec.batch, self.wants,
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
            raise Unwritten(directory / PICTURES, str(error), []) from error

    def state(self) -> State:
        """Everything that ``restore`` needs but the rows, points and findings."""
        return {
            "search": self.search.state(), "streams": self.streams.state(), "panel": self.panel.state(),
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
        if self.kept or not (blind := self.panel.blind):
            return ""
        never = " and ".join(f"{name} never scored a row ({why})" for name, why in blind.items())
        return f"nothing was found, but {never}: fix it and run again"


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


def default_directory(now: str) -> Path:
    """runs/NOW, or with a number behind it where that exists."""
    path, number = Path("runs") / now, 2
    while path.exists():
        path, number = Path("runs") / f"{now}-{number}", number + 1
    return path
