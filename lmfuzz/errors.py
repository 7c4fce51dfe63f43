"""The errors a user can cause; each carries one sentence that says what would be right."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UsageError(Exception):
    """Wrong input: an option, a file, a name, a parameter (exit code 2)."""


class TargetError(Exception):
    """The model could not be loaded (exit code 3)."""


class DiskError(Exception):
    """The disk takes no more (exit code 4); ``findings`` are those that were found but are not on it."""

    def __init__(self, path: object, reason: str, findings: Sequence[Any] = ()) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.findings = findings


class Unfit(Exception):  # noqa: N818  # it is the row that is unfit, not the model that errs
    """A row that the target cannot be given, such as one longer than its window: unscored, no crash."""


EXTRAS = {
    "image": "images need Pillow",
    "format": "the objective format needs jsonschema and regex",
    "pandas": "to_pandas() needs pandas",
    "torchao": "the recipe torchao needs the package torchao",
}
INTERRUPTS = (KeyboardInterrupt, GeneratorExit)  # end a campaign; all else is the affair of who raised it


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import packages of an extra within this; raises UsageError, which says how to install them."""
    try:
        yield
    except ModuleNotFoundError:
        raise UsageError(f"{EXTRAS[name]}: pip install 'lmfuzz[{name}]'") from None


def one_line(error: BaseException) -> str:
    """What was raised: its type and the first line of what it says, 200 characters at most."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextmanager
def explaining(start: str, kind: type[Exception] = TargetError) -> Iterator[None]:
    """Turn what a model or library raises within the block into one line that begins with ``start``."""
    try:
        yield
    except (TargetError, UsageError):
        raise
    except Exception as error:
        raise kind(f"{start}: {one_line(error)}") from error


def printable(text: str) -> str:
    """``text`` on one line, what a terminal would obey written as an escape; twice is as once."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'X'?`` with the known word nearest to ``word``, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
