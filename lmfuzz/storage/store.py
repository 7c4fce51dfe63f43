"""A campaign's directory: a lock, its campaign.toml, and one SQLite file.

Every commit is one transaction with everything new and the complete state, so that the file is at any
moment one consistent checkpoint: what was shown is in it, and going on needs no repair.
"""

import errno
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz.errors import Damaged, UsageError
from lmfuzz.files import CAMPAIGN, DATABASE
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import Space, described
from lmfuzz.spec import stored
from lmfuzz.storage.damage import reading, whole
from lmfuzz.storage.directory import connect, lock, require_campaign, require_empty
from lmfuzz.storage.schema import (
    TABLES,
    Ancestor,
    Sample,
    ancestors,
    finding_row,
    found,
    minimal,
    minimal_row,
)
from lmfuzz.storage.serialize import decode, encode
from lmfuzz.storage.versions import explain_version
from lmfuzz.types import SEED, Array, Batch, Finding, FloatArray, IntArray, Minimal, State, Step

FORMAT = 5
READ = (4, FORMAT)  # formats that are read; what goes on is brought to FORMAT
QUIET = 3.0  # seconds after which a commit is due although nothing was found
SHARE = 100  # a commit waits for this many times what the last one took, so they cost 1 % at most
SAMPLE = 1.0  # seconds between rows of the table steps


class Unwritten(Exception):  # noqa: N818  # it is the findings that are unwritten
    """The disk took no more; ``findings`` are those that were found but could not be written."""

    def __init__(self, path: Path, reason: str, findings: Sequence[Finding]) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.findings = findings


