"""The writer of a campaign's directory: a lock, campaign.toml, and one SQLite file.

Every commit is one transaction with everything new and the complete state. The file is a consistent
checkpoint at any moment: it holds every finding that was shown, and needs no repair before a resume.
"""

import errno
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from os.path import samestat
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lmfuzz.errors import DiskError, GoneError, UsageError
from lmfuzz.files import DATABASE
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import Space, described
from lmfuzz.storage.directory import FORMAT, connect, lock, require_empty, undamaged
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.schema import TABLES, Sample, finding_row, minimal_row
from lmfuzz.storage.serialize import encode
from lmfuzz.types import Finding, Minimal, State, Step

QUIET = 3.0  # seconds after which a commit is due even if nothing was found
SHARE = 100  # a commit waits for this many times the duration of the last one, so they cost 1 % at most
SAMPLE = 1.0  # seconds between rows of the table steps


class Store:
    """Write the campaign in one directory; made by ``create`` or ``resume``, and a context manager."""

    def __init__(self, directory: Path, space: Space, db: sqlite3.Connection, lock: FileLock) -> None:
        self.directory, self.space = directory, space
        self._db, self._lock = db, lock
        self._file = (directory / DATABASE).resolve()  # a target may change the working directory
        self._opened = self._file.stat()
        self._findings: list[Finding] = []
        self._states: list[tuple[int, bytes, bytes]] = []
        self._samples: list[Sample] = []
        self._births = [(0, 0)]  # corpus sizes, and the executions when each was reached
        self._rows = 0  # corpus rows already written
        self._committed, self._took = time.perf_counter(), 0.0
        self._sampled = -SAMPLE

    @classmethod
    def create(cls, directory: Path, meta: Mapping[str, Any], private: bool = False) -> "Store":
        """Begin a campaign.

        Args:
            directory: where; it must be missing or empty.
            meta: what does not change while the campaign runs.
            private: whether other users may not read it.

        Raises:
            UsageError: a campaign cannot begin there.
            DiskError: the disk is full.
        """
        require_empty(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            held = lock(directory)
            db = connect(directory / DATABASE, "rwc")
            if private:
                directory.chmod(0o700)
                (directory / DATABASE).chmod(0o600)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOSPC:
                raise UsageError(f"cannot create {directory}: {error.strerror}") from None
            raise DiskError(directory, str(error)) from error
        store = cls(directory, described(meta["space"]), db, held)
        with store._transaction():
            for table in TABLES:
                db.execute(table)
            store._describe({"format": FORMAT, **meta})
        return store

    @classmethod
    def resume(cls, directory: Path) -> "Store":
        """Open a campaign to go on with; UsageError if there is none, or if it is in use or damaged."""
        space, held = CampaignRecord.read(directory).space, lock(directory)
        with undamaged(directory):
            store = cls(directory, space, connect(directory / DATABASE, "rw"), held)
            ((said,),) = store._db.execute("PRAGMA quick_check(1)")
            if said != "ok":  # a damaged database is not written to
                store.close()
                raise sqlite3.DatabaseError(said)
            store._rows = store._count("rows")
        store._migrate()
        return store

    def record(self) -> CampaignRecord:
        """Return the campaign as of its last commit."""
        return CampaignRecord.read(self.directory)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the directory; what was not committed is lost.

        The database becomes one plain file again, which can be read on a read-only disk.
        """
        with suppress(sqlite3.Error):  # another process may be reading for longer than this
            self._db.execute("PRAGMA busy_timeout = 1000")
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        self._lock.release()

    # -- writing ----------------------------------------------------------------------------------

    def add(self, step: Step, corpus: Corpus) -> None:
        """Add what a step found, admitted and kept to the next commit."""
        self._findings += step.findings
        if self._births[-1][0] < len(corpus):
            self._births.append((len(corpus), step.executions))
        if step.novel.any():
            points = step.points[step.novel].astype("<f4")
            for i, point in zip(np.flatnonzero(step.novel).tolist(), points, strict=True):
                self._states.append((step.executions, self.space.pack(step.batch.row(i)), point.tobytes()))

    def sample(self, sample: Sample) -> None:
        """Add how the campaign stands to the next commit, at most once in a second of its time."""
        if sample.seconds - self._sampled >= SAMPLE:
            self._sampled = sample.seconds
            self._samples.append(sample)

    def due(self) -> bool:
        """Return whether it is time to commit: soon after a finding, else every few seconds."""
        wait = max(SHARE * self._took, 0 if self._findings else QUIET)
        return time.perf_counter() - self._committed >= wait

    def commit(self, state: State, corpus: Corpus, operators: Sequence[str]) -> list[tuple[int, Finding]]:
        """Write everything new and the whole state in one transaction; return the new findings, numbered.

        Raises:
            DiskError: the disk is full; the error holds the findings that could not be written.
            GoneError: the directory is not there any more.
        """
        started = time.perf_counter()
        first = self._count("findings") + 1 if self._findings else 0
        numbered = list(enumerate(self._findings, start=first))
        names = {-1: "", **dict(enumerate(operators))}
        with self._transaction():
            self._insert("rows", self._new_rows(corpus, names))
            self._insert("states", [(None, *row) for row in self._states])
            self._insert("findings", [finding_row(n, f, names, self.space) for n, f in numbered])
            small = [(n, f.minimal) for n, f in numbered if f.minimal is not None]
            self._insert("minimals", [minimal_row(n, one, self.space) for n, one in small])
            self._insert("steps", [astuple(sample) for sample in self._samples])
            self._db.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (encode(state),))
        self._rows = len(corpus)
        self._findings, self._states, self._samples = [], [], []
        del self._births[:-1]
        self._committed = time.perf_counter()
        self._took = self._committed - started
        return numbered

    def minimise(self, number: int, minimal: Minimal) -> None:
        """Write the minimal input of finding ``number``; DiskError if the disk is full."""
        with self._transaction():
            self._insert("minimals", [minimal_row(number, minimal, self.space)])

    def describe(self, meta: Mapping[str, Any]) -> None:
        """Change entries of ``meta``; DiskError if the disk is full."""
        with self._transaction():
            self._describe(meta)

    def _describe(self, meta: Mapping[str, Any]) -> None:
        self._insert("meta", [(key, json.dumps(value)) for key, value in meta.items()])

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({places})", rows)

    def _new_rows(self, corpus: Corpus, names: Mapping[int, str]) -> list[tuple[Any, ...]]:
        """The rows of the corpus that are not on disk yet, each with the executions when it was born."""
        ids, rows = np.arange(self._rows, len(corpus)), corpus[slice(self._rows, len(corpus))]
        sizes, executions = np.array(self._births).T
        born = executions[np.searchsorted(sizes, ids, side="right").clip(max=len(sizes) - 1)]
        born[rows.operator < 0] = 0  # seeds were there before any execution
        operators = [names[operator] for operator in rows.operator.tolist()]
        packed = [self.space.pack(rows.row(i)) for i in range(len(rows))]
        columns = ids.tolist(), rows.parent.tolist(), operators, rows.origin.tolist(), born.tolist(), packed
        return list(zip(*columns, strict=True))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing; DiskError, with the findings that were not written, if that fails."""
        if not (self._file.exists() and samestat(self._file.stat(), self._opened)):
            why = "it was removed, moved or replaced while the campaign ran"
            raise GoneError(self.directory, why, self._findings)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, OSError | sqlite3.Error):
                raise DiskError(self.directory, str(error), self._findings) from error
            raise

    def _count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _migrate(self) -> None:
        """Add to a campaign of format 4 the column that it lacks; DiskError if the disk is full."""
        if "by_text" not in [name for _, name, *_ in self._db.execute("PRAGMA table_info(minimals)")]:
            with self._transaction():
                self._db.execute("ALTER TABLE minimals ADD COLUMN by_text INTEGER")
                self._describe({"format": FORMAT})
