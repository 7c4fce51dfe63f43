"""Objectives made of objectives: all of some, any of some, and the panel of a campaign."""

import re
import traceback
from collections.abc import Mapping, Sequence

import numpy as np

from lmfuzz.errors import INTERRUPTS, Unfit, UsageError, one_line
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.objectives.detectors import Detector, as_detector, distinct
from lmfuzz.protocols import ForTexts, LooksForSecret, LooksForTokens, Objective
from lmfuzz.types import CRASH, Array, Batch, Evidence, FloatArray, State, Trace, take, unknown

DISTINCT = 3  # tracebacks kept per objective
OTHERS = "(other errors)"
_UNFIT = f"{Unfit.__name__}: "  # how the executor begins what it says of a row that the target cannot take


def either(margins: FloatArray) -> FloatArray:
    """The margin (B,) of "one of the columns": their largest; margins are (B, N).

    Three-valued: a hit is a hit whatever else could not be scored; else one NaN makes NaN.
    """
    best = np.fmax.reduce(margins, axis=1)
    return np.where(np.isnan(margins).any(axis=1) & ~(best > 0), np.nan, best)


def both(margins: FloatArray) -> FloatArray:
    """The margin (B,) of "all of the columns": their smallest; margins are (B, N).

    Three-valued: where one column is surely no hit, neither are all, and the smallest of those scored
    says how far away; else one NaN makes NaN.
    """
    worst = np.fmin.reduce(margins, axis=1)
    return np.where(np.isnan(margins).any(axis=1) & ~(worst <= 0), np.nan, worst)


class _Combination:
    """Parts joined to one column, ``NAME(a,b)``, by the best column of each."""

    def __init__(self, parts: Sequence[Objective]) -> None:
        name = type(self).__name__.lower()
        if not parts:
            raise UsageError(f"{name}() has no parts, must have at least one objective")
        self.parts = [as_detector(part) for part in parts]
        # What grades the parts, too: a combination is graded whenever it is judged.
        self.needs = frozenset[str]().union(*(part.needs.union(*part.grades) for part in self.parts))
        self.targets = (f"{name}({','.join(map(_label, self.parts))})",)
        self.grades = (frozenset[str](),)

    def _best(self, batch: Batch, trace: Trace) -> FloatArray:
        """Every part's margin (B, parts) in its best column."""
        return np.stack([either(part(batch, trace)) for part in self.parts], axis=1)


class All(_Combination):
    """A hit where every part hits, in whichever of its columns; one column, ``all(a,b)``.

    Margins: the smallest of the parts' largest (see both and either). Evidence: all signatures.
    """

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, 1)."""
        return both(self._best(batch, trace))[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The parts' signatures and words joined; the first span there is."""
        found = [e for part in self.parts if (e := _why(part, batch, trace, row))]
        spans = [e.span for e in found if e.span]
        return Evidence(
            " + ".join(e.signature for e in found), "; ".join(e.words for e in found), next(iter(spans), None)
        )


class Any(_Combination):
    """A hit where some part hits, in whichever of its columns; one column, ``any(a,b)``.

    Margins: the largest of all (see either). Evidence: the first part's that hits.
    """

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, 1)."""
        return either(self._best(batch, trace))[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Why the first part hits that does; ValueError when none does."""
        for part in self.parts:
            if found := _why(part, batch, trace, row):
                return found
        raise ValueError("no part hits")


