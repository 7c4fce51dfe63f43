"""A campaign: calibrated, run and recorded."""

import shlex
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import lmfuzz
from lmfuzz import loop
from lmfuzz import spec as specs
from lmfuzz.budget import Budget
from lmfuzz.campaign.build import FEW, Parts
from lmfuzz.campaign.checks import check_rows, check_same
from lmfuzz.coverage.archive import Archive
from lmfuzz.coverage.calibrate import Calibration, Progress, has_numbers, measure
from lmfuzz.coverage.per_seed import Apart, Archives
from lmfuzz.errors import DiskError, GoneError, UsageError, forbidding_writes
from lmfuzz.files import CAMPAIGN, PICTURES
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import BoxSpace, describe
from lmfuzz.search.mutation import Mutator
from lmfuzz.search.seed_outcomes import outcomes_of
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.directory import undamaged
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.schema import Sample
from lmfuzz.storage.store import Store
from lmfuzz.text import bucket_title, plural, resume_command
from lmfuzz.types import Batch, Finding, State, Step, join

MUTANTS = 512  # rows that the radius is calibrated with; fewer if there are few seeds
_SOUND = frozenset({"logprob", "tokens"})  # channels that show whether a text was written by finite numbers
USUAL = 3  # buckets that many seeds, or most rows, fall into are named
COMMON = 0.1  # the share of the seeds that is said to be many
_MEANINGLESS = (
    "every seed leads to NaN or infinity, so the outputs mean nothing; look for that with --objective"
    " nonfinite, or use another precision (--dtype) or other seeds"
)
SPARING = 64  # seeds, and mutants, for the calibration of a target whose rows cost much


class Observer:
    """Watch a campaign; this one shows nothing, a screen, a log or a test may."""

    def found(self, number: int, finding: Finding) -> None:
        """Take a finding, which is on disk by now, and its number."""

    def step(self, step: Step) -> None:
        """Take a step that is done."""

    def note(self, line: str) -> None:
        """Take a sentence about the campaign."""


