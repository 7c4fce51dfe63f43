"""Objectives made of objectives: all of several, any of several, and the whole set of a campaign."""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lmfuzz.errors import INTERRUPTS, Unfit, UsageError, one_line
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.objectives.detectors import Detector, as_detector, distinct
from lmfuzz.plugins.modules import blame
from lmfuzz.plugins.timeout import Timeout, within
from lmfuzz.protocols import ForTexts, LooksForSecret, LooksForTokens
from lmfuzz.types import CRASH, NAME, Array, Batch, Evidence, FloatArray, State, Trace, alike, take, unknown

TOLERATED = 0.1  # the share of the rows that an objective may leave unscored
DISTINCT = 3  # tracebacks kept per objective
OTHERS = "(other errors)"
_UNFIT = f"{Unfit.__name__}: "  # the executor's error for a row that the target cannot take begins with it


def either(margins: FloatArray) -> FloatArray:
    """Return the margin (B,) of "one of the columns", the largest of margins (B, N).

    The logic is three-valued: a hit is a hit even if other columns could not be scored; otherwise one NaN
    makes NaN.
    """
    best = np.fmax.reduce(margins, axis=1)
    return np.where(np.isnan(margins).any(axis=1) & ~(best > 0), np.nan, best)


def both(margins: FloatArray) -> FloatArray:
    """Return the margin (B,) of "all of the columns", the smallest of margins (B, N).

    The logic is three-valued: if one column is surely not a hit, then neither is the whole, and the smallest
    scored margin says how far away it is; otherwise one NaN makes NaN.
    """
    worst = np.fmin.reduce(margins, axis=1)
    return np.where(np.isnan(margins).any(axis=1) & ~(worst <= 0), np.nan, worst)


class _Combination:
    """Join parts into one column, ``NAME(a,b)``, by the best column of each."""

    join = staticmethod(either)

    def __init__(self, parts: Sequence[object]) -> None:
        name = type(self).__name__.lower()
        if not parts:
            raise UsageError(f"{name}() is empty; name at least one objective in the parentheses")
        self.parts = [as_detector(part) for part in parts]
        # A combination is judged by what its parts are graded by, too.
        self.needs = frozenset[str]().union(*(part.needs.union(*part.grades) for part in self.parts))
        self.targets = (f"{name}({','.join(map(_label, self.parts))})",)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        best = np.stack([either(part(batch, trace)) for part in self.parts], axis=1)
        return self.join(best)[:, None]

    def _evidence(self, batch: Batch, trace: Trace, row: int) -> list[Evidence]:
        """Return the evidence of the best column of every part that hits, signed with that column's name."""
        batch, trace = batch[row : row + 1], take(trace, slice(row, row + 1))
        found = []
        for part in self.parts:
            margins = part(batch, trace)[0]
            if (margins > 0).any():
                column = int(np.nanargmax(margins))
                why = part.evidence(batch, trace, 0, column)
                found.append(replace(why, signature=f"{part.targets[column]}: {why.signature}"))
        return found


class All(_Combination):
    """Hit when every part hits, in any of its columns: ``all(a, b)``.

    The margin is the smallest of the parts' largest margins (see ``both`` and ``either``). The signature
    joins those of all parts.
    """

    join = staticmethod(both)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the parts' signatures and words, joined, with the first span that a part gives."""
        found = self._evidence(batch, trace, row)
        span = next((part.span for part in found if part.span), None)
        signatures, words = [part.signature for part in found], [part.words for part in found]
        variant = " + ".join(part.variant for part in found if part.variant)
        return Evidence(" + ".join(signatures), "; ".join(words), span, variant)


class Any(_Combination):
    """Hit when at least one part hits, in any of its columns: ``any(a, b)``.

    The margin is the largest of all (see ``either``). The signature is that of the first part that hits.
    """

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the evidence of the first part that hits; raise ValueError when none does."""
        if not (found := self._evidence(batch, trace, row)):
            raise ValueError("no part hits")
        return found[0]


class Crash:
    """Hit when the target raised an error on the input, unless it could not take the input at all.

    The margin is 1, otherwise -inf. The signature is the error's type and message, with every number as N.
    """

    targets = ("crash",)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        raised = np.array([bool(text) and not text.startswith(_UNFIT) for text in trace["crash"]], bool)
        return np.where(raised, np.float32(1), np.float32(-np.inf))[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return what was raised."""
        error = str(trace["crash"][row])
        return Evidence(re.sub(r"0x[0-9a-fA-F]+|\d+", "N", error), error)


