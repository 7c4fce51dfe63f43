"""The campaigns on the planted models, as a sweep; models are rebuilt where they are missing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Wrong
from benchmarks.jobs import together
from lmfuzz.analysis.sweep import Cell, Failure, Sweep, cells, read
from lmfuzz.campaign.signals import stop_on_signal
from planting.faults import FAULTS, STEPS, TRAINED, fault_of
from planting.tables import Result
from planting.texts import Plants


def rebuild(names: Sequence[str], seeds: int, folder: Path, jobs: int, quick: bool = False) -> None:
    """Train what these faults lack in ``folder`` of the numbers below ``seeds``; Wrong where that fails."""
    trained = dict.fromkeys(TRAINED[FAULTS[name].model] for name in names)
    missing = [(k, n) for n in range(seeds) for k in trained if not (folder / f"{k}-{n}").exists()]
    together([partial(_rebuild, kind, number, folder, quick) for kind, number in missing], jobs)


def _rebuild(kind: str, number: int, folder: Path, quick: bool) -> None:
    """In a process of its own; the model that is asked for comes last into the folder, whole."""
    print(f"training {kind} {number} ...", file=sys.stderr, flush=True)
    new = folder / f".{kind}-{number}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    steps = str(20 if quick else STEPS[kind])
    command = [sys.executable, "-m", "planting.rebuild", kind, str(number), steps, str(new)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"{kind} {number}: {(done.stderr.strip().splitlines() or ['it was killed'])[-1]}")
    for made in sorted(new.iterdir(), key=lambda path: path.name == f"{kind}-{number}"):
        shutil.rmtree(folder / made.name, ignore_errors=True)
        made.rename(folder / made.name)
    new.rmdir()


@dataclass
class View:
    """A line per campaign on stderr."""

    ends: int
    most: int

    def begun(self, cell: Cell, again: bool) -> None:
        """Not shown."""

    def ended(self, cell: Cell) -> None:
        """How many are done."""
        self.ends += 1
        print(f"  {self.ends} of {self.most}: {cell.name}", file=sys.stderr, flush=True)

    def failed(self, failure: Failure) -> None:
        """Why."""
        print(f"  failed: {failure.cell.name}: {failure.words}", file=sys.stderr, flush=True)

    def tick(self) -> None:
        """Nothing to draw."""


def run(plan: Path, jobs: int) -> Sweep:
    """The sweep in the plan's folder, brought to its end or interrupted; what is there is not run again."""
    found = cells(read(plan), str(plan))
    with Sweep(found, plan.parent) as sweep:
        view = View(len(sweep.done), len(found))
        with stop_on_signal(sweep.stop):
            sweep.run(jobs, view)
    return sweep


def results(sweep: Sweep) -> Iterator[Result]:
    """A result for every campaign at its end."""
    for cell, one in sweep.done.items():
        fault, number = fault_of(cell.spec)
        plants = Plants.of(number)
        times = [at for bucket, at in one.first.items() if fault.found(plants, bucket)]
        at = min(times, default=(one.executions, one.seconds))
        yield Result(fault.name, cell.spec.search, number, cell.spec.seed, bool(times), at)
