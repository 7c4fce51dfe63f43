"""Runs batches on a target, keeps its time, and isolates rows on which the target raises."""

import time

import numpy as np

from lmfuzz.errors import INTERRUPTS, TargetError, UsageError, one_line
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Differentiable, PlainTarget, Sampler
from lmfuzz.types import CRASH, OWN, PAD, Array, Batch, FloatArray, IntArray, Trace


class LocalExecutor:
    """One target in this process; the channels ``prompt`` (the rows' texts) and ``origin`` it adds itself.

    A batch on which the target raises is split in halves until the rows to blame stand alone: their
    ``crash`` says what was raised, and their other channels hold what cannot be scored (NaN, PAD,
    '', by the kind of array). The other rows are run as usual.
    """

    def __init__(self, target: PlainTarget) -> None:
        self.target = target
        self.executions = 0  # rows run or sampled, for whatever reason
        self.seconds = 0.0  # wall time inside the target
        self._blank: dict[str, Array] = {}  # channel -> one row with nothing to show

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """As Target.run, with the channel ``crash``; TargetError when no row ever ran."""
        trace = self._run(batch, wants - OWN)
        for name in wants - OWN - trace.keys():  # no row of the batch ran
            if "/" not in name:
                raise TargetError(f"the target raises on every row, first with {trace[CRASH][0]}")
            trace[name] = np.full(len(batch), np.nan, np.float32)  # one of a family, never asked for before
        if "prompt" in wants:
            trace["prompt"] = np.array(self.target.space.texts(batch), dtype=object)
        if "origin" in wants:
            trace["origin"] = batch.origin
        return trace

    def _run(self, batch: Batch, wants: frozenset[str]) -> dict[str, Array]:
        started = time.perf_counter()
        self.executions += len(batch)
        try:
            trace = dict(self.target.run(batch, wants))
        except (UsageError, TargetError, *INTERRUPTS):
            raise
        except BaseException as error:  # SystemExit, too, is the model's own affair
            if len(batch) == 1:
                known = {name: self._blank[name] for name in wants & self._blank.keys()}
                return {CRASH: np.array([one_line(error)], dtype=object), **known}
            trace = {}
        finally:
            self.seconds += time.perf_counter() - started
        if not trace:
            half = len(batch) // 2
            return self._join(self._run(batch[:half], wants), self._run(batch[half:], wants))
        for name in trace.keys() - self._blank.keys():
            self._blank[name] = _blank(trace[name])
        trace[CRASH] = np.full(len(batch), "", dtype=object)
        return trace

    def _join(self, first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
        def part(trace: dict[str, Array], other: dict[str, Array], name: str) -> Array:
            if name in trace:
                return trace[name]
            return np.repeat(_blank(other[name]), len(trace[CRASH]), axis=0)

        return {
            name: np.concatenate([part(first, second, name), part(second, first, name)])
            for name in sorted(first.keys() | second.keys())
        }

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """As Sampler.sample; counted and timed like a run. Where the target raises: any symbols."""
        sampler: Sampler = self.target  # type: ignore[assignment]  # called only when it is one
        started = time.perf_counter()
        self.executions += len(batch)
        try:
            return sampler.sample(batch, new, temperature, rng)
        except INTERRUPTS:
            raise
        except BaseException:  # which row is to blame shows when the rows are run
            space: TextSpace = self.target.space  # type: ignore[assignment]  # only texts are sampled
            return space.draw(rng, (len(batch), new))
        finally:
            self.seconds += time.perf_counter() - started

    def gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """As Gradients; counted and timed like a run."""
        differentiable: Differentiable = self.target  # type: ignore[assignment]  # called only when it is one
        started = time.perf_counter()
        self.executions += len(batch)
        try:
            return differentiable.margin_gradients(batch, labels)
        finally:
            self.seconds += time.perf_counter() - started


def _blank(array: Array) -> Array:
    fill = {"f": np.nan, "i": PAD, "O": "", "U": "", "b": False}[array.dtype.kind]
    return np.full((1, *array.shape[1:]), fill, dtype=array.dtype)
