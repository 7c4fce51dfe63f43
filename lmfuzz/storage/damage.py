"""What is said of a campaign whose database does not hold what was written to it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from lmfuzz.errors import Damaged, one_line
from lmfuzz.files import DATABASE
from lmfuzz.text import shell_quote

BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_NOMEM")  # no damage
WRONG = (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError)  # what reading damage raises


_P = ParamSpec("_P")
_T = TypeVar("_T")


def busy(error: BaseException) -> bool:
    """Whether a database only cannot be read now, or here."""
    return getattr(error, "sqlite_errorname", "").startswith(BUSY)


@contextmanager
def whole(directory: Path) -> Iterator[None]:
    """Reads of the campaign in a directory; Damaged where it is not what was written."""
    try:
        yield
    except WRONG as error:
        if busy(error):
            raise
        said = str(error) if isinstance(error, sqlite3.Error) else one_line(error)
        raise Damaged(
            f"{directory / DATABASE} is damaged, or is no campaign of lmfuzz: {said}; "
            f"what can be read: lmfuzz export {shell_quote(directory)} --format jsonl"
        ) from error


def reading(read: Callable[Concatenate[Any, _P], _T]) -> Callable[Concatenate[Any, _P], _T]:
    """A method of a Store, which raises Damaged where what it reads is not what was written."""

    @wraps(read)
    def reads(store: Any, /, *args: _P.args, **keys: _P.kwargs) -> _T:
        with whole(store.directory):
            return read(store, *args, **keys)

    return reads