class Store:
    """The campaign in one directory, opened with ``create``, ``resume`` or ``read``; a context manager."""

    def __init__(self, directory: Path, db: sqlite3.Connection, lock: int | None = None) -> None:
        self.directory = directory
        self._db, self._lock = db, lock
        self._findings: list[Finding] = []
        self._states: list[tuple[int, bytes, bytes]] = []
        self._samples: list[Sample] = []
        self._births: list[tuple[int, int]] = []  # corpus size, and executions when it was reached
        self._rows = 0  # corpus rows already written
        self._committed, self._took = time.perf_counter(), 0.0
        self._sampled = -SAMPLE

    @classmethod
    def create(cls, directory: Path, meta: Mapping[str, Any]) -> "Store":
        """A new campaign; ``meta`` is what never changes. Raises UsageError as ``require_empty`` does."""
        require_empty(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held = lock(directory)
            db = connect(directory / DATABASE, "rwc")
            store = cls(directory, db, held)
            with store._transaction():
                for table in TABLES:
                    db.execute(table)
                store._describe({"format": FORMAT, **meta})
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOSPC:
                raise UsageError(f"cannot make {directory}: {error.strerror}") from None
            raise Unwritten(directory, str(error), []) from error
        return store

    @classmethod
    def resume(cls, directory: Path) -> "Store":
        """A campaign to go on with. UsageError when there is none, or when it is in use."""
        cls.read(directory).close()
        held = lock(directory)
        with whole(directory):
            store = cls(directory, connect(directory / DATABASE, "rw"), held)
            store._migrate()
            store._rows = store._count("rows")
        return store

    @classmethod
    def read(cls, directory: Path) -> "Store":
        """A campaign to look at, also while it runs. UsageError when there is none."""
        require_campaign(directory)
        store = cls(directory, connect(directory / DATABASE, "ro"))
        store._check()
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory; what was not committed is gone.

        The database becomes one plain file again, which can be read where nothing can be written.
        """
        if self._lock is not None:
            with suppress(sqlite3.Error):  # somebody may be reading
                self._db.execute("PRAGMA busy_timeout = 0")
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- writing ----------------------------------------------------------------------------------

    def add(self, step: Step, corpus: Corpus) -> None:
        """Take note of what a step found, admitted and kept; it is written with the next commit."""
        self._findings += step.findings
        if not self._births or self._births[-1][0] < len(corpus):
            self._births.append((len(corpus), step.executions))
        if step.novel.any():
            points = step.points[step.novel].astype("<f4")
            for i, point in zip(np.flatnonzero(step.novel).tolist(), points, strict=True):
                self._states.append((step.executions, self.space.pack(step.batch.row(i)), point.tobytes()))

    def sample(self, sample: Sample) -> None:
        """Take note of how the campaign stands, at most once a second of its time."""
        if sample.seconds - self._sampled >= SAMPLE:
            self._sampled = sample.seconds
            self._samples.append(sample)

    def due(self) -> bool:
        """Whether it is time to commit: soon when something was found, every few seconds anyway."""
        wait = SHARE * self._took
        if not self._findings:
            wait = max(wait, QUIET)
        return time.perf_counter() - self._committed >= wait

    def commit(self, state: State, corpus: Corpus, operators: Sequence[str]) -> list[tuple[int, Finding]]:
        """Write everything new and the whole state as one; the findings written, with their numbers.

        Raises Unwritten, with the findings that are not on disk, when the disk takes no more.
        """
        started = time.perf_counter()
        first = self._count("findings") + 1 if self._findings else 0
        numbered = list(enumerate(self._findings, start=first))
        names = {-1: "", **dict(enumerate(operators))}
        try:
            with self._transaction():
                self._insert("rows", self._new_rows(corpus, names))
                self._insert("states", [(None, *row) for row in self._states])
                self._insert("findings", [finding_row(n, f, names, self.space) for n, f in numbered])
                small = [(n, f.minimal) for n, f in numbered if f.minimal is not None]
                self._insert("minimals", [minimal_row(n, one, self.space) for n, one in small])
                self._insert("steps", [astuple(sample) for sample in self._samples])
                self._db.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (encode(state),))
        except (OSError, sqlite3.Error) as error:
            raise Unwritten(self.directory, str(error), self._findings) from error
        self._rows = len(corpus)
        self._findings, self._states, self._samples = [], [], []
        del self._births[:-1]
        self._committed = time.perf_counter()
        self._took = self._committed - started
        return numbered

    def minimise(self, number: int, minimal: Minimal) -> None:
        """Keep the minimal row of finding ``number``; Unwritten when the disk takes no more."""
        try:
            with self._transaction():
                self._insert("minimals", [minimal_row(number, minimal, self.space)])
        except (OSError, sqlite3.Error) as error:
            raise Unwritten(self.directory, str(error), []) from error

    def describe(self, meta: Mapping[str, Any]) -> None:
        """Change entries of ``meta``; Unwritten when the disk takes no more."""
        try:
            with self._transaction():
                self._describe(meta)
        except (OSError, sqlite3.Error) as error:
            raise Unwritten(self.directory, str(error), []) from error

    def _describe(self, meta: Mapping[str, Any]) -> None:
        pairs = [(key, json.dumps(value)) for key, value in meta.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)

    def _new_rows(self, corpus: Corpus, names: Mapping[int, str]) -> list[tuple[Any, ...]]:
        start, stop = self._rows, len(corpus)
        rows, births = corpus[slice(start, stop)], iter(self._births)
        until, execution = next(births, (stop, 0))
        found = []
        for i in range(stop - start):
            while start + i >= until:
                until, execution = next(births, (stop, execution))
            at = 0 if rows.operator[i] < 0 else execution  # seeds were there before any execution
            found.append(
                (start + i, int(rows.parent[i]), names[int(rows.operator[i])], int(rows.origin[i]), at,
                 self.space.pack(rows.row(i)))
            )  # fmt: skip
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @property
    @reading
    def meta(self) -> dict[str, Any]:
        """What never changes: spec, identity, space, operators, targets, calibration ..."""
        found = {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM meta")}
        spec = stored(found.get("spec", {}), f"the campaign in {self.directory}")
        return {**found, "spec": spec.model_dump()}

    @cached_property
    @reading
    def space(self) -> Space:
        """What its rows are."""
        return described(self.meta["space"])

    @reading
    def state(self) -> State:
        """The state last committed; UsageError when there is none yet."""
        row = self._db.execute("SELECT value FROM state").fetchone()
        if row is None:
            raise UsageError(f"the campaign in {self.directory} ended before it began; delete it, start anew")
        state: State = decode(row[0])
        return state

    @reading
    def rows(self) -> Batch:
        """All rows of the corpus, in the order of their ids."""
        query = "SELECT parent, operator, origin, row FROM rows ORDER BY id"
        parents, operators, origins, blobs = zip(*self._db.execute(query), strict=True)
        ids = self._operators()
        return replace(
            self.space.batch([self.space.unpack(blob) for blob in blobs]),
            parent=ancestors(parents),
            operator=np.array([ids[name] for name in operators], np.int32),
            origin=ancestors(origins, itself=True),
        )  # fmt: skip

    @reading
    def states(self) -> list[tuple[Array, FloatArray]]:
        """The rows and the points float32 (D,) of the archive, in the order of admission."""
        query = "SELECT row, point FROM states ORDER BY n"
        return [(self.space.unpack(row), np.frombuffer(p, "<f4")) for row, p in self._db.execute(query)]

    @reading
    def admissions(self) -> IntArray:
        """How many rows had been run when each state of the archive was new, int64 (N,), in their order."""
        rows = self._db.execute("SELECT execution FROM states ORDER BY n")
        return np.array([execution for (execution,) in rows], np.int64)

    @reading
    def samples(self) -> list[Sample]:
        """How the campaign stood, about every second of it."""
        return [Sample(*row) for row in self._db.execute("SELECT * FROM steps ORDER BY executions")]

    @reading
    def points(self, dimensions: int) -> FloatArray:
        """The points of the archive float32 (N, dimensions), in the order of admission."""
        blobs = [blob for (blob,) in self._db.execute("SELECT point FROM states ORDER BY n")]
        return np.frombuffer(b"".join(blobs), "<f4").reshape(-1, dimensions).astype(np.float32)

    @reading
    def findings(self) -> list[Finding]:
        """All findings; number n is at place n - 1."""
        ids, space = self._operators(), self.space
        small = {row[0]: minimal(row, space) for row in self._db.execute("SELECT * FROM minimals")}
        rows = self._db.execute("SELECT * FROM findings ORDER BY id")
        made, count = [found(row, ids, space, small.get(row[0])) for row in rows], self._count("rows")
        if any(not SEED <= finding.origin < count for finding in made):
            raise ValueError("a finding descends from a row that there was not")
        return made

    @reading
    def lineage(self, row: int) -> list[Ancestor]:
        """The corpus rows from a seed to the one with id ``row``; none when it is negative."""
        path: list[Ancestor] = []
        while row >= 0:
            found = self._db.execute(
                "SELECT parent, operator, execution, row FROM rows WHERE id = ?", (row,)
            ).fetchone()
            if found is None:
                break
            parent, operator, execution, content = found
            path.append(Ancestor(row, operator, execution, self.space.unpack(content)))
            row = parent
        return path[::-1]

    def _operators(self) -> dict[str, int]:
        return {"": -1, **{name: i for i, name in enumerate(self.meta["operators"])}}

    def _count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _migrate(self) -> None:
        """From format 4, which says nothing of the text of a minimal row; Unwritten when the disk is full."""
        if self.meta["format"] == FORMAT:
            return
        try:
            with self._transaction():
                self._db.execute("ALTER TABLE minimals ADD COLUMN by_text INTEGER")
                self._describe({"format": FORMAT})
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise Unwritten(self.directory, str(error), []) from error

    def _check(self) -> None:
        try:
            found = self.meta.get("format")
        except Damaged:
            self.close()
            raise
        if found not in READ:
            self.close()
            raise UsageError(explain_version(self.directory / CAMPAIGN, found, FORMAT))
