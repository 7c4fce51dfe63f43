"""A campaign's directory: what is in it, and who works in it."""

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from lmfuzz.errors import UsageError
from lmfuzz.files import CAMPAIGN, DATABASE, LOCK
from lmfuzz.text import shell_quote


def has_commit(directory: Path) -> bool:
    """Whether a campaign there has a first commit; before it there is nothing to go on with."""
    if not (directory / DATABASE).is_file():
        return False
    with closing(connect(directory / DATABASE, "ro")) as db:
        try:
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone()
            return made is not None and db.execute("SELECT 1 FROM state").fetchone() is not None
        except sqlite3.Error:  # who reads it says it better
            return True


def require_empty(directory: Path) -> None:
    """UsageError unless ``directory`` is missing or empty, so that a campaign can begin in it."""
    if (directory / DATABASE).exists():
        raise UsageError(
            f"{directory} holds a campaign already; go on with it: lmfuzz resume {shell_quote(directory)}, "
            "or give another directory with -o"
        )
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; give a directory with -o")
    if directory.is_dir() and {path.name for path in directory.iterdir()} - {LOCK, CAMPAIGN}:
        raise UsageError(f"{directory} is not empty and no campaign; give a new directory with -o")


def require_campaign(directory: Path) -> None:
    """UsageError unless there is a campaign in ``directory``."""
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}")
    if not (directory / DATABASE).is_file():
        cells = directory / "campaigns"
        more = f"; it is a sweep, and its campaigns are in {cells}" if cells.is_dir() else ""
        raise UsageError(f"{directory} is not a campaign: it has no {DATABASE}{more}")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to a database: ``ro``, ``rw``, or ``rwc`` to make it."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    if mode != "ro":
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    return db


def lock(directory: Path) -> int:
    """The open file whose lock says that this process works here; UsageError when another does."""
    file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    if not locked(file):
        process = os.read(file, 32).decode("ascii", "replace").strip()
        os.close(file)
        raise UsageError(f"{directory} is in use by another lmfuzz (process {process or '?'})")
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def locked(file: int) -> bool:
    """Lock an open file while it, or a process's copy of it, is open; False where it is locked already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
