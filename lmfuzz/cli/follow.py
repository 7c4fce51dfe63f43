"""Looking on from outside: at a campaign that another process runs, and at the campaigns of a sweep."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lmfuzz.analysis.sweep import Cell, Failure, Sweep
from lmfuzz.budget import Budget
from lmfuzz.cli.progress import WIDE, Progress, view
from lmfuzz.files import DATABASE, LOCK
from lmfuzz.storage.directory import has_commit
from lmfuzz.storage.store import Store
from lmfuzz.text import escape, format_duration, plural, shorten
from lmfuzz.types import Finding

EVERY = 1.0  # seconds between looks at a campaign
REFRESH = 1.0  # seconds between pictures of a sweep
LAST = 10  # findings that were there before somebody looked
COLUMNS = ("setting", "done", "running", "buckets", "under way", "executions")
LOCKS = Path("/proc/locks")  # where Linux lists them
PATIENCE = 600.0  # seconds without a commit after which, elsewhere, nobody is taken to work on a campaign
ROOM = 8  # lines of a terminal that the table of a sweep leaves free


def follow(directory: Path, out: IO[str]) -> None:
    """Show what the campaign in ``directory`` does, from its database alone, until no process works on it.

    Nothing is locked, and the database is open for moments only. UsageError when there is no campaign.
    """
    now, found = _look(directory)
    seen = max(0, len(found) - LAST)
    with view(lambda: now, out) as shown:
        while True:
            alive = running(directory)  # before the look, so that the last one sees the end
            now, found = _look(directory)
            for number, finding in enumerate(found[seen:], start=seen + 1):
                shown.found(number, finding)
            if not alive:
                return
            seen = len(found)
            shown.step()
            time.sleep(EVERY)


def running(directory: Path) -> bool:
    """Whether a process works on a campaign: whether its lock is held, of which nothing is taken.

    Where locks are not listed: whether the process that took it last is there, or another of its number, and
    the campaign, which is one plain file when it is closed, was not left alone for long.
    """
    lock, log = directory / LOCK, directory / f"{DATABASE}-wal"
    try:
        process = lock.read_text(encoding="ascii").strip()
        if LOCKS.exists():
            return _held(lock, process)
        with suppress(PermissionError):
            os.kill(int(process), 0)
        return time.time() - log.stat().st_mtime < PATIENCE
    except (OSError, ValueError):
        return False


def _held(lock: Path, process: str) -> bool:
    """Whether a lock is listed for this file, or for one like it and this process.

    The number of the device that is listed is on some file systems another than the one of the file.
    """
    file = lock.stat()
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    for line in LOCKS.read_text(encoding="ascii").splitlines():
        *_, holder, place, _, _ = line.split()
        on, _, number = place.rpartition(":")
        if number == str(file.st_ino) and (on == device or holder == process):
            return True
    return False


def _look(directory: Path) -> tuple[Progress, list[Finding]]:
    """How a campaign stood at its last commit, and its findings."""
    with Store.read(directory) as store:
        state, meta, found = store.state(), store.meta, store.findings()
    tally = state["tally"]
    budget = Budget.parse(meta["spec"]["budget"])
    budget.seconds_before, budget.spent_executions = state["seconds"], state["executions"]
    budget.calibration = meta["calibration_executions"]
    rates = 1000 * tally["fruitful"] / tally["mutants"].clip(1)
    return Progress(
        state["executions"], state["seconds"], state["time_in_target"], meta["spec"]["budget"],
        budget.share(), state["corpus_size"], state["archive_size"], tally["rows"], tally["novel"],
        tally["last_novel"], meta["calibration"]["stability"], len(found), len({f.bucket for f in found}),
        Counter(state["findings"]["hits"]), dict(zip(meta["operators"], rates.tolist(), strict=True)),
    ), found  # fmt: skip


class SweepLines:
    """One line per campaign that begins, ends or fails."""

    def __init__(self, sweep: Sweep, out: IO[str]) -> None:
        self.sweep, self._out = sweep, out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        """A line."""
        print(f"lmfuzz: {line}", file=self._out, flush=True)

    def begun(self, cell: Cell, again: bool) -> None:
        """A campaign begins, or goes on."""
        self.say(f"{'goes on' if again else 'begins'}: {escape(cell.name)}")

    def ended(self, cell: Cell) -> None:
        """A campaign is at its end."""
        one = self.sweep.done[cell]
        self.say(
            f"{len(self.sweep.done)} of {len(self.sweep.cells)} done: {escape(cell.name)}: {one.executions} "
            f"executions in {format_duration(one.seconds)}, {plural(len(one.first), 'bucket')}"
        )

    def failed(self, failure: Failure) -> None:
        """A campaign could not be run."""
        self.say(f"failed: {escape(failure.cell.name)}: {escape(failure.words)}")

    def tick(self) -> None:
        """Nothing to say."""


class SweepTable(SweepLines):
    """The same lines, above a table of the settings that is drawn anew every second."""

    def __init__(self, sweep: Sweep, console: Console) -> None:
        super().__init__(sweep, console.file)
        self._console, self._last = console, 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """A line above the table."""
        self._console.print(Text(f"lmfuzz: {line}"))

    def tick(self) -> None:
        """A new table when the last one is old."""
        if (now := time.perf_counter()) - self._last >= REFRESH:
            self._last = now
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
        narrow = self._console.width < WIDE
        for name in COLUMNS[: 5 if narrow else 6]:
            table.add_column(name, header_style="dim", no_wrap=True)
        rows = list(self._rows())
        shown = rows[: max(3, self._console.height - ROOM)]
        for row in shown:
            table.add_row(*map(Text, row[:5] if narrow else row))
        more = f"and {len(rows) - len(shown)} settings more; " if len(rows) > len(shown) else ""
        done, whole = len(self.sweep.done), len(self.sweep.cells)
        table.caption = f"{more}{done} of {plural(whole, 'campaign')} done, {len(self.sweep.running)} running"
        return table

    def _rows(self) -> Iterator[list[str]]:
        """A row per setting; those with campaigns under way first."""
        settings: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
        for cell in self.sweep.cells:
            settings.setdefault(cell.labels, []).append(cell)
        under_way = {cell.labels for cell in self.sweep.running}
        for labels, cells in sorted(settings.items(), key=lambda pair: pair[0] not in under_way):
            ended = [self.sweep.done[cell] for cell in cells if cell in self.sweep.done]
            now = [cell for cell in cells if cell in self.sweep.running]
            name = " ".join(f"{axis}={value}" for axis, value in labels) or "all"
            yield [
                shorten(name, max(16, self._console.width // 3))[1:-1],
                f"{len(ended)}/{len(cells)}", f"{len(now) or ''}",
                f"{sum(len(one.first) for one in ended) / len(ended):.1f}" if ended else "",
                ", ".join(map(self._progress, now[:2])),
                f"{sum(one.executions for one in ended) / len(ended):.0f}" if ended else "",
            ]  # fmt: skip

    def _progress(self, cell: Cell) -> str:
        """How far a campaign under way is, as of its last commit."""
        directory = self.sweep.directory(cell)
        try:
            return f"{cell.spec.seed}: {_look(directory)[0].share if has_commit(directory) else 0:.0%}"
        except Exception:  # the sweep says why when its process has ended
            return f"{cell.spec.seed}: ?"


def sweep_view(sweep: Sweep, out: IO[str]) -> SweepLines:
    """A table where ``out`` is a terminal that can show one, else lines."""
    console = Console(file=out, highlight=False, markup=False)
    alive = console.is_terminal and not console.is_dumb_terminal
    return SweepTable(sweep, console) if alive else SweepLines(sweep, out)
