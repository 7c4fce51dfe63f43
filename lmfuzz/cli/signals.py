"""Signals that end a campaign in order: after its step, with all that it found on disk."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP calls ``stop``, a second one does what it did before."""
    before = {n: signal.getsignal(n) for n in signal.Signals if n.name in ("SIGINT", "SIGTERM", "SIGHUP")}

    def first(number: int, frame: object) -> None:
        stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in list(before):
        if number.name == "SIGHUP" and before[number] == signal.SIG_IGN:  # as nohup wants it
            del before[number]
        else:
            signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
