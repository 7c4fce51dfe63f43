"""Findings and seeds run again, alone: do they fail, on the campaign's model or on another version of it?"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from lmfuzz import spec as specs
from lmfuzz.analysis.summary import finding_record
from lmfuzz.campaign.checks import check_channels
from lmfuzz.campaign.choose import objectives
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.spec import NOTHING, Own, Spec
from lmfuzz.storage import serialize as coding
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.loading import load_target
from lmfuzz.text import WIDTH, as_utf8, bucket_title, escape, quote_output, shorten
from lmfuzz.types import CRASH, SEED, Array, Evidence, Finding, Reruns

FEW = 8  # seeds that a target is tried on
_KEPT = ("objective", "margin", "prompt", "output", "failed", "runs", "by_text")  # of a finding, when packed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of finding, or seed, ``number``; ``output`` is the last run's text, ``why`` why not judged.

    before: of a seed, whether it failed on the campaign's model; None where that cannot be said.
    evidence: of the last run, where that one failed.
    """

    number: int
    finding: Finding
    again: Reruns
    output: str
    why: str
    seed: bool = False
    before: bool | None = True
    evidence: Evidence | None = None

    @property
    def now(self) -> Finding:
        """The finding as the last run shows it; without a bad part and words where these may be others."""
        same, old = self.output == self.finding.output, self.finding.evidence
        evidence = self.evidence or (old if same else Evidence(old.signature, ""))
        return replace(self.finding, output=self.output, evidence=evidence)

    @property
    def moved(self) -> str:
        """The bucket that the finding is in now, where it is another, or ''."""
        return "" if as_utf8(self.now.bucket) == as_utf8(self.finding.bucket) else self.now.bucket

    @property
    def fixed(self) -> bool:
        """Whether every run was judged and passed."""
        return not (self.again.failed or self.again.unscored)

    @property
    def words(self) -> str:
        """``still fails``, ``flaky k of n``, ``newly fails``, ``fixed`` and the like."""
        failed, passed, unscored = self.again.failed, self.again.passed, self.again.unscored
        if failed and not self.before:
            part = f", {failed} of {failed + passed + unscored} times" if passed + unscored else ""
            doubt = f", whether anew is unknown ({self.why})"
            return f"newly fails{part}" if self.before is False else f"fails{part}{doubt}"
        if failed:
            return f"flaky {failed} of {failed + passed + unscored}" if passed + unscored else "still fails"
        if unscored:
            return f"could not be judged ({self.why})"
        return "fixed" if self.seed or self.finding.failed else "passes alone, as it did when it was found"


