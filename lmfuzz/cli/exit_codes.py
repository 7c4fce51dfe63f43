"""How the program ends: exit codes, and one sentence for every error that a user can cause."""

import os
import sys
from pathlib import Path
from sqlite3 import DatabaseError
from typing import NoReturn

import click

from lmfuzz.errors import DiskError, TargetError, UsageError, printable
from lmfuzz.files import FULL

NOTHING, FOUND, USAGE, TARGET, DISK, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

EXITS = """
\b
Exit codes:
  0    nothing new was found (replay: everything is fixed; tokens: none is under-trained; sweep: all ran)
  1    findings (replay: something still fails or could not be judged; tokens: some are under-trained)
  2    wrong usage, or nothing was found and an objective could not score enough inputs
  3    the model could not be loaded
  4    the disk is full, or the directory is gone; findings that could not be written are on stderr
  70   a bug in lmfuzz; its traceback is on stderr
  130  interrupted
  137  killed: what ran ignored --row-timeout; what was found is on disk
"""

_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"}


def sentence(error: BaseException) -> tuple[str, int]:
    """Return what to print about an error, and the exit code."""
    match error:
        case click.ClickException():
            return error.format_message(), USAGE
        case UsageError():
            return str(error), USAGE
        case TargetError():
            return str(error), TARGET
        case DiskError():
            return str(error), DISK
        case DatabaseError() if getattr(error, "sqlite_errorname", "") in _FULL:
            return f"cannot write the campaign: {error}", DISK
        case DatabaseError():
            return f"the campaign's database cannot be read: {error}", USAGE
        case OSError():
            place = f" {error.filename}" if error.filename else ""
            reason = error.strerror or str(error) or type(error).__name__
            return f"cannot read or write{place}: {reason}", DISK if error.errno in FULL else USAGE
        case MemoryError():
            return "there is not enough memory; a smaller model, --batch or --max-new needs less", USAGE
    return "this is a bug in lmfuzz; the campaign on disk is kept", BUG


def fail(words: str, code: int, *more: str) -> NoReturn:
    """Print what was wrong on stderr, each on a line, and exit."""
    try:
        sys.stdout.flush()
    except OSError:
        discard()
    try:
        for line in (words, *more):
            click.echo(f"lmfuzz: {printable(line)}", err=True)
    except OSError:  # what cannot be said must not change the exit code
        discard(2)
    sys.exit(code)


def discard(stream: int = 1) -> None:
    """Discard what is left for a stream, stdout or stderr: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def replace_closed_streams() -> None:
    """Read nothing from, and discard what is written to, a standard stream that the caller closed.

    A file that is opened later would get its number, and what is printed would be written into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115  # until the end
