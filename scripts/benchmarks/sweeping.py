"""Is a campaign lost, or run twice, when a sweep is killed with -9 in its middle and run again?"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Measured, Options, Wrong, noted
from lmfuzz.analysis.sweep import Sweep, cells, read
from lmfuzz.errors import UsageError
from lmfuzz.storage.directory import has_commit
from lmfuzz.storage.record import CampaignRecord

JOBS, TRIALS, BUDGET = 2, 20, "1m"  # 40 campaigns of a minute
QUICK = (1, 1, "2000x")  # on a busy machine, the seeds alone may take seconds
BEGINS = "lmfuzz: the bundled model"  # what a campaign prints when it begins, not when it goes on
PLAN = """
trials = {trials}
[campaign]
objectives = ["repetition"]
budget = "{budget}"
[grid]
search = ["random", "directed"]
"""


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``sweep_resume``: campaigns that were lost, begun twice, or run again after their end.

    The sweep is killed twice: alone, in the middle of its first half, and together with the processes
    of its campaigns, in the middle of its second half.
    """
    jobs, trials, budget = QUICK if options.quick else (JOBS, TRIALS, BUDGET)
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as name:
        folder = Path(name)
        file = folder / "sweep.toml"
        file.write_text(PLAN.format(trials=trials, budget=budget), encoding="utf-8")
        with Sweep(cells(read(file), str(file)), folder / "s") as sweep:
            found = {cell.name: (sweep.directory(cell), sweep.log(cell)) for cell in sweep.cells}
        directories = [directory for directory, _ in found.values()]
        started = time.perf_counter()
        command = [
            sys.executable, "-m", "lmfuzz", "sweep", str(file), "-o", str(folder / "s"), "--jobs", str(jobs),
        ]  # fmt: skip
        first = _killed(command, directories, len(directories) // 4, alone=True)
        second = _killed(command, directories, 3 * len(directories) // 4, alone=False)
        last = subprocess.run(command, capture_output=True, text=True)
        if last.returncode:
            raise Wrong(f"the sweep ended with {last.returncode}: {last.stderr.strip()}")
        seconds = time.perf_counter() - started
        lost = [name for name, (directory, _) in found.items() if not _ended(directory)]
        twice = [name for name, (_, log) in found.items() if log.read_text("utf-8").count(BEGINS) != 1]
        again = sum(_digest(d) != was for ended, _ in (first, second) for d, was in ended.items())
        back = sum(_executions(d) < was for _, under_way in (first, second) for d, was in under_way.items())
    line = noted(
        f"{len(found)} campaigns of {budget} in {seconds:.0f} s, {jobs} at a time; killed after "
        f"{len(first[0])} and {len(second[0])} were at their ends, with {len(first[1])} and {len(second[1])} "
        f"under way: {len(lost)} lost, {len(twice)} begun not once, {again} run again after the end, "
        f"{back} that lost what they had committed"
    )
    return {keys[0]: Measured(float(len(lost) + len(twice) + again + back), (line,))}


def _killed(
    command: list[str], directories: list[Path], after: int, alone: bool
) -> tuple[dict[Path, str], dict[Path, int]]:
    """Run the sweep until that many are at their ends and others under way, and kill it.

    What the databases of those at their ends are, and the executions of those under way.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while sum(map(_ended, directories)) < after or not _under_way(directories):
            if process.poll() is not None:
                raise Wrong("the sweep ended before it was to be killed")
            time.sleep(0.2)
        process.kill()
    if not alone:
        for directory in _under_way(directories):
            os.kill(int((directory / "lock").read_text("ascii")), signal.SIGKILL)
    under_way = {directory: _executions(directory) for directory in _under_way(directories)}
    return {d: _digest(d) for d in directories if _ended(d)}, under_way


def _under_way(directories: list[Path]) -> list[Path]:
    return [d for d in directories if has_commit(d) and not _ended(d)]


def _ended(directory: Path) -> bool:
    try:
        return CampaignRecord.read(directory).at_end
    except UsageError:  # its first commit is not there yet
        return False


def _executions(directory: Path) -> int:
    return CampaignRecord.read(directory).executions


def _digest(directory: Path) -> str:
    """What the findings, steps and state of a campaign that ended are."""
    record = CampaignRecord.read(directory)
    said = repr((record.executions, record.samples, record.findings))
    return hashlib.sha256(said.encode()).hexdigest()
