"""Findings and seeds run again, each alone, on the campaign's model or on another version of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from lmfuzz.analysis.recorded import FEW, Recorded, spelling
from lmfuzz.analysis.verdict import Verdict
from lmfuzz.campaign.checks import check_channels
from lmfuzz.campaign.choose import objectives
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.spec import NO_OBJECTS, Own
from lmfuzz.targets.loading import load_target
from lmfuzz.types import CRASH, SEED, Array, Evidence, Finding, Reruns


class Replay:
    """Run the findings and seeds of a campaign again, on its own model or on another version of it.

    Args:
        recorded: the campaign.
        model: another version of the model; None for the campaign's own.
        own: objects that were given from Python.

    Attributes:
        changed: whether the target is not the one that the findings were found on.
        respelled: whether inputs are made again from their texts, since the alphabet or tokenizer differs.

    Raises:
        UsageError: an objective is gone, or the model can be given none of the inputs.
        TargetError: the model cannot be loaded.
    """

    def __init__(self, recorded: Recorded, model: str | None = None, own: Own = NO_OBJECTS) -> None:
        self.recorded, self._own = recorded, own
        self.spec = recorded.spec if model is None else recorded.spec.model_copy(update={"model": model})
        target = load_target(self.spec, own)
        self._space: Space = target.space
        self._check_kind()
        self._objectives = objectives(self.spec, target.space, own)
        self._objectives.must_fit(target.space, target.info.told, self.spec.max_new)
        self._objectives.noise = recorded.noise
        self._evaluator = Evaluator(target, self._objectives, self.spec.row_timeout)
        check_channels(target, {"the objectives need": self._evaluator.channels})
        self.identity = target.identity
        self.changed = target.identity != recorded.identity
        self.respelled = spelling(target.space) != recorded.spelling
        self._tried = False
        self._check()

    def _check_kind(self) -> None:
        """Raise UsageError if the model takes numbers and the campaign's inputs are texts, or vice versa."""
        numbers, inputs = isinstance(self._space, BoxSpace), self.recorded.inputs
        if inputs and (inputs[0][0].dtype.kind == "f") is not numbers:
            takes, has = ("numbers", "texts") if numbers else ("texts", "numbers")
            raise UsageError(
                f"{self.spec.model} takes {takes}, but the campaign's inputs are {has}; give another version"
                f" of {self.recorded.spec.model or 'its model'}"
            )

    def _check(self) -> None:
        """Raise UsageError unless all objectives are there, and the model can be given some input."""
        for number, finding in self.recorded.findings.items():
            if finding.objective not in self._objectives.targets:
                raise UsageError(f"finding {number} is about {finding.objective}: no objective looks for it")
        fits = [self._fitted(*one) for one in self.recorded.inputs]
        if fits and all(isinstance(fit, str) for fit in fits):
            raise UsageError(f"the model cannot be given any of the campaign's inputs: {fits[0]}")

    def __iter__(self) -> Iterator[Verdict]:
        """Yield a verdict for every finding, one after the other."""
        return (self.judge(number) for number in self.recorded.findings)

    def judge(self, number: int) -> Verdict:
        """Return what finding ``number`` does now; TargetError if the target raises on everything."""
        finding = self.recorded.findings[number]
        return self._judge(number, finding, finding.row, self.recorded.texts[number])

    def _judge(self, number: int, finding: Finding, row: Array, text: str) -> Verdict:
        runs, fit = self.spec.confirm, self._fitted(row, text)
        if self.respelled and finding.by_text is False:
            fit = "its text alone did not fail, and the model has another tokenizer"
        if isinstance(fit, str):
            return Verdict(number, finding, Reruns(0, 0, runs), "", fit)
        self._try_out()
        one = self._space.batch([fit])
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
        fits = {i: self._fitted(*self.recorded.seeds[i]) for i in seeds}
        return {i: fit for i, fit in fits.items() if not isinstance(fit, str)}

    def _fitted(self, row: Array, text: str) -> Array | str:
        """The row as the model takes it, or why the model cannot be given it."""
        space = self._space
        if isinstance(space, BoxSpace):
            same = row.shape == space.shape
            return row if same else f"the model takes inputs of shape {space.shape}, not {row.shape}"
        try:
            made = space.encode(text) if self.respelled else row
        except UsageError as error:
            return str(error)
        if space.legal(space.batch([made]))[0]:
            return made
        return f"it has {len(made)} symbols, but the model takes at most {space.max_length}"

    # -- seeds ------------------------------------------------------------------------------------

    def seeds(self) -> Iterator[Verdict]:
        """Yield a verdict for every seed that fails, or that could be judged before and cannot be now.

        Seeds that are findings are left out. All run once, in batches; those that fail there, or are not
        judged, run again alone, so a seed that fails only alone is missed. TargetError if the target raises
        on everything.
        """
        self._try_out()
        for seed, finding in self._suspects():
            verdict = self._judge(seed, finding, *self.recorded.seeds[seed])
            verdict = replace(verdict, finding=verdict.now, seed=True)
            if verdict.fixed:  # alone it passes
                continue
            original, gone = self._original if finding.objective else (None, verdict.why)
            if original is None:
                yield replace(verdict, before=None, why=gone if verdict.again.failed else verdict.why)
                continue
            earlier = original._judge(seed, finding, *self.recorded.seeds[seed])
            if verdict.again.failed or not earlier.again.unscored:
                yield replace(verdict, before=earlier.again.failed > 0)

    def _suspects(self) -> Iterator[tuple[int, Finding]]:
        """Seeds that may fail now, or may not be judged, each as if it were a finding of that objective."""
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

    @cached_property
    def _original(self) -> tuple["Replay | None", str]:
        """The campaign on its own model, or why there is none."""
        try:
            original = Replay(self.recorded, own=self._own)
            original._try_out()
        except (TargetError, UsageError) as error:
            return None, str(error)
        return (None, "its model has changed") if original.changed else (original, "")