class Crash:
    """The target raised on the row, and not because it was unfit for it. Margins: 1, else -inf.

    The signature is the error's type and message with every number as N.
    """

    needs = frozenset[str]()  # the channel ``crash`` comes from the executor, always
    targets = ("crash",)
    grades = (frozenset[str](),)

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, 1)."""
        raised = np.array([bool(text) and not text.startswith(_UNFIT) for text in trace["crash"]], bool)
        return np.where(raised, np.float32(1), np.float32(-np.inf))[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """What was raised."""
        error = str(trace["crash"][row])
        return Evidence(re.sub(r"0x[0-9a-fA-F]+|\d+", "N", error), error)


class ObjectiveSet:
    """All objectives of a campaign as one, their columns side by side, ``crash`` the last.

    Objectives see only the rows that ran; a row that crashed is NaN in every column but the last. An
    objective that raises, or returns another shape than it should, leaves NaN in its columns for
    that batch, and the campaign goes on. Of two columns with one name the later becomes ``name#2``.

    errors: objective's name -> traceback -> how often; at most 3 tracebacks each, then OTHERS.
    unscored: objective's name -> rows so far with a column that it could not score, those that crashed and
    re-runs of findings included.
    """

    def __init__(self, objectives: Mapping[str, object]) -> None:
        self.objectives = objectives  # as they were given
        self._parts: list[tuple[Detector, slice]] = []
        names: list[str] = []
        self._crash = Crash()
        for name, objective in objectives.items():
            if isinstance(objective, Crash):
                continue
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
        self._raised: dict[str, str] = {}  # objective's name -> what it raised when last called

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, N)."""
        margins = np.full((len(batch), len(self.targets)), np.nan, np.float32)
        margins[:, -1:] = self._crash(batch, trace)
        rows, batch, trace = _ran(batch, trace)
        for part, columns in self._parts if len(batch) else ():
            try:
                margins[rows, columns] = part(batch, trace)
                self._raised.pop(part.name, None)
            except INTERRUPTS:
                raise
            except BaseException as error:  # SystemExit, too, is the detector's own affair
                self._note(part, error)
        scored = ~np.isnan(margins)
        self._scored += scored.sum(axis=0)
        for part, columns in self._parts:
            self.unscored[part.name] += len(scored) - int(scored[:, columns].all(axis=1).sum())
        return margins

    def why(self, column: int) -> str:
        """Why the objective whose column it is left NaN when last called."""
        return self._raised.get(self._part(column)[0].name, "NaN")

    @property
    def blind(self) -> dict[str, str]:
        """Objectives with a column that scored none of the rows so far, and why."""
        return {
            part.name: self.why(columns.start)
            for part, columns in self._parts
            if self.unscored[part.name] and not self._scored[columns].all()
        }

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The evidence of the objective whose column it is; its name alone where that raises."""
        if column == len(self.targets) - 1:
            return self._crash.evidence(batch, trace, row, 0)
        part, columns = self._part(column)
        try:
            return part.evidence(batch, trace, row, column - columns.start)
        except INTERRUPTS:
            raise
        except BaseException as error:
            self._note(part, error)
            words = f"{part.about} (its evidence raised {type(error).__name__})"
            return Evidence(self.targets[column], words)

    def check(self, batch: Batch, trace: Trace) -> None:
        """Try every objective on a few rows, and on the first of them alone, before a campaign.

        Raises UsageError when one returns a wrong shape or no numbers. One that raises anything else is
        noted in ``errors``: it may still score other rows.
        """
        _, batch, trace = _ran(batch, trace)
        for rows in (slice(None), slice(0, 1)):
            for part, _ in self._parts if len(batch) else ():
                try:
                    part(batch[rows], take(trace, rows))
                except (UsageError, *INTERRUPTS):
                    raise
                except BaseException as error:
                    self._note(part, error)

    def must_fit(self, space: Space, told: str | None, steps: int) -> None:
        """Raise UsageError when an objective could never hit.

        It looks at texts and the ``space`` has none, or for a secret that is not in what the target is
        ``told`` (None: nobody knows), or for more tokens than the ``steps`` of an output.
        """
        for name, part in self.objectives.items():
            why = ""
            if told is not None and isinstance(part, LooksForSecret) and part.secret not in told:
                why = f"looks for {part.secret!r}, which --system does not hold; put it there"
            elif isinstance(part, LooksForTokens) and part.tokens > steps:
                why = f"looks for {part.tokens} tokens in a row, and an output has {steps}; give it fewer"
                why += " (tokens=...), or a larger --max-new"
            elif isinstance(part, ForTexts) and isinstance(space, BoxSpace):
                why = "looks at texts, and this model takes numbers; name what to look for with --objective,"
                why += " such as nonfinite or a detector of your own"
            if why:
                raise UsageError(f"{name} {why}")

    @property
    def noise_needs(self) -> frozenset[str]:
        """The channels of the objectives that must know the noise floor."""
        return frozenset[str]().union(*(part.needs for part, _ in self._parts if part.name in self._noisy))

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Show those objectives what the same rows led to in two batchings."""
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
        of = f"{lost} of the {len(graded)} things looked for"
        return [f"the target cannot say how near it is to {of}"] if lost else []

    def state(self) -> State:
        """Counts, noise floors and errors, for resume."""
        return {
            "noise": self.noise,
            "unscored": dict(self.unscored), "scored": self._scored.tolist(), "raised": dict(self._raised),
            "errors": {name: dict(e) for name, e in self.errors.items()},
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.noise = state["noise"]
        self.unscored, self._raised = dict(state["unscored"]), dict(state["raised"])
        self._scored = np.array(state["scored"], np.int64)
        self.errors = {name: dict(e) for name, e in state["errors"].items()}

    def _part(self, column: int) -> tuple[Detector, slice]:
        return next(found for found in self._parts if found[1].start <= column < found[1].stop)

    def _note(self, part: Detector, error: BaseException) -> None:
        self._raised[part.name] = one_line(error)
        kept = self.errors.setdefault(part.name, {})
        inside = error.__traceback__.tb_next if error.__traceback__ else None  # without the panel's frame
        text = "".join(traceback.format_exception(type(error), error, inside))
        if text not in kept and len(kept) >= DISTINCT:
            text = OTHERS
        kept[text] = kept.get(text, 0) + 1


def _ran(batch: Batch, trace: Trace) -> tuple[Array | slice, Batch, Trace]:
    """The rows that did not crash, and what was shown of them."""
    ran = trace["crash"] == ""
    if ran.all():
        return slice(None), batch, trace
    return ran, batch[ran], take(trace, ran)


def _label(part: Detector) -> str:
    """A part's name: its only column's, or what is common to its columns."""
    return part.targets[0] if len(part.targets) == 1 else part.targets[0].partition("/")[0]


def _why(part: Detector, batch: Batch, trace: Trace, row: int) -> Evidence | None:
    """The evidence of a part's best column, with that column's name; None when it does not hit."""
    batch, trace = batch[row : row + 1], take(trace, slice(row, row + 1))
    margins = part(batch, trace)[0]
    if not (margins > 0).any():
        return None
    column = int(np.nanargmax(margins))
    found = part.evidence(batch, trace, 0, column)
    return Evidence(f"{part.targets[column]}: {found.signature}", found.words, found.span)
