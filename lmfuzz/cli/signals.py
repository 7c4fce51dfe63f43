"""Signals that end a campaign in order: after its step, with all that it found on disk."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP calls ``stop``, a second one does what it did before."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def first(number: int, frame: object) -> None:
        stop()
        signal.signal(number, before[signal.Signals(number)])

    if before[signal.SIGHUP] == signal.SIG_IGN:  # as nohup wants it
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
