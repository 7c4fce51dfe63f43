"""The tables of a campaign's database, and what stands in their rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmfuzz.inputs.spaces import Space
from lmfuzz.text import as_utf8
from lmfuzz.types import SEED, Evidence, Finding, IntArray, Minimal

TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, operator TEXT NOT NULL,"
    " origin INTEGER NOT NULL, execution INTEGER NOT NULL, row BLOB NOT NULL)",
    "CREATE TABLE states (n INTEGER PRIMARY KEY, execution INTEGER NOT NULL, row BLOB NOT NULL,"
    " point BLOB NOT NULL)",
    "CREATE TABLE findings (id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, objective TEXT NOT NULL,"
    " margin REAL NOT NULL, signature TEXT NOT NULL, words TEXT NOT NULL, span TEXT NOT NULL,"
    " row BLOB NOT NULL, prompt TEXT NOT NULL, output TEXT NOT NULL, parent INTEGER NOT NULL,"
    " operator TEXT NOT NULL, execution INTEGER NOT NULL, failed INTEGER NOT NULL, runs INTEGER NOT NULL,"
    " unscored INTEGER NOT NULL, origin INTEGER NOT NULL, distance REAL NOT NULL, by_text INTEGER)",
    "CREATE TABLE minimals (finding INTEGER PRIMARY KEY, row BLOB NOT NULL, prompt TEXT NOT NULL,"
    " output TEXT NOT NULL, span TEXT NOT NULL, size INTEGER NOT NULL, before INTEGER NOT NULL,"
    " failed INTEGER NOT NULL, executions INTEGER NOT NULL, by_text INTEGER)",
    "CREATE TABLE steps (executions INTEGER PRIMARY KEY, seconds REAL NOT NULL, time_in_target REAL NOT NULL,"
    " corpus INTEGER NOT NULL, archive INTEGER NOT NULL, findings INTEGER NOT NULL, novelty REAL NOT NULL)",
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """How a campaign stood at some moment; ``novelty`` is the share of novel rows since the last one."""

    executions: int
    seconds: float
    time_in_target: float
    corpus: int
    archive: int
    findings: int
    novelty: float


def finding_row(number: int, finding: Finding, names: Mapping[int, str], space: Space) -> tuple[Any, ...]:
    """A row of the table findings; ``names``: of operators, by their ids."""
    why = finding.evidence
    return _stored(
        number, finding.bucket, finding.objective, finding.margin, why.signature, why.words,
        json.dumps(why.span), space.pack(finding.row), finding.prompt, finding.output, finding.parent,
        names[finding.operator], finding.execution, finding.failed, finding.runs, finding.unscored,
        finding.origin, finding.distance, finding.by_text,
    )  # fmt: skip


def found(row: tuple[Any, ...], ids: Mapping[str, int], space: Space, minimal: Minimal | None) -> Finding:
    """The finding in a row of the table findings; ``ids``: of operators, by their names."""
    _, _, objective, margin, signature, words, span, content, prompt, output, parent, operator = row[:12]
    execution, failed, runs, unscored, origin, distance, by_text = row[12:]
    return Finding(
        objective, margin, Evidence(signature, words, _place(span)), space.unpack(content), prompt, output,
        parent, ids[operator], execution, failed, runs, unscored, origin, distance, _maybe(by_text), minimal,
    )  # fmt: skip


def minimal_row(number: int, minimal: Minimal, space: Space) -> tuple[Any, ...]:
    """A row of the table minimals: the minimal row of finding ``number``."""
    return _stored(
        number, space.pack(minimal.row), minimal.prompt, minimal.output, json.dumps(minimal.span),
        minimal.size, minimal.before, minimal.failed, minimal.executions, minimal.by_text,
    )  # fmt: skip


def _stored(*values: Any) -> tuple[Any, ...]:
    """The values as a database takes them: what a model wrote need not be UTF-8."""
    return tuple(as_utf8(value) if isinstance(value, str) else value for value in values)


def minimal(row: tuple[Any, ...], space: Space) -> Minimal:
    """The minimal row in a row of the table minimals."""
    _, content, prompt, output, span, size, before, failed, executions, *alone = row  # format 4 has none
    place, by_text = _place(span), map(_maybe, alone)
    return Minimal(space.unpack(content), prompt, output, place, size, before, failed, executions, *by_text)


def ancestors(ids: Sequence[int], itself: bool = False) -> IntArray:
    """What rows 0 to N - 1 descend from, int64 (N,): rows before them, SEED, or where it may be ``itself``.

    ValueError for any other.
    """
    found = np.array(ids, np.int64)
    if not ((found < np.arange(len(found)) + itself) & (found >= (0 if itself else SEED))).all():
        raise ValueError("a row descends from one that there was not")
    return found


def _maybe(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _place(span: str) -> tuple[int, int] | None:
    return tuple(place) if (place := json.loads(span)) else None
