"""Signals that end a campaign gracefully: after its step, with all findings on disk."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGINT, SIGTERM or SIGHUP; a second one has its usual effect.

    Outside the main thread signals cannot be handled, and this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in signal.Signals if n.name in ("SIGINT", "SIGTERM", "SIGHUP")}

    def first(number: int, frame: object) -> None:
        stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in list(before):
        if number.name == "SIGHUP" and before[number] == signal.SIG_IGN:  # nohup ignores it on purpose
            del before[number]
        else:
            signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
