"""The tables of a campaign's database, and how findings are stored in their rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmfuzz.inputs.spaces import Space
from lmfuzz.storage.sound import sound
from lmfuzz.text import as_utf8
from lmfuzz.types import SEED, Evidence, Finding, IntArray, Minimal

_JOINT = "\x1f"  # in the column signature, between a behaviour and its variant
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
    """Hold how a campaign stood at one moment.

    Attributes:
        executions: how many rows the model had run.
        seconds: the campaign's time.
        time_in_target: how much of it was spent inside the model.
        corpus: how many rows the corpus had.
        archive: how many states the archive had.
        findings: how many findings there were.
        novelty: the share of rows that were novel in the last step.
    """

    executions: int
    seconds: float
    time_in_target: float
    corpus: int
    archive: int
    findings: int
    novelty: float


def finding_row(number: int, finding: Finding, names: Mapping[int, str], space: Space) -> tuple[Any, ...]:
    """Return a row of the table findings; ``names`` are those of the operators, by their ids."""
    why = finding.evidence
    return _stored(
        number, finding.bucket, finding.objective, finding.margin,
        _JOINT.join(filter(None, (why.signature, why.variant))), why.words,
        json.dumps(why.span), space.pack(finding.row), finding.prompt, finding.output, finding.parent,
        names[finding.operator], finding.execution, finding.failed, finding.runs, finding.unscored,
        finding.origin, finding.distance, finding.by_text,
    )  # fmt: skip


def found(row: tuple[Any, ...], ids: Mapping[str, int], space: Space, minimal: Minimal | None) -> Finding:
    """Return the finding in a row of the table findings; ``ids`` are the operators', by their names."""
    _, _, objective, margin, signature, words, span, content, prompt, output, parent, operator = row[:12]
    execution, failed, runs, unscored, origin, distance, by_text = row[12:]
    signature, _, variant = signature.partition(_JOINT)
    why = sound(Evidence(signature, words, _place(span), variant))
    return sound(Finding(
        objective, margin, why, space.unpack(content), prompt, output, parent, ids[operator], execution,
        failed, runs, unscored, origin, distance, _maybe(by_text), minimal,
    ))  # fmt: skip


def minimal_row(number: int, minimal: Minimal, space: Space) -> tuple[Any, ...]:
    """Return a row of the table minimals: the minimal input of finding ``number``."""
    return _stored(
        number, space.pack(minimal.row), minimal.prompt, minimal.output, json.dumps(minimal.span),
        minimal.size, minimal.before, minimal.failed, minimal.executions, minimal.by_text,
    )  # fmt: skip


def _stored(*values: Any) -> tuple[Any, ...]:
    """Return the values as a database accepts them: text that a model wrote may not be UTF-8."""
    return tuple(as_utf8(value) if isinstance(value, str) else value for value in values)


def minimal(row: tuple[Any, ...], space: Space) -> Minimal:
    """Return the minimal input in a row of the table minimals; in format 4 its last column is missing."""
    _, content, prompt, output, span, *numbers = row
    by_text = map(_maybe, numbers[4:])
    return sound(Minimal(space.unpack(content), prompt, output, _place(span), *numbers[:4], *by_text))


def ancestors(ids: Sequence[int], itself: bool = False) -> IntArray:
    """Return the ids of the rows that rows 0 to N - 1 descend from, int64 (N,).

    Args:
        ids: the stored ids: each is that of an earlier row, or SEED.
        itself: whether a seed's id is its own, and not SEED.

    Raises:
        ValueError: an id is none of these.
    """
    found = np.array(ids, np.int64)
    if not ((found < np.arange(len(found)) + itself) & (found >= (0 if itself else SEED))).all():
        raise ValueError("a row descends from a row that does not exist")
    return found


def _maybe(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _place(span: str) -> tuple[int, int] | None:
    return tuple(place) if (place := json.loads(span)) else None
