"""Jobs in processes of their own, some at a time; what is done is kept in a log and not done again."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from benchmarks.figures import Wrong

Record = dict[str, Any]
T = TypeVar("T")


def logged(log: Path | None) -> list[Record]:
    """The records in a log; a last line that was cut short is none."""
    if log is None or not log.exists():
        return []
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def apart(module: str, task: Record, name: str) -> Record:
    """What ``python -m module FILE`` prints last, FILE holding the task; Wrong when it fails."""
    with tempfile.TemporaryDirectory(prefix="lmfuzz-job-") as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task), encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", module, str(file)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Wrong(f"{name}: {last}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return record


def note(log: Path, record: Record) -> None:
    """Append a record to the log."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def together(calls: Sequence[Callable[[], T]], jobs: int) -> list[T]:
    """What the calls return, in their order, ``jobs`` of them at a time; none begins after one failed."""
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(call) for call in calls]
        try:
            return [future.result() for future in running]
        except BaseException:
            for future in running:
                future.cancel()
            raise


def run_all(
    module: str, tasks: Sequence[tuple[str, Record]], key: str, log: Path | None, jobs: int
) -> list[Record | None]:
    """A record per named task, in their order; None for one that failed, which stderr says why.

    A record in the log whose ``key`` is equal to the task is taken as it is.
    """
    known = {json.dumps(r.get(key), sort_keys=True): r for r in logged(log)}
    writing = Lock()

    def one(name: str, task: Record) -> Record | None:
        if (done := known.get(json.dumps(task, sort_keys=True))) is not None:
            return done
        try:
            record = apart(module, task, name)
        except Wrong as error:
            print(f"  failed: {error}", file=sys.stderr, flush=True)
            return None
        with writing:
            print(f"  {name}: {record['seconds']:.0f} s", file=sys.stderr, flush=True)
            if log is not None:
                note(log, record)
        return record

    return together([partial(one, name, task) for name, task in tasks], jobs)
