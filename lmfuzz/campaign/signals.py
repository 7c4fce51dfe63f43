"""Signals that end a campaign gracefully: after its step, with all findings on disk."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGINT, SIGTERM or SIGHUP; a second one, of any kind, has its usual effect.

    Outside the main thread signals cannot be handled, and this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP, and nohup ignores it
    before = {n: signal.getsignal(n) for n in signal.Signals if n.name in names}
    before = {n: old for n, old in before.items() if (n.name, old) != ("SIGHUP", signal.SIG_IGN)}

    def first(*_: object) -> None:
        stop()
        for other, handler in before.items():  # the run may hang, even if the caller ignores some of them
            signal.signal(other, signal.SIG_DFL if handler == signal.SIG_IGN else handler)

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
