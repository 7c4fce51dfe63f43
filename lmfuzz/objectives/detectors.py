"""Detectors that users write, as objectives: whatever they leave out or return loosely is made good."""

import inspect
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.plugins.registry import needed, signature
from lmfuzz.protocols import NeedsNoiseFloor
from lmfuzz.types import Array, Batch, Evidence, FloatArray, Trace, take

TINY = float(np.finfo(np.float32).tiny)


class UndeclaredChannel(KeyError):  # noqa: N818  # what the user reads should say what it is
    """A detector reads a channel that it does not name in its ``needs``."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Shown(dict[str, Array]):
    """A trace that says what to do where a channel is missing."""

    def __init__(self, name: str, trace: Trace) -> None:
        super().__init__(trace)
        self._name = name

    def __missing__(self, channel: str) -> Array:
        raise UndeclaredChannel(f"{self._name} reads the channel {channel!r}; name it in its needs")


class Detector:
    """Anything callable as ``detect(batch, trace)`` or ``detect(text)``, made an Objective.

    needs: as it says, else ``text``. targets: as it says, else one column with ``name``.
    Margins may come as (B,), where there is one column, or (B, N), as any array or list of numbers or
    booleans: True is 1, False is -inf (no, and nobody knows how far), None is NaN. What needs exactly one
    argument is called with the output text of one row after the other, and returns one of these for it.
    Evidence: its own, else a signature that is the column's name, and in words its docstring's first
    line, with the margin unless it only saw a text.
    """

    def __init__(self, name: str, detect: Any) -> None:
        if not callable(detect):
            raise UsageError(f"objective {name!r}: {detect!r} is not callable as detect(batch, trace)")
        self.name, self._detect = name, detect
        self._by_text = len(needed(signature(detect))) == 1
        self.needs = frozenset(_words(getattr(detect, "needs", "text")))
        self.targets = tuple(_words(getattr(detect, "targets", name)))
        grades = getattr(detect, "grades", ()) or ((),) * len(self.targets)
        self.grades = tuple(frozenset(_words(grade)) for grade in grades)
        self.noisy = detect if isinstance(detect, NeedsNoiseFloor) else None
        if len(self.grades) != len(self.targets):
            raise UsageError(f"objective {name!r}: grades must name channels for each of its targets")
        if not self.targets:
            raise UsageError(f"objective {name!r}: targets is empty, must name one column or more")

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins float32 (B, N); UsageError when what came has not that shape, or is no numbers."""
        shown = _Shown(self.name, trace)
        if self._by_text:
            found = np.array([self._detect(text) for text in map(str, shown["text"])], object)
        else:
            found = np.asarray(self._detect(batch, shown))
        margins = self._numbers(found)
        rows, columns = len(batch), len(self.targets)
        if margins.shape == (rows,) and columns == 1:
            return margins[:, None]
        if margins.shape != (rows, columns):
            right = f"({rows},) or ({rows}, 1)" if columns == 1 else f"({rows}, {columns})"
            raise UsageError(
                f"objective {self.name!r}: returned shape {margins.shape} for {rows} rows, must be {right},"
                f" a column for each of its targets: {', '.join(self.targets)}"
            )
        return margins

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Its own evidence, else the margin's; TypeError when its own is not an Evidence of strings."""
        if not hasattr(self._detect, "evidence"):
            margin = self(batch[row : row + 1], take(trace, slice(row, row + 1)))[0, column]
            said = self.about if self._by_text else f"{self.about} (margin {margin:.3g})"
            return Evidence(self.targets[column], said)
        evidence = self._detect.evidence(batch, _Shown(self.name, trace), row, column)
        if not isinstance(evidence, Evidence) or not (
            isinstance(evidence.signature, str) and isinstance(evidence.words, str)
        ):
            raise TypeError(f"evidence returned {evidence!r}, must be Evidence(signature, words)")
        if evidence.span is None:
            return evidence
        start, stop = evidence.span
        return replace(evidence, span=(int(start), int(stop)))  # numpy's integers are no JSON

    @property
    def about(self) -> str:
        """The first line of its docstring, else its name."""
        return (inspect.getdoc(self._detect) or self.name).partition("\n")[0]

    def _numbers(self, margins: Array) -> FloatArray:
        if margins.dtype == np.float32:
            return margins
        if margins.dtype == object:  # None among numbers or booleans
            margins = np.array([_number(x) for x in margins.flat], object).reshape(margins.shape)
        elif margins.dtype == np.bool_:
            margins = np.where(margins, 1.0, -np.inf)
        elif margins.dtype.kind not in "fiu":
            raise UsageError(
                f"objective {self.name!r}: returned {margins.dtype} values, must be numbers or booleans"
            )
        try:
            exact = margins.astype(np.float64)
        except (TypeError, ValueError):
            raise UsageError(
                f"objective {self.name!r}: returned {margins.ravel()[:3].tolist()} ..., must be numbers"
            ) from None
        with np.errstate(over="ignore", under="ignore"):  # and no hit may vanish on the way to 32 bits
            return np.where(exact > 0, np.maximum(exact, TINY), exact).astype(np.float32)


def as_detector(detect: object, name: str = "") -> Detector:
    """Return ``detect`` as a Detector, once; ``name`` is its own unless given."""
    return detect if isinstance(detect, Detector) else Detector(name or own_name(detect), detect)


def own_name(detect: object) -> str:
    """Return what a function or class calls itself, in lower case; a lambda is ``lambda``."""
    return str(getattr(detect, "__name__", type(detect).__name__.lower())).strip("<>")


def distinct(name: str, taken: Collection[str]) -> str:
    """Return ``name``, or if that is taken the first of ``name#2``, ``name#3`` ... that is not."""
    if name not in taken:
        return name
    return next(other for k in range(2, len(taken) + 3) if (other := f"{name}#{k}") not in taken)


def named(objectives: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Return objectives by name, in order; '' stands for their own, and one given twice gets a number."""
    found: dict[str, object] = {}
    for name, objective in objectives:
        found[distinct(name or own_name(objective), found)] = objective
    return found


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return 1.0 if value else -np.inf
    return value
