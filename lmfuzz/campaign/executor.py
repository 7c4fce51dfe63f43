"""The executor: it runs batches on a target, and isolates rows on which the target raises."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from lmfuzz.errors import INTERRUPTS, TargetError, UsageError, one_line
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.plugins.timeout import within
from lmfuzz.protocols import Differentiable, PlainTarget, Sampler
from lmfuzz.types import CRASH, OWN, Array, Batch, FloatArray, IntArray, Trace, blank, read_only, stack

Result = TypeVar("Result")


class LocalExecutor:
    """Run one target in this process, and add the channels ``prompt``, ``lead`` and ``origin``.

    These are the rows' texts, the last character before each output, and the seeds that they descend from.

    A batch on which the target raises, takes longer than the timeout, or shows a channel of another form than
    before, is split in halves until the failing rows stand alone. Their channel ``crash`` holds what was
    raised; their other channels hold values that cannot be scored (NaN, PAD or '', by the kind of array). The
    other rows run as usual.

    The target gets copies of the rows, which it may change; what it shows cannot be written into.

    Attributes:
        target: the model under test.
        executions: how many rows were run or sampled, for whatever reason.
        seconds: the wall time spent inside the target.
        timeout: the seconds that the target may take for one call; None for no limit.
        fixed: channels (B, D) whose width never changes, because coverage is measured in them.
    """

    def __init__(self, target: PlainTarget, timeout: float | None = None) -> None:
        self.target, self.timeout = target, timeout
        self.executions, self.seconds = 0, 0.0
        self.fixed: frozenset[str] = frozenset()
        self._blank: dict[str, Array] = {}  # channel -> one row that cannot be scored

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Run a batch as Target.run does, with the channel ``crash``; TargetError if no row ever ran."""
        trace = self._run(batch, wants - OWN)
        for name in wants - OWN - trace.keys():  # no row of the batch ran
            if "/" not in name:
                raise TargetError(f"the target raises on every row, first with {trace[CRASH][0]}")
            trace[name] = np.full(len(batch), np.nan, np.float32)  # a new member of a family of channels
        if "prompt" in wants:
            trace["prompt"] = np.array(self.target.space.texts(batch), dtype=object)
        if "lead" in wants and isinstance(self.target.space, TextSpace):
            trace["lead"] = np.array(self.target.space.leads(batch), dtype=object)
        if "origin" in wants:
            trace["origin"] = batch.origin
        return {name: read_only(array) for name, array in trace.items()}

    def _run(self, batch: Batch, wants: frozenset[str]) -> dict[str, Array]:
        try:
            with within(self.timeout):
                trace = self._timed(lambda: dict(self.target.run(batch.copy(), wants)), len(batch))
            for name in wants | trace.keys():
                self._check(name, trace.get(name), len(batch))
        except (UsageError, TargetError, *INTERRUPTS):
            raise
        except BaseException as error:  # a model that calls sys.exit() has crashed too
            if len(batch) == 1:
                known = {name: self._blank[name] for name in wants & self._blank.keys()}
                return {CRASH: np.array([one_line(error)], dtype=object), **known}
            half = len(batch) // 2
            return self._join(self._run(batch[:half], wants), self._run(batch[half:], wants))
        for name in trace.keys() - self._blank.keys():
            self._blank[name] = blank(trace[name], 1, *trace[name].shape[1:])
        trace[CRASH] = np.full(len(batch), "", dtype=object)
        return trace

    def _join(self, first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
        def part(trace: dict[str, Array], name: str) -> Array:
            missing = name not in trace
            return np.repeat(self._blank[name], len(trace[CRASH]), axis=0) if missing else trace[name]

        names = sorted(first.keys() | second.keys())
        return {name: stack([part(first, name), part(second, name)]) for name in names}

    def _check(self, name: str, array: object, rows: int) -> None:
        """Raise ValueError unless a channel is as its batches before were."""
        if array is None and "/" in name:  # a member of a family that the target does not know
            return
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiObU":
            kind = f"array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            kind = "missing" if array is None else f"a {kind}; it must be an array of numbers or texts"
            raise ValueError(f"the channel {name} is {kind}")
        if array.shape[:1] != (rows,):
            raise ValueError(f"the channel {name} has shape {array.shape} for {rows} inputs")
        if name in self._blank:
            width = name in self.fixed
            now, before = _described(array, width), _described(self._blank[name], width)
            if now != before:
                raise ValueError(f"the channel {name} holds {now}; before, it held {before}")

    def _timed(self, run: Callable[[], Result], rows: int) -> Result:
        """What ``run`` returns; it is counted as an execution of so many rows, and timed."""
        started = time.perf_counter()
        self.executions += rows
        try:
            return run()
        finally:
            self.seconds += time.perf_counter() - started

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """Sample as Sampler.sample does, counted and timed; random symbols if the target raises."""
        sampler: Sampler = self.target  # type: ignore[assignment]  # called only when it is one
        try:
            with within(self.timeout):
                return self._timed(lambda: sampler.sample(batch.copy(), new, temperature, rng), len(batch))
        except INTERRUPTS:
            raise
        except BaseException:  # running the rows will show which of them fails
            space: TextSpace = self.target.space  # type: ignore[assignment]  # only texts are sampled
            return space.draw(rng, (len(batch), new))

    def gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return gradients as Differentiable.margin_gradients does, counted and timed."""
        differentiable: Differentiable = self.target  # type: ignore[assignment]  # called only when it is one
        return self._timed(lambda: differentiable.margin_gradients(batch.copy(), labels), len(batch))


def _described(array: Array, width: bool) -> str:
    """Return what stays the same in all arrays of a channel; its axis 1 too if ``width``."""
    axes = ["B", *map(str, array.shape[1:])]
    if not width and array.ndim > 1:
        axes[1] = "any"
    return f"{'texts' if array.dtype.kind in 'OU' else 'numbers'} of shape ({', '.join(axes)})"
