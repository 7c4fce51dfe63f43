"""What can be read of a campaign, also where its database is damaged: then row by row."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmfuzz import spec as specs
from lmfuzz.analysis.summary import summary
from lmfuzz.errors import Damaged, UsageError, one_line
from lmfuzz.files import CAMPAIGN, DATABASE
from lmfuzz.inputs.spaces import TextSpace, describe, described
from lmfuzz.spec import Spec
from lmfuzz.storage.damage import WRONG, busy
from lmfuzz.storage.schema import TABLES, found, minimal
from lmfuzz.storage.serialize import decode
from lmfuzz.storage.store import FORMAT, READ, Store
from lmfuzz.storage.versions import explain_version
from lmfuzz.text import plural
from lmfuzz.types import Array, Finding

GAP = 10_000  # rows in a row that cannot be read, before the rest of a table is given up
_PAGE = 4096  # bytes, SQLite's default

Rows = dict[int, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign as far as it can be read; ``lost`` says what cannot be.

    findings: by their numbers. noise: objective -> noise floor. numbers: as ``show.summary`` has them, or
    None where they cannot be read.
    """

    meta: dict[str, Any]
    findings: dict[int, Finding]
    seeds: list[Array]
    noise: Mapping[str, float]
    numbers: dict[str, Any] | None
    lost: tuple[str, ...] = ()


def opened(directory: Path) -> Opened:
    """The campaign in a directory, whole or damaged; UsageError where there is nothing to read."""
    try:
        with Store.read(directory) as store:
            rows, meta, findings = store.rows(), store.meta, store.findings()
            seeds = [rows.row(i) for i in range(meta["seeds"])]
            numbered, noise = dict(enumerate(findings, start=1)), store.state()["panel"]["noise"]
            return Opened(meta, numbered, seeds, noise, summary(store))
    except (Damaged, *WRONG) as error:
        cause = error.__cause__ or error
        if busy(cause):
            raise
        return _salvaged(directory, cause)


def _salvaged(directory: Path, cause: BaseException) -> Opened:
    """What is left of a damaged campaign."""
    with closing(_connection(directory / DATABASE)) as db:
        meta, rows, findings, minimals, states = (
            _rows(db, table) for table in ("meta", "rows", "findings", "minimals", "state")
        )
    about = {row[0]: value for row in meta.values() if (value := _made(json.loads, row[1])) is not None}
    if about.get("format", FORMAT) not in READ:
        raise UsageError(explain_version(directory / CAMPAIGN, about["format"], FORMAT))
    if not about and not findings:
        raise UsageError(f"nothing can be read of {directory / DATABASE} any more: {one_line(cause)}")
    lost = [f"the database is damaged: {one_line(cause)}"]
    default = _default(directory)
    if missing := sorted(default.keys() - about.keys()):
        lost.append(f"what cannot be read of the campaign is as in its {CAMPAIGN}: {', '.join(missing)}")
        about = {**default, **about}
    space = described(about["space"])
    ids = defaultdict(lambda: -1, {name: i for i, name in enumerate(about["operators"])})

    def finding(number: int, row: tuple[Any, ...]) -> Finding:
        small = _made(minimal, minimals[number], space) if number in minimals else None
        return found(row, ids, space, small)

    whole = {n: made for n, row in findings.items() if (made := _made(finding, n, row))}
    unpacked = [_made(space.unpack, row[-1]) for n, row in rows.items() if n < about["seeds"]]
    readable = "space" not in missing
    seeds = [row for row in unpacked if readable and row is not None]
    try:
        state = decode(states[1][1])
        most, noise = sum(state["findings"]["kept"].values()), state["panel"]["noise"]
    except (ValueError, KeyError, TypeError, AttributeError):
        most, noise = min(max(findings, default=0), len(findings) + GAP), {}
        lost.append("how the search stood cannot be read, so that more may be lost than is said here")
    gone = [n for n in range(1, most + 1) if n not in whole]
    if gone:
        which = ", ".join(map(str, gone[:20])) + (", ..." if len(gone) > 20 else "")
        lost.append(f"{len(gone)} of {plural(most, 'finding')} cannot be read: {which}")
    if len(seeds) < about["seeds"]:
        lost.append(f"{about['seeds'] - len(seeds)} of {plural(about['seeds'], 'seed')} cannot be read")
    left = {n: whole[n] for n in sorted(whole) if 1 <= n <= most}
    return Opened(about, left, seeds, noise, None, tuple(lost))


def _connection(path: Path) -> sqlite3.Connection:
    """The database, also where its file is too short, or does not begin as it should.

    Then its first page, which says where the tables begin, is that of a new campaign: they are made in one
    order, and begin where they always do.
    """
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        db.execute("PRAGMA writable_schema = ON")  # a file shorter than it says is read then, too
        for table in TABLES:
            db.execute(f"SELECT 1 FROM {table.split()[2]} WHERE rowid < 0")
    except sqlite3.DatabaseError:
        db.close()
        with closing(sqlite3.connect(":memory:")) as fresh:
            for table in TABLES:
                fresh.execute(table)
            page = bytearray(fresh.serialize()[:_PAGE])
        content = path.read_bytes()[_PAGE:]
        page[28:32] = (1 + len(content) // _PAGE).to_bytes(4, "big")
        db = sqlite3.connect(":memory:")
        db.deserialize(bytes(page) + content)
        db.execute("PRAGMA writable_schema = ON")
    db.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    return db


def _rows(db: sqlite3.Connection, table: str) -> Rows:
    """The rows of a table that can be read, by their ids."""
    query, rows = f"SELECT rowid, * FROM {table}", Rows()
    try:
        for number, *row in db.execute(f"{query} ORDER BY rowid"):
            rows[number] = tuple(row)
        return rows
    except sqlite3.DatabaseError:
        number, missing = max(rows, default=-1), 0
    while missing < GAP:  # behind pages that are damaged there may be others
        number += 1
        try:
            row = db.execute(f"{query} WHERE rowid = ?", (number,)).fetchone()
        except sqlite3.DatabaseError:
            row = None
        missing = 0 if row else missing + 1
        if row:
            rows[number] = tuple(row[1:])
    return rows


def _default(directory: Path) -> dict[str, Any]:
    """What stands for entries of meta that cannot be read."""
    try:
        spec = specs.resolve(specs.load(directory / CAMPAIGN), {})
    except UsageError:
        spec = Spec()
    space = describe(TextSpace(()))
    return {"spec": spec.model_dump(), "identity": "?", "space": space, "operators": [], "seeds": 0}


def _made(make: Any, *arguments: Any) -> Any:
    """What is made of bytes that were read; None where they make no sense."""
    try:
        return make(*arguments)
    except Exception:  # bytes of whatever kind can stand there
        return None