class Campaign:
    """Run one search with one spec, from its beginning or from its last commit.

    Attributes:
        spec: the settings.
        parts: everything that was made from them.
        calibration: what was measured before the search.
        budget: what may be spent, and was spent.
        archive: the states that were seen.
        tally: what the search counted.
        kept: the findings.
        outcomes: what became of each seed, if the search is per seed.
        reason: why the last run ended.
    """

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
        self.reason = ""
        self._interrupted = False

    @classmethod
    def begin(cls, parts: Parts, progress: Progress = lambda done, total: None) -> "Campaign":
        """Try the objectives on a few seeds, fit the feature, and measure the radius; nothing is written.

        Args:
            parts: what the campaign is made of.
            progress: called during calibration, see ``lmfuzz.coverage.calibrate.measure``.

        Raises:
            UsageError: an objective returns a wrong shape, or asks for what the target cannot grade (a phrase
                outside its alphabet), or no seed leads to finite numbers and no objective looks for that.
        """
        spec, evaluator, objectives = parts.spec, parts.evaluator, parts.objectives
        budget = replace(Budget.parse(spec.budget), findings=spec.stop_after)
        few = parts.context.seeds[:FEW]
        objectives.check(few, evaluator.run(few))
        graded = evaluator.channels.union(*objectives.grades)
        known = _SOUND if evaluator.target.channels >= _SOUND else frozenset()
        known |= parts.feature.needs
        first = evaluator.executor.run(few, graded | known)  # raises for what the model cannot grade
        sought = {need.rpartition("/")[2] for need in evaluator.channels} & {"nonfinite", "magnitude"}
        alive = has_numbers(first)
        for values in (first[name] for name in parts.feature.needs if first[name].dtype.kind == "f"):
            alive &= np.isfinite(values.reshape(len(few), -1)).any(axis=1)
        if not (sought or alive.any()):
            raise UsageError(_MEANINGLESS)
        measured = _measure(parts, _mutants(parts), progress)
        if not (measured.finite or sought):
            raise UsageError(_MEANINGLESS)
        made = cls(parts, replace(measured, radius=spec.radius) if spec.radius else measured, budget)
        budget.calibration = budget.spent_executions = made.executor.executions
        return made

    @classmethod
    def restore(cls, parts: Parts, store: Store) -> "Campaign":
        """Go on from the last commit; UsageError if the target, objectives or operators are others now."""
        record = store.record()
        names = {"targets": parts.objectives.targets, "operators": parts.context.operators}
        check_same(record, parts.evaluator.target, **names)
        _measure(parts, parts.context.seeds[:0], lambda done, total: None)  # fits the feature as it was
        with undamaged(store.directory):
            made = cls(parts, Calibration(**record.calibration), replace(record, spec=parts.spec).budget)
            made.archive.restore(record.states.points.reshape(-1, made.archive.dimensions), record.visits)
            made.kept, made.tally = record.findings, record.tally
            made.streams.restore(record.state["streams"])
            check_rows(record.state["search"], made.space, len(made.corpus))
            made.search.restore(record.state["search"])
            made.findings.restore(record.state["findings"])
            made.objectives.restore(record.state["panel"])
        made.executor.executions, made.executor.seconds = record.executions, record.time_in_target
        baseline = parts.findings.known.buckets
        if changed := (record.spec, record.baseline) != (made.spec, baseline):
            store.describe({"spec": made.spec.model_dump(), "baseline": baseline})
        if changed or not (store.directory / CAMPAIGN).exists():
            made.write_spec(store.directory)
        return made

    def create(self, directory: Path) -> Store:
        """Begin on disk; UsageError if the directory is not empty, DiskError if the disk is full."""
        meta = {
            "seeds": len(self.context.seeds), "operators": self.operators, "targets": self.objectives.targets,
            "identity": self.target.identity, "space": describe(self.space), "spec": self.spec.model_dump(),
            "calibration": asdict(self.calibration), "calibration_executions": self.budget.calibration,
            "baseline": self.findings.known.buckets,
        }  # fmt: skip
        store = Store.create(directory, meta, private=bool(self.spec.system))  # it may be a secret
        store.commit(self.state(), self.corpus, self.operators)
        self.write_spec(directory)
        return store

    def write_spec(self, directory: Path) -> None:
        """Write campaign.toml."""
        made_with = {"lmfuzz": lmfuzz.__version__, "numpy": np.__version__}
        specs.write(self.spec, directory / CAMPAIGN, made_with, {"identity": self.target.identity})
        if self.spec.system:
            (directory / CAMPAIGN).chmod(0o600)

    # -- the run ----------------------------------------------------------------------------------

    def run(self, store: Store, observer: Observer) -> None:
        """Search until the budget is spent or ``stop`` is called, and commit on the way and at the end.

        Raises:
            DiskError: the disk is full; the store holds the last commit.
            GoneError: the directory was removed or replaced; the error holds all findings.
        """
        self.reason = ""
        with closing(self.steps()) as steps:
            for step in steps:
                seconds = self.budget.elapsed()
                if not self.tally.mutants.any() and (step.batch.operator >= 0).any():  # the seeds are run
                    for line in self.usual:
                        observer.note(line)
                self.tally.add(step, seconds)
                store.add(step, self.corpus)
                self.kept += step.findings
                sizes = len(self.corpus), len(self.archive), len(self.kept)
                novelty = float(step.novel.mean())
                store.sample(Sample(step.executions, seconds, self.executor.seconds, *sizes, novelty))
                if store.due() or (self.spec.row_timeout and step.findings):  # the next step may be the last
                    self._commit(store, observer)
                observer.step(step)
                if self._interrupted:
                    break
        self.reason = "interrupted" if self._interrupted else self.budget.reason() or "done"
        self._commit(store, observer)
        self.archive.close()

    def steps(self) -> Generator[Step]:
        """Run the loop alone; nothing is written or shown."""
        parts = self.search, self.executor, self.feature, self.objectives, self.archive, self.findings
        return loop.run(*parts, self.budget, self.spec.batch, self.parts.wants)

    def stop(self) -> None:
        """End the run after the current step."""
        self._interrupted = True

    def _commit(self, store: Store, observer: Observer) -> None:
        try:
            numbered = store.commit(self.state(), self.corpus, self.operators)
        except GoneError as error:  # those of earlier commits went with the directory
            error.findings = self.kept
            raise
        for number, finding in numbered:
            self._picture(store.directory, number, finding)
            observer.found(number, finding)

    def _picture(self, directory: Path, number: int, finding: Finding) -> None:
        """Save a finding that is an image as PNG."""
        if not (isinstance(self.space, BoxSpace) and self.space.image):
            return
        from lmfuzz.inputs import render as pictures  # here, because it loads Pillow

        seed = self.context.seeds.row(finding.origin)
        try:
            pictures.save(directory / PICTURES, number, finding.row, seed, self.space)
            if small := finding.minimal:
                pictures.save_minimal(directory / PICTURES, number, small.row, seed, self.space)
        except OSError as error:
            raise DiskError(directory / PICTURES, str(error)) from error

    def state(self) -> State:
        """Return everything that ``restore`` needs, except the rows, points and findings."""
        return {
            "search": self.search.state(), "streams": self.streams.state(), "panel": self.objectives.state(),
            "findings": self.findings.state(), "tally": self.tally.state(),
            "executions": self.executor.executions, "seconds": self.budget.elapsed(),
            "time_in_target": self.executor.seconds, "reason": self.reason,
            "corpus_size": len(self.corpus), "archive_size": len(self.archive), "visits": self.archive.visits,
            "trials": None if self.outcomes is None else self.outcomes.state(),
        }  # fmt: skip

    @property
    def usual(self) -> list[str]:
        """What many seeds do unmutated: the most frequent buckets, each in a sentence."""
        seeds = len(self.context.seeds)
        return [
            f"{count} of {plural(seeds, 'seed')} do this unmutated: {bucket_title(bucket)}"
            for bucket, count in self.findings.unmutated.most_common(USUAL)
            if count >= max(2, COMMON * seeds)
        ]

    @property
    def common(self) -> list[str]:
        """Which buckets most rows fell into, and what to do about it."""
        return [
            f"{count / self.tally.rows:.0%} of the inputs hit {bucket_title(bucket)}: make the objective"
            f" stricter (lmfuzz list objectives), or set it aside with --ignore {shlex.quote(bucket)}"
            for bucket, count in self.findings.hits.most_common(USUAL)
            if count > self.tally.rows / 2
        ]

    @property
    def new(self) -> list[Finding]:
        """The findings in buckets that are not known; some of the others were found before a resume."""
        known = self.findings.known
        return [one for one in self.kept if not known.covers(one.bucket, one.evidence.variant)]

    @property
    def unjudged(self) -> str:
        """Why it means nothing that nothing was found: too few rows were searched or scored; else ''."""
        if not self.tally.rows and self.reason == "seconds":
            return (
                f"nothing was searched: calibration took {plural(self.budget.calibration, 'execution')} and "
                "the whole budget; resume with a larger budget, or begin with fewer seeds (count)"
            )
        if self.new:
            return ""
        if not (blind := self.objectives.blind):
            accept = "fix it and run again, or accept it with --allow-unscored"
            return f"nothing was found, but {self.unscored}: {accept}" if self.unscored else ""
        never = " and ".join(f"{name} never scored a row ({why})" for name, why in blind.items())
        return f"nothing was found, but {never}: fix it and run again"

    @property
    def unscored(self) -> str:
        """Which objectives left too many inputs unscored, and why; '' if none did, or if that is allowed."""
        failing = {} if self.spec.allow_unscored else self.objectives.failing
        return " and ".join(f"{name} left {how}" for name, how in failing.items())