class ObjectiveSet:
    """Join all objectives of a campaign, their columns side by side; the last column is ``crash``.

    Objectives see only the rows that ran; a row that crashed is NaN in every column but the last. An
    objective that raises, or returns a wrong shape, leaves NaN in its columns for that batch, and the
    campaign goes on. If it takes longer than the timeout, it scores each row alone. If two columns have the
    same name, the later one becomes ``name#2``.

    Attributes:
        objectives: the objectives by name, as they were given.
        timeout: the seconds that an objective may take for one call; None for no limit.
        errors: objective's name -> traceback -> how often, at most 3 tracebacks each, then OTHERS.
        unscored: objective's name -> rows so far with a column that it could not score; this counts rows that
            crashed and re-runs of findings.
    """

    def __init__(self, objectives: Mapping[str, object], timeout: float | None = None) -> None:
        self.objectives, self.timeout = objectives, timeout
        self._parts: list[tuple[Detector, slice]] = []
        names: list[str] = []
        self._crash = Crash()
        for name, objective in objectives.items():
            part = as_detector(objective, name)
            self._parts.append((part, slice(len(names), len(names) + len(part.targets))))
            names += (distinct(target, [*names, *self._crash.targets]) for target in part.targets)
        self.targets = (*names, *self._crash.targets)
        self.grades = (*(grade for part, _ in self._parts for grade in part.grades), frozenset[str]())
        self.needs = frozenset[str]().union(*(part.needs for part, _ in self._parts)) - {"crash"}
        self._noisy = {part.name: part.noisy for part, _ in self._parts if part.noisy is not None}
        self.errors: dict[str, dict[str, int]] = {}
        self.unscored: dict[str, int] = {part.name: 0 for part, _ in self._parts}
        self._scored = np.zeros(len(self.targets), np.int64)
        self._judged = 0  # rows that ran, which objectives have seen
        self._lost = dict(self.unscored)  # objective's name -> those that it did not score
        self._raised: dict[str, str] = {}  # objective's name -> what its last call raised

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, N)."""
        margins = np.full((len(batch), len(self.targets)), np.nan, np.float32)
        margins[:, -1:] = self._crash(batch, trace)
        rows, batch, trace = _ran(batch, trace)
        for part, columns in self._parts if len(batch) else ():
            margins[rows, columns] = self._score(part, batch, trace)
        scored = ~np.isnan(margins)
        self._scored += scored.sum(axis=0)
        for part, columns in self._parts:
            self.unscored[part.name] += len(scored) - int(scored[:, columns].all(axis=1).sum())
            self._lost[part.name] += len(batch) - int(scored[rows, columns].all(axis=1).sum())
        self._judged += len(batch)
        return margins

    def _score(self, part: Detector, batch: Batch, trace: Trace) -> FloatArray:
        margins = np.full((len(batch), len(part.targets)), np.nan, np.float32)
        with self._noting(part):
            try:
                with within(self.timeout):
                    margins[:] = part(batch, trace)
                self._raised.pop(part.name, None)
            except Timeout:
                if len(batch) == 1:
                    raise
                alone = [slice(row, row + 1) for row in range(len(batch))]
                return np.concatenate([self._score(part, batch[row], take(trace, row)) for row in alone])
        return margins

    def why(self, column: int) -> str:
        """Return why the objective of this column left NaN in its last call."""
        return self._raised.get(self._part(column)[0].name, "NaN")

    @property
    def blind(self) -> dict[str, str]:
        """The objectives with a column that has scored no row so far, and why."""
        return {
            part.name: self.why(columns.start)
            for part, columns in self._parts
            if self.unscored[part.name] and not self._scored[columns].all()
        }

    @property
    def failing(self) -> dict[str, str]:
        """The objectives that left more than TOLERATED of the rows that ran unscored: how many, and why.

        Rows that crashed, or that the target cannot take, are not theirs to score.
        """
        shares = {name: lost / max(1, self._judged) for name, lost in self._lost.items()}
        raised = {name: next(iter(kept)).rstrip().rpartition("\n")[2] for name, kept in self.errors.items()}
        return {
            name: f"{share:.0%} of the inputs unscored ({raised.get(name, 'NaN')[:NAME]})"
            for name, share in shares.items()
            if share > TOLERATED
        }

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the evidence of the objective of this column, or only its name if it raises."""
        if column == len(self.targets) - 1:
            return self._crash.evidence(batch, trace, row, 0)
        part, columns = self._part(column)
        found = None
        with self._noting(part), within(self.timeout):
            found = part.evidence(batch, trace, row, column - columns.start)
        words = f"{part.about} (its evidence raised {self._raised.get(part.name)})"
        return found or Evidence(self.targets[column], words)

    def check(self, batch: Batch, trace: Trace) -> None:
        """Try every objective on a few rows, and on the first of them alone, before a campaign.

        What it raises on some of them is noted in ``errors``: it may still score other rows.

        Raises:
            UsageError: an objective returns a wrong shape, or no numbers, or raises on each of the rows.
        """
        _, batch, trace = _ran(batch, trace)
        alone = [slice(row, row + 1) for row in range(len(batch))]
        for part, _ in self._parts if len(batch) else ():
            raised: list[BaseException] = []
            for tried, rows in enumerate([slice(None), *alone]):
                if tried < 2 or len(raised) == tried:  # the other rows only if it has scored none
                    with self._noting(part, (UsageError, *INTERRUPTS)) as errors, within(self.timeout):
                        part(batch[rows], take(trace, rows))
                    raised += errors
            if len(raised) > len(batch):
                why = f"the objective {part.name} raises on every input: {blame(raised[-1])}"
                raise UsageError(why) from raised[-1]

    def must_fit(self, space: Space, told: str | None, steps: int) -> None:
        """Check that every objective can hit.

        Args:
            space: what the model takes; an objective on texts needs a space of texts.
            told: what the target was told, which must hold a secret to look for; None if nobody knows.
            steps: the tokens of an output, which must be as many as an objective looks for.

        Raises:
            UsageError: an objective can never hit.
        """
        for name, part in self.objectives.items():
            why = ""
            if told is not None and isinstance(part, LooksForSecret) and part.secret not in told:
                why = f"looks for {part.secret!r}, which the system prompt lacks; put it into --system"
            elif isinstance(part, LooksForTokens) and part.tokens > steps:
                why = f"looks for {part.tokens} tokens in a row, but an output has {steps}; raise --max-new"
                why += " or lower its parameter tokens"
            elif isinstance(part, ForTexts) and isinstance(space, BoxSpace):
                why = "looks at texts, but this model takes numbers; choose another, such as"
                why += " --objective nonfinite or a detector of your own"
            if why:
                raise UsageError(f"{name} {why}")

    @property
    def noise_needs(self) -> frozenset[str]:
        """The channels of the objectives that need the noise floor."""
        return frozenset[str]().union(*(part.needs for part, _ in self._parts if part.name in self._noisy))

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Show these objectives the traces of the same rows in two different batches."""
        for part in self._noisy.values():
            part.measure_noise(one, other)

    @property
    def noise(self) -> dict[str, float]:
        """Objective's name -> its noise floor, in units of its margin."""
        return {name: float(part.noise) for name, part in self._noisy.items()}

    @noise.setter
    def noise(self, floors: Mapping[str, float]) -> None:
        for name in floors.keys() & self._noisy.keys():
            self._noisy[name].noise = floors[name]

    def leave_ungraded(self, channels: frozenset[str]) -> list[str]:
        """Grade no column that a target with these channels cannot grade: it then says hit or no hit.

        Returns a line for a person if there are such columns.
        """
        have = channels | {CRASH, "prompt"}
        graded = tuple(frozenset[str]() if unknown(grade, have) else grade for grade in self.grades)
        lost = sum(now != before for now, before in zip(graded, self.grades, strict=True))
        self.grades = graded
        blind = (
            f"the search is blind for {lost} of the {len(graded)} things looked for. It sees only whether"
            " they happened, not how near they are. A model that shows its logits is graded: a torch"
            " module or a Hugging Face folder, instead of a function of texts."
        )
        return [blind] if lost else []

    def state(self) -> State:
        """Return counts, noise floors and errors, for ``restore``."""
        return {
            "noise": self.noise,
            "unscored": dict(self.unscored), "judged": self._judged, "lost": dict(self._lost),
            "scored": self._scored.tolist(), "raised": dict(self._raised),
            "errors": {name: dict(e) for name, e in self.errors.items()},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from what ``state`` returned."""
        self.noise = state["noise"]
        self.unscored, self._raised = dict(alike(self.unscored, state["unscored"])), dict(state["raised"])
        self._scored = alike(self._scored, np.array(state["scored"], np.int64))
        self._judged = alike(0, state.get("judged", 0))
        self._lost = alike(self._lost, {**self._lost, **state.get("lost", {})})
        self.errors = {name: dict(e) for name, e in state["errors"].items()}

    def _part(self, column: int) -> tuple[Detector, slice]:
        return next(found for found in self._parts if found[1].start <= column < found[1].stop)

    @contextmanager
    def _noting(
        self, part: Detector, passed: tuple[type[BaseException], ...] = INTERRUPTS
    ) -> Iterator[list[BaseException]]:
        """Note what a part raises and go on, but let errors of the types ``passed`` through.

        Yields a list that holds the error afterwards.
        """
        raised: list[BaseException] = []
        try:
            yield raised
        except passed:
            raise
        except BaseException as error:  # SystemExit, too, is the detector's own affair
            raised.append(error)
            self._raised[part.name] = one_line(error)
            kept = self.errors.setdefault(part.name, {})
            inside = error.__traceback__
            for _ in range(2):  # without this frame and the caller's
                inside = inside and inside.tb_next
            text = "".join(traceback.format_exception(type(error), error, inside))
            if text not in kept and len(kept) >= DISTINCT:
                text = OTHERS
            kept[text] = kept.get(text, 0) + 1


def _ran(batch: Batch, trace: Trace) -> tuple[Array | slice, Batch, Trace]:
    """Return which rows did not crash, these rows, and their trace."""
    ran = trace["crash"] == ""
    if ran.all():
        return slice(None), batch, trace
    return ran, batch[ran], take(trace, ran)


def _label(part: Detector) -> str:
    """Return a part's name: that of its only column, or what its columns have in common."""
    return part.targets[0] if len(part.targets) == 1 else part.targets[0].partition("/")[0]
