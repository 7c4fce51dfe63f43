"""Detectors that users write, completed to objectives."""

import inspect
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from lmfuzz.errors import UsageError, forbidding_writes
from lmfuzz.plugins.registry import needed, signature
from lmfuzz.protocols import NeedsNoiseFloor
from lmfuzz.types import Array, Batch, Evidence, FloatArray, Trace, take

TINY = float(np.finfo(np.float32).tiny)


class _DeclaredTrace(dict[str, Array]):
    """Hold a trace whose missing channels say what to do about them."""

    def __init__(self, name: str, trace: Trace) -> None:
        super().__init__(trace)
        self._name = name

    def __missing__(self, channel: str) -> Array:
        raise KeyError(f"{self._name} reads the channel {channel!r}; name it in its needs")


class Detector:
    """Make an Objective of anything that can be called as ``detect(batch, trace)`` or ``detect(text)``.

    What needs exactly one argument is called with the output text of one row after the other. Margins may
    come as any array or list of numbers or booleans, (B, N), or (B,) if there is one column: True is 1,
    False is -inf (no hit, at an unknown distance), and None is NaN.

    Evidence is the detector's own, or else the name of the column as the signature and the first line of
    the docstring as words, followed by the margin unless the detector sees only a text.

    Attributes:
        name: what the campaign calls it.
        needs: its channels, ``text`` if it does not say.
        targets: its columns, one column called ``name`` if it does not say.
        grades: per column, channels that only say how far away a row is; none if it does not say.
        noisy: the detector itself if it needs the noise floor, else None.
    """

    def __init__(self, name: str, detect: Any) -> None:
        if not callable(detect):
            raise UsageError(f"objective {name!r}: {detect!r} cannot be called as detect(batch, trace)")
        self.name, self._detect = name, detect
        self._by_text = len(needed(signature(detect))) == 1
        self.needs = frozenset(_words(getattr(detect, "needs", "text")))
        self.targets = tuple(_words(getattr(detect, "targets", name)))
        grades = getattr(detect, "grades", ()) or ((),) * len(self.targets)
        self.grades = tuple(frozenset(_words(grade)) for grade in grades)
        self.noisy = detect if isinstance(detect, NeedsNoiseFloor) else None
        if len(self.grades) != len(self.targets):
            raise UsageError(f"objective {name!r}: grades must have one entry for each of its targets")
        if not self.targets:
            raise UsageError(f"objective {name!r}: targets is empty; name at least one column")

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, N); raise UsageError for another shape, or for no numbers."""
        shown = _DeclaredTrace(self.name, trace)
        with forbidding_writes(f"objective {self.name!r}"):
            if self._by_text:
                found = np.array([self._detect(text) for text in map(str, shown["text"])], object)
            else:
                found = np.asarray(self._detect(batch.shown(), shown))
        margins = self._numbers(found)
        rows, columns = len(batch), len(self.targets)
        if margins.shape == (rows,) and columns == 1:
            return margins[:, None]
        if margins.shape != (rows, columns):
            right = f"({rows},) or ({rows}, 1)" if columns == 1 else f"({rows}, {columns})"
            raise UsageError(
                f"objective {self.name!r} returned shape {margins.shape} for {rows} rows; it must be {right},"
                f" with a column for each of its targets: {', '.join(self.targets)}"
            )
        return margins

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return its own evidence, else the margin's; raise TypeError if its own is not made of strings."""
        if not hasattr(self._detect, "evidence"):
            margin = self(batch[row : row + 1], take(trace, slice(row, row + 1)))[0, column]
            said = self.about if self._by_text else f"{self.about} (margin {margin:.3g})"
            return Evidence(self.targets[column], said)
        evidence = self._detect.evidence(batch.shown(), _DeclaredTrace(self.name, trace), row, column)
        match evidence:
            case Evidence(str(), str(), None, str()):
                return evidence
            case Evidence(str(), str(), (start, stop), str()):
                return replace(evidence, span=(int(start), int(stop)))  # JSON has no integers of numpy
        raise TypeError(f"evidence returned {evidence!r}; it must be Evidence(signature, words)")

    @property
    def about(self) -> str:
        """The first line of its docstring, or its name if it has none."""
        return (inspect.getdoc(self._detect) or self.name).partition("\n")[0]

    def _numbers(self, margins: Array) -> FloatArray:
        if margins.dtype == np.float32:
            return margins
        if margins.dtype == object:  # None among numbers or booleans
            truth = {True: 1.0, False: -np.inf}
            numbers = [truth[bool(x)] if isinstance(x, bool | np.bool_) else x for x in margins.flat]
            margins = np.array(numbers, object).reshape(margins.shape)
        elif margins.dtype == np.bool_:
            margins = np.where(margins, 1.0, -np.inf)
        elif margins.dtype.kind not in "fiu":
            raise UsageError(f"objective {self.name!r} returned {margins.dtype}; return numbers or booleans")
        try:
            exact = margins.astype(np.float64)
        except (TypeError, ValueError):
            first = margins.ravel()[:3].tolist()
            raise UsageError(f"objective {self.name!r} returned {first} ...; return numbers") from None
        with np.errstate(over="ignore", under="ignore"):  # a hit must not vanish on the way to 32 bits
            return np.where(exact > 0, np.maximum(exact, TINY), exact).astype(np.float32)


def as_detector(detect: object, name: str = "") -> Detector:
    """Return ``detect`` as a Detector, or itself if it is one; without ``name`` it has its own name."""
    return detect if isinstance(detect, Detector) else Detector(name or own_name(detect), detect)


def own_name(detect: object) -> str:
    """Return the name of a function, or that of an object's class in lower case; a lambda is ``lambda``."""
    return str(getattr(detect, "__name__", type(detect).__name__.lower())).strip("<>")


def distinct(name: str, taken: Collection[str]) -> str:
    """Return ``name``, or the first of ``name#2``, ``name#3`` ... that is not taken."""
    numbered = (f"{name}#{k}" for k in range(2, len(taken) + 3))
    return next(other for other in (name, *numbered) if other not in taken)


def named(objectives: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Return objectives by name, in order: '' stands for their own name, and repeated names are numbered."""
    found: dict[str, object] = {}
    for name, objective in objectives:
        found[distinct(name or own_name(objective), found)] = objective
    return found


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    words = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(word, str) for word in words):
        raise UsageError(f"needs, targets and grades of an objective must be texts, not {value!r}")
    return words
