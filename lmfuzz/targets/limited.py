"""Code that comes with a model, run in a process that may use little time and memory."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import NoReturn
from weakref import finalize

SECONDS = 5.0  # of computing that one text may take
MEMORY = 500_000_000  # bytes that may be filled
_SIZE = Path("/proc/self/statm")  # begins with the pages of the address space; on Linux only
_Answer = list[str] | tuple[str, str]  # what became of all texts, or the type of an error and its message


class Limited:
    """Call a function of one text for many texts, in another process, which is a copy of this one.

    Only another process can be ended whatever it does: a single step of C may fill the memory. It begins when
    it is needed and serves all later calls until it is ended. A text that ended it is not tried again.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self._function, self._lock, self._bad = function, Lock(), set[str]()
        self._copy: _Copy | None = None

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return what the function returns for each text.

        Raises:
            Exception: It raised an error of this name and message.
            TimeoutError: It took more than SECONDS for one of the texts.
        """
        if sys.platform == "win32":  # it cannot copy a process, so there is no limit
            return [self._function(text) for text in texts]
        with self._lock:
            endless = TimeoutError(f"it did not end within {SECONDS:g} s")
            if not self._bad.isdisjoint(texts):
                raise endless
            if self._copy is None or self._copy.parent != os.getpid():
                self._copy = _Copy(self._function)
            copy, self._copy = self._copy, None  # unless all goes well: a late answer is for no other call
            try:
                found = copy.ask(list(texts))
            except (EOFError, ConnectionError):
                self._bad.add(texts[copy.place[0]])
                raise endless from None
            self._copy = copy
        if isinstance(found, tuple):
            kind, words = found
            raise type(kind, (Exception,), {})(words)
        return found


class _Copy:
    """A copy of this process that answers until it, or this object, comes to its end.

    Attributes:
        parent: the process that it is a copy of.
        place: at 0, which of the texts it is working on.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self.parent, self.place = os.getpid(), memoryview(mmap(-1, 8)).cast("q")
        self._pipe, theirs = Pipe()
        with warnings.catch_warnings(action="ignore"):  # that there are threads: the copy has none
            process = os.fork()
        if not process:
            _serve(function, theirs, self.place)
        theirs.close()
        finalize(self, _end, self.parent, process, self._pipe)

    def ask(self, texts: list[str]) -> _Answer:
        """Return what the function returns for each text; EOFError or ConnectionError if the copy ends."""
        self._pipe.send(texts)
        answer: _Answer = self._pipe.recv()
        return answer


def _end(parent: int, process: int, pipe: Connection) -> None:
    pipe.close()
    if parent == os.getpid():
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _serve(function: Callable[[str], str], pipe: Connection, place: memoryview) -> NoReturn:
    """Answer what comes through the pipe until that is closed."""
    try:
        gc.freeze()  # else a collection would copy what is shared
        os.closerange(3, pipe.fileno())  # locks and other pipes must not stay open
        os.closerange(pipe.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        if _SIZE.exists():
            import resource  # only here: Windows has none

            most = resource.getpagesize() * int(_SIZE.read_text().split()[0]) + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        while True:
            pipe.send(_answer(function, pipe.recv(), place))
    finally:
        os._exit(0)


def _answer(function: Callable[[str], str], texts: list[str], place: memoryview) -> _Answer:
    try:
        found = []
        for place[0], text in enumerate(texts):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            found.append(function(text))
    except MemoryError:
        return "MemoryError", f"it needs more than {MEMORY // 1_000_000} MB"
    except BaseException as error:
        return type(error).__name__, str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return found
