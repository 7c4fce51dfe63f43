"""Limits of time for code of others, which may never return."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from multiprocessing import Pipe

from lmfuzz.errors import UsageError

GRACE = 5.0  # seconds after which code that cannot be interrupted is given up
_LATE = 10  # tenths of a second that this must last: all processes may have been stopped for a while
_AGAIN = 1.0  # seconds after which code that caught the first interrupt gets another
_deadline = memoryview(mmap(-1, 8)).cast("d")  # when code is given up, shared with ``ending_late_code``; or 0


class Timeout(BaseException):  # not an Exception, which the code may catch
    """Report that code of others did not return in time."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Raise Timeout in the block after so many seconds; None for no limit. Code in C must return first.

    Raises:
        UsageError: There is a limit, and this is not the main thread, which alone can be interrupted.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("row_timeout works in the main thread only; leave it out in others")

    def interrupt(*_: object) -> None:
        raise Timeout(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)

    def stop() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _deadline[0] = 0

    try:
        _deadline[0] = time.monotonic() + seconds + GRACE
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        try:
            yield
        finally:
            stop()
    except Timeout:  # perhaps raised by the last line
        stop()
        raise


@contextmanager
def ending_late_code(words: str) -> Iterator[None]:
    """End this process with SIGKILL, and ``words`` on stderr, if code within it cannot be interrupted.

    Such code may keep all threads of Python from running, so another process looks at the time.
    """
    ours, theirs = Pipe()
    parent = os.getpid()
    with warnings.catch_warnings(action="ignore"):  # that there are threads: the other process needs none
        process = os.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ours.close()
        late = 0
        while not theirs.poll(0.1):  # until the parent closes its end
            late = late + 1 if 0 < _deadline[0] < time.monotonic() else 0
            if late == _LATE:
                os.write(2, f"{words}\n".encode())
                os.kill(parent, signal.SIGKILL)
                break
        os._exit(0)
    try:
        yield
    finally:
        ours.close()
        theirs.close()
        os.waitpid(process, 0)