@dataclass(frozen=True)
class Recorded:
    """What is needed of a campaign to run its findings again: plain data, apart from its directory.

    spelling: a hash of what must be equal for a row to mean the same. texts: of the findings and of the
    seeds, exact, for models that spell them in another way. noise: objective -> noise floor.
    """

    spec: Spec
    identity: str
    spelling: str
    noise: Mapping[str, float]
    findings: Mapping[int, Finding]
    texts: Mapping[int, str]
    seeds: Sequence[tuple[Array, str]]

    @classmethod
    def of(cls, record: CampaignRecord, number: int | None = None) -> "Recorded":
        """All findings of a campaign, or one, with its seeds; UsageError when there is no such finding."""
        space, seeds = record.space, record.seeds
        found = dict(enumerate(record.findings, start=1))
        found = found if number is None else {number: record.finding(number)}
        rows = [seeds.row(i) for i in range(len(seeds))]
        return cls(
            record.spec, record.identity, spelling(space), record.noise, found,
            {n: space.decode(finding.row) for n, finding in found.items()},
            [(row, space.name(row, i, 0.0)) for i, row in enumerate(rows)],
        )  # fmt: skip

    def pack(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The campaign, with a few of its seeds, and its findings, as plain JSON."""
        campaign = {
            "spec": self.spec.model_dump(exclude_defaults=True), "identity": self.identity,
            "spelling": self.spelling, "noise": dict(self.noise),
            "seeds": [[_numbers(row), text] for row, text in self.seeds[:FEW]],
        }  # fmt: skip
        findings = [
            {"number": n, **{name: getattr(f, name) for name in _KEPT}, "evidence": asdict(f.evidence),
             "text": self.texts[n], "row": _numbers(f.row)}
            for n, f in self.findings.items()
        ]  # fmt: skip
        packed = json.loads(coding.encode({"campaign": campaign, "findings": findings}))
        return packed["campaign"], packed["findings"]

    @classmethod
    def unpack(cls, campaign: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> "Recorded":
        """What ``pack`` gave."""
        campaign, findings = coding.decode(json.dumps([campaign, findings]))
        found = {
            f["number"]: Finding(
                **{name: f[name] for name in _KEPT}, evidence=_evidence(f["evidence"]), row=_row(f["row"]),
                parent=SEED, operator=SEED, execution=0,
            )
            for f in findings
        }  # fmt: skip
        return cls(
            specs.stored(campaign["spec"], "the exported campaign"), campaign["identity"],
            campaign["spelling"],
            campaign["noise"], found, {f["number"]: f["text"] for f in findings},
            [(_row(row), text) for row, text in campaign["seeds"]],
        )  # fmt: skip


class Replay:
    """A campaign, ready to have its findings and seeds run again on its model, or on ``model``.

    ``changed`` says that the target is another than the one they were found on, ``respelled`` that rows
    are made anew from their texts, since its alphabet or tokenizer is another. UsageError and TargetError
    when the model or an objective cannot be had any more, or when none of the rows fits the model.
    """

    def __init__(self, recorded: Recorded, model: str | None = None, own: Own = NOTHING) -> None:
        self.recorded, self._own = recorded, own
        self.spec = recorded.spec if model is None else recorded.spec.model_copy(update={"model": model})
        target = load_target(self.spec, own)
        self._space: Space = target.space
        self._check_kind()
        self._objectives = objectives(self.spec, target.space, own)
        self._objectives.must_fit(target.space, target.info.told, self.spec.max_new)
        self._objectives.noise = recorded.noise
        self._evaluator = Evaluator(target, self._objectives)
        check_channels(target, {"the objectives need": self._evaluator.channels})
        self.identity = target.identity
        self.changed = target.identity != recorded.identity
        self.respelled = spelling(target.space) != recorded.spelling
        self._tried = False
        self._check()

    def _check_kind(self) -> None:
        """UsageError where the model takes numbers and the campaign's inputs are texts, or the other way."""
        rows = [
            *(finding.row for finding in self.recorded.findings.values()),
            *map(itemgetter(0), self.recorded.seeds),
        ]
        numbers = isinstance(self._space, BoxSpace)
        if rows and (rows[0].dtype.kind == "f") is not numbers:
            takes, has = ("numbers", "texts") if numbers else ("texts", "numbers")
            raise UsageError(
                f"{self.spec.model} takes {takes}, and the campaign's inputs are {has}; give another version"
                f" of {self.recorded.spec.model or 'its model'}"
            )

    def _check(self) -> None:
        """UsageError unless all objectives are there, and some rows can be run."""
        for number, finding in self.recorded.findings.items():
            if finding.objective not in self._objectives.targets:
                raise UsageError(
                    f"finding {number} is about {finding.objective}, which the objectives no longer look for"
                )
        rows = [*((f.row, self.recorded.texts[n]) for n, f in self.recorded.findings.items())]
        whys = [self._unfit(row, text) for row, text in (*rows, *self.recorded.seeds)]
        if whys and all(whys):
            raise UsageError(f"none of the campaign's inputs can be given to the model: {whys[0]}")

    def _unfit(self, row: Array, text: str) -> str:
        """Why the model cannot be given a row, or ''."""
        try:
            self._fitted(row, text)
        except UsageError as error:
            return str(error)
        return ""

    def __iter__(self) -> Iterator[Verdict]:
        """A verdict for every finding, one after the other."""
        return (self.judge(number) for number in self.recorded.findings)

    def judge(self, number: int) -> Verdict:
        """What finding ``number`` does now; TargetError when the target is broken."""
        finding = self.recorded.findings[number]
        return self._judge(number, finding, finding.row, self.recorded.texts[number])

    def _judge(self, number: int, finding: Finding, row: Array, text: str) -> Verdict:
        runs = self.spec.confirm
        try:
            if self.respelled and finding.by_text is False:
                raise UsageError("its text alone did not fail, and the model has another tokenizer")
            one = self._space.batch([self._fitted(row, text)])
        except UsageError as error:
            return Verdict(number, finding, Reruns(0, 0, runs), "", str(error))
        self._try_out()
        column = self._objectives.targets.index(finding.objective)
        again = self._evaluator.confirm(one, column, runs)
        trace = self._evaluator.run(one)
        why = str(trace[CRASH][0]) or (self._objectives.why(column) if again.unscored else "")
        failed = self._objectives(one, trace)[0, column] > 0
        evidence = self._objectives.evidence(one, trace, 0, column) if failed else None
        return Verdict(number, finding, again, str(trace["text"][0]), why, evidence=evidence)

    def _try_out(self) -> None:
        """Run a few seeds, once: a target that raises on all of them is broken."""
        if not self._tried and (fit := self._fitting(range(min(FEW, len(self.recorded.seeds))))):
            self._evaluator.run(self._space.batch(list(fit.values())))
        self._tried = True

    def _fitting(self, seeds: range) -> dict[int, Array]:
        """Those of ``seeds`` that the model can be given, as it takes them."""
        return {i: self._fitted(*pair) for i in seeds if not self._unfit(*(pair := self.recorded.seeds[i]))}

    def _fitted(self, row: Array, text: str) -> Array:
        """The row as the model takes it; UsageError where it cannot be."""
        space = self._space
        if isinstance(space, BoxSpace):
            if row.shape != space.shape:
                raise UsageError(f"the model takes inputs of shape {space.shape}, this one is another")
            return row
        made = space.encode(text) if self.respelled else row
        if not space.legal(space.batch([made]))[0]:
            raise UsageError(f"it has {len(made)} symbols, the model takes {space.max_length} at most")
        return made

    # -- seeds ------------------------------------------------------------------------------------

    def seeds(self) -> Iterator[Verdict]:
        """A verdict for every seed that fails, or could be judged on the campaign's model and no more.

        Seeds that are findings are left out. All run once, in batches, and those that fail there, or are not
        judged, again alone: a seed that fails only alone is missed. TargetError when the target is broken.
        """
        self._try_out()
        for seed, finding in self._suspects():
            verdict = self._judge(seed, finding, *self.recorded.seeds[seed])
            verdict = replace(verdict, finding=verdict.now, seed=True)
            if verdict.fixed:  # alone it passes
                continue
            earlier = self._earlier(seed, finding) if finding.objective else None
            if earlier is None:
                yield replace(
                    verdict, before=None, why=verdict.why if not verdict.again.failed else self._original[1]
                )
            elif verdict.again.failed or not earlier.again.unscored:
                yield replace(verdict, before=earlier.again.failed > 0)

    def _suspects(self) -> Iterator[tuple[int, Finding]]:
        """Seeds that may fail now, or not be judged, each as if it were a finding of that objective."""
        known = {(f.objective, f.row.tobytes()) for f in self.recorded.findings.values()}
        seeds, size, last = self.recorded.seeds, self.spec.batch, len(self._objectives.targets) - 1
        for start in range(0, len(seeds), size):
            some = range(start, min(start + size, len(seeds)))
            fit = self._fitting(some)
            yield from ((i, self._found(i, "", Evidence("", ""), "")) for i in some if i not in fit)
            if not fit:
                continue
            batch, ids = self._space.batch(list(fit.values())), list(fit)
            trace = self._evaluator.run(batch)
            margins = self._objectives(batch, trace)
            margins[margins[:, last] > 0, :last] = -np.inf  # what crashed is a crash, and nothing else
            for row, column in np.argwhere(~(margins <= 0)).tolist():
                target = self._objectives.targets[column]
                if (target, seeds[ids[row]][0].tobytes()) not in known:
                    evidence = Evidence(target, "")
                    if margins[row, column] > 0:
                        evidence = self._objectives.evidence(batch, trace, row, column)
                    yield ids[row], self._found(ids[row], target, evidence, str(trace["text"][row]))

    def _found(self, seed: int, objective: str, evidence: Evidence, output: str) -> Finding:
        row, text = self.recorded.seeds[seed]
        return Finding(objective, 0.0, evidence, row, text, output, SEED, SEED, 0, 0, 0, origin=seed)

    def _earlier(self, seed: int, finding: Finding) -> Verdict | None:
        """What the seed does on the campaign's own model; None where that cannot be had."""
        original = self._original[0]
        return None if original is None else original._judge(seed, finding, *self.recorded.seeds[seed])

    @cached_property
    def _original(self) -> tuple["Replay | None", str]:
        """The campaign on its own model, or why there is none."""
        try:
            original = Replay(self.recorded, own=self._own)
            original._try_out()
        except (TargetError, UsageError) as error:
            return None, str(error)
        return (None, "its model is another now") if original.changed else (original, "")


def verdict_line(verdict: Verdict) -> str:
    """What a finding does now, on one line; the bad part is marked where the last run showed one."""
    finding = verdict.finding
    bucket = f", {bucket_title(finding.bucket)}" if finding.objective else ""
    bucket += f", now {bucket_title(verdict.moved)}" if verdict.moved else ""
    head = f"{'seed' if verdict.seed else 'finding'} {verdict.number}: {escape(verdict.words)}{bucket}"
    return f"{head}: {shorten(finding.prompt)} -> {quote_output(verdict.now, WIDTH)}"


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """What a finding does now, for machines: how many runs failed, passed and were not judged.

    ``finding`` is what the campaign recorded; bucket, output and evidence are the last run's (evidence: null
    where that one did not fail).
    """
    again = verdict.again
    runs = {"failed": again.failed, "passed": again.passed, "unscored": again.unscored}
    finding = finding_record(verdict.finding, verdict.number)
    return {
        "verdict": verdict.words, "seed": verdict.seed, **runs, "bucket": verdict.now.bucket,
        "output": verdict.output, "evidence": verdict.evidence and asdict(verdict.evidence),
        "finding": finding,
    }  # fmt: skip


def spelling(space: Space) -> str:
    """A hash of what must be equal for a row to mean the same."""
    same = space.shape if isinstance(space, BoxSpace) else (space.symbols, space.tokens)
    return hashlib.sha256(as_utf8(repr(same)).encode()).hexdigest()[:16]


def _numbers(row: Array) -> Any:
    """Symbols as a list, which a person can read; values of a box as an array."""
    return row if row.dtype.kind == "f" else row.tolist()


def _row(numbers: Any) -> Array:
    return numbers if isinstance(numbers, np.ndarray) else np.array(numbers, np.int32)


def _evidence(packed: Mapping[str, Any]) -> Evidence:
    span = packed["span"]
    return Evidence(packed["signature"], packed["words"], tuple(span) if span else None)
