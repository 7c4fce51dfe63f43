"""A campaign's directory: what is in it, which process works in it, and how its database is opened."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import lmfuzz
from lmfuzz import spec as specs
from lmfuzz.errors import UsageError, one_line
from lmfuzz.files import CAMPAIGN, DATABASE, LOCK
from lmfuzz.text import resume_command, shell_quote

FORMAT = 5
READ = (4, FORMAT)  # formats that can be read; resume converts a campaign to FORMAT
LOOK = 1.0  # seconds to wait for the lock: a process that only tests it holds it for a moment
PATIENCE = 600.0  # seconds without a commit after which a campaign is taken to be abandoned
_NO_DAMAGE = ("BUSY", "LOCKED", "CANTOPEN", "PERM", "READONLY", "NOMEM", "FULL", "IOERR")
_DAMAGE = (  # raised by damaged content
    sqlite3.Error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


def has_commit(directory: Path) -> bool:
    """Return whether a campaign there has a first commit; without it, it cannot be resumed."""
    if not (directory / DATABASE).is_file():
        return False
    with closing(connect(directory / DATABASE, "ro")) as db:
        try:
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone()
            return made is not None and db.execute("SELECT 1 FROM state").fetchone() is not None
        except sqlite3.Error:  # reading the campaign raises a better error
            return True


def require_empty(directory: Path) -> None:
    """Raise UsageError unless ``directory`` is missing or empty, so that a campaign can begin in it."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if (directory / DATABASE).exists():
        raise UsageError(
            f"{directory} already holds a campaign; resume it with {resume_command(directory)}, or begin in "
            "another directory"
        )
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; begin in a directory")
    if directory.is_dir() and {path.name for path in directory.iterdir()} - {LOCK, CAMPAIGN}:
        raise UsageError(f"{directory} is not empty and holds no campaign; begin in a new directory")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "cannot be written to" if there.is_dir() else "is a file"
        raise UsageError(f"cannot create {directory}: {there} {why}; choose another with --output")


def require_campaign(directory: Path) -> None:
    """Raise UsageError unless there is a campaign in ``directory``."""
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}")
    if not (directory / DATABASE).is_file():
        cells = directory / "campaigns"
        more = f"; it is a sweep, and its campaigns are in {cells}" if cells.is_dir() else ""
        raise UsageError(f"{directory} is not a campaign: it has no {DATABASE}{more}")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection to a database; the mode is ``ro``, ``rw``, or ``rwc`` to create it."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    if mode != "ro":
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
    return db


@contextmanager
def reading(directory: Path) -> Iterator[Callable[..., list[Any]]]:
    """Open the database of the campaign in ``directory`` for reading, even while the campaign runs.

    Yields a function that returns the rows of a query, all at once: a cursor that an error keeps alive would
    keep the database locked.

    Raises:
        UsageError: there is no campaign, it has another format, or its database is damaged.
    """
    require_campaign(directory)
    with closing(connect(directory / DATABASE, "ro")) as db, undamaged(directory):
        found = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchall()
        if (known := json.loads(found[0][0]) if found else None) not in READ:
            raise UsageError(_other_format(directory / CAMPAIGN, known))
        yield lambda query, *values: db.execute(query, values).fetchall()


@contextmanager
def undamaged(directory: Path) -> Iterator[None]:
    """Raise UsageError for damage; an error of a database that is only out of reach passes unchanged."""
    database = directory / DATABASE
    try:
        yield
    except _DAMAGE as error:
        if getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").startswith(_NO_DAMAGE):
            raise
        reason = str(error) if isinstance(error, sqlite3.Error) else one_line(error)
        raise UsageError(
            f"{database} is damaged, or is not a campaign of lmfuzz: {reason}; SQLite may recover some of "
            f"it: sqlite3 {shell_quote(database)} .recover | sqlite3 recovered.db"
        ) from error


def _other_format(campaign: Path, found: object) -> str:
    """Return why a campaign of format ``found`` cannot be read; ``campaign`` is its campaign.toml."""
    try:
        made = specs.read(campaign)["made_with"]["lmfuzz"]
        by = f"{'another build of ' if made == lmfuzz.__version__ else ''}lmfuzz {made}"
    except (UsageError, KeyError, TypeError):
        by = "another lmfuzz"
    return (
        f"the campaign in {campaign.parent} was made by {by} (format {found}), and this is lmfuzz "
        f"{lmfuzz.__version__} (format {FORMAT}): read it with that version, or run it again with this one: "
        f"lmfuzz fuzz --config {campaign}"
    )


def lock(directory: Path) -> FileLock:
    """Return the lock of this directory, held by this process; UsageError if another process holds it."""
    path = directory / LOCK
    held = FileLock(path)
    try:
        held.acquire(timeout=LOOK)
    except Timeout:
        process = path.read_text(encoding="ascii", errors="replace").strip()
        raise UsageError(f"{directory} is in use by another lmfuzz (process {process or '?'})") from None
    with suppress(PermissionError):  # Windows lets nobody write to a locked file
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    return held


def running(directory: Path) -> bool:
    """Return whether a process works on the campaign in ``directory``, that is, holds its lock.

    If this process may not open the lock, the database decides: it is one plain file while it is closed,
    and a campaign that runs writes to it often.
    """
    try:
        if (directory / LOCK).exists():
            with FileLock(directory / LOCK, blocking=False):
                pass
    except Timeout:
        return True
    except OSError:
        log = directory / f"{DATABASE}-wal"
        return log.exists() and time.time() - log.stat().st_mtime < PATIENCE
    return False
