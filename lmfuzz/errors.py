"""Errors that a user can cause; each is one sentence that says what would be right."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UsageError(Exception):
    """Report a wrong option, file, name or parameter (exit code 2)."""


class TargetError(Exception):
    """Report that the model could not be loaded (exit code 3)."""


class DiskError(Exception):
    """The disk takes no more (exit code 4); ``findings`` are those that were found but are not on it."""

    def __init__(self, path: object, reason: str, findings: Sequence[Any] = ()) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.findings = findings


class GoneError(DiskError):
    """The campaign's directory was removed or replaced (exit code 4); ``findings`` are all of them."""


class Unfit(Exception):  # noqa: N818  # the row is unfit; nothing went wrong
    """Report a row that the target cannot take, such as one longer than its window: unscored, not a crash."""


EXTRAS = {
    "datasets": "Parquet and Arrow files need pyarrow",
    "image": "images need Pillow",
    "format": "the objective format needs jsonschema and regex",
    "pandas": "to_pandas() needs pandas",
    "keras": "files of Keras need h5py",
    "peft": "the model has an adapter (adapter_config.json), which needs peft",
    "torchao": "the recipe torchao needs the package torchao",
}
NAME = 200  # characters at most of an error on one line, and of a name that is printed
INTERRUPTS = (KeyboardInterrupt,)  # ends a campaign; what else a target or detector raises does not


@contextmanager
def extra(name: str, kind: type[Exception] = UsageError) -> Iterator[None]:
    """Turn a failed import of an extra's packages into an error that says how to install them."""
    try:
        yield
    except ModuleNotFoundError:
        raise kind(f"{EXTRAS[name]}: pip install 'lmfuzz[{name}]'") from None


def one_line(error: BaseException) -> str:
    """Return the type of an error and its message on one line, at most NAME characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:NAME]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence logs and warnings: torchao's about kernels of other machines, torch's about its own use."""
    import logging  # only here, as is the next: a command line that asks for help needs neither
    import warnings

    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def explaining(start: str, kind: type[Exception] = TargetError) -> Iterator[None]:
    """Turn what a model or library raises within the block into one line that begins with ``start``."""
    try:
        yield
    except (TargetError, UsageError, DiskError, *INTERRUPTS):
        raise
    except BaseException as error:
        raise kind(f"{start}: {one_line(error)}") from error


@contextmanager
def forbidding_writes(who: str) -> Iterator[None]:
    """Turn what numpy raises when ``who`` writes into what all others read into UsageError."""
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise UsageError(f"{who} changes an array that others read, too; let it change a .copy()") from error


def printable(text: str) -> str:
    """Return ``text`` on one line, with escapes for what a terminal would obey; applying it twice is safe."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'X'?`` with the known word nearest to ``word``, or '' if none is near."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