def _mutants(parts: Parts) -> Batch:
    """Mutants of the seeds to calibrate with, in many small batches, so that every operator takes part."""
    rng, context = parts.streams["calibration"], parts.context
    mutator = Mutator(replace(context, rng=rng, corpus=Corpus(context.space)))
    size = min(MUTANTS, max(64, 4 * len(context.seeds)), _most(parts)) // 16
    return join([mutator.mutate(rng.integers(mutator.seeded, size=size)) for _ in range(16)])


def _measure(parts: Parts, mutants: Batch, progress: Progress) -> Calibration:
    objectives, feature = parts.objectives, parts.feature
    seeds, wants = parts.context.seeds[: _most(parts)], feature.needs | objectives.noise_needs
    wants |= _SOUND if parts.evaluator.target.channels >= _SOUND else frozenset()
    executor, compare = parts.evaluator.executor, objectives.measure_noise
    with forbidding_writes(f"the feature {parts.spec.feature}"):
        return measure(executor, feature, seeds, mutants, wants, parts.spec.batch, compare, progress)


def _most(parts: Parts) -> int:
    """The maximum number of seeds, and of mutants, to calibrate with."""
    return SPARING if parts.evaluator.target.info.sparing else sys.maxsize


def spec_for_resume(
    directory: Path, budget: str | None = None, stop_after: int | None = None, **more: Any
) -> Spec:
    """Return the spec of the campaign in ``directory``, with a larger budget if one is given.

    ``more`` are other settings to change.

    Raises:
        UsageError: its campaign.toml was changed, or nothing is left to spend.
    """
    record = CampaignRecord.read(directory)
    if (path := directory / CAMPAIGN).exists():
        was, now = record.spec.model_dump(), specs.stored(specs.load(path), str(path)).model_dump()
        if changed := [key for key in now if now[key] != was[key]]:
            raise UsageError(
                f"{path} was changed since the campaign began ({', '.join(changed)}); undo that, or begin "
                f"another campaign with it: lmfuzz fuzz --config {path}"
            )
    more |= {"budget": budget, "stop_after": stop_after}
    spec = specs.resolve(record.spec.model_dump(exclude_none=True), more)
    left, found = replace(record, spec=spec).budget, record.finding_count
    if why := left.reason():
        spent, key, larger = f"spent {spec.budget} or more", "budget", f"{2 * record.seconds + 1:.0f}s"
        if why == "executions":
            larger = f"{2 * (left.spent_executions - left.calibration)}x"
        elif why == "findings":
            spent, key, larger = f"reached {plural(found, 'finding')}", "stop_after", str(found + 1)
        raise UsageError(
            f"the campaign in {directory} has {spent}; resume it with a larger {key}: "
            f"{resume_command(directory)} {specs.option_name(key)} {larger}"
        )
    return spec
