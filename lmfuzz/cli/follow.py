"""Views of other processes: of a campaign that one runs, and of the campaigns of a sweep."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmfuzz.analysis.sweep import Cell, Failure, Sweep
from lmfuzz.cli.progress import WIDE, CampaignView, View, console
from lmfuzz.storage.directory import has_commit, running
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import cut, escape, format_duration, plural

EVERY = 1.0  # seconds between looks at a campaign, and between pictures of a sweep
LAST = 10  # earlier findings that are shown at the beginning
COLUMNS = ("setting", "done", "running", "buckets", "under way", "executions")
FREE = 8  # lines of a terminal that the table of a sweep leaves free


def follow(directory: Path, out: IO[str]) -> CampaignRecord:
    """Show the campaign in ``directory`` until no process works on it, and return how it stood then.

    The database is open for moments only.

    Raises:
        UsageError: there is no campaign.
    """
    record = CampaignRecord.read(directory)
    seen = max(0, len(record.findings) - LAST)
    with CampaignView(lambda: record, console(out)) as shown:
        while True:
            alive = running(directory)  # asked first, so that the last look sees the end
            record = CampaignRecord.read(directory)
            for number, finding in enumerate(record.findings[seen:], start=seen + 1):
                shown.found(number, finding)
            if not alive:
                return record
            seen = len(record.findings)
            shown.step()
            time.sleep(EVERY)


class SweepView(View):
    """Show a sweep: a line for each campaign that begins, ends or fails, and a table in a terminal."""

    def __init__(self, sweep: Sweep, console: Console) -> None:
        super().__init__(console, EVERY)
        self.sweep = sweep

    def begun(self, cell: Cell, again: bool) -> None:
        """Print that a campaign begins, or goes on."""
        self.note(f"{'goes on' if again else 'begins'}: {escape(cell.name)}")

    def ended(self, cell: Cell) -> None:
        """Print that a campaign ended."""
        one = self.sweep.done[cell]
        self.note(
            f"{len(self.sweep.done)} of {len(self.sweep.cells)} done: {escape(cell.name)}: {one.executions} "
            f"executions in {format_duration(one.seconds)}, {plural(len(one.first), 'bucket')}"
        )

    def failed(self, failure: Failure) -> None:
        """Print that a campaign could not be run."""
        self.note(f"failed: {escape(failure.cell.name)}: {escape(failure.words)}")

    def picture(self) -> Table:
        """Return a table with a row for each setting, as many as the terminal can show."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
        narrow = self._console.width < WIDE
        for name in COLUMNS[: 5 if narrow else 6]:
            table.add_column(name, header_style="dim", no_wrap=True)
        rows = list(self._rows())
        shown = rows[: max(3, self._console.height - FREE)]
        for row in shown:
            table.add_row(*map(Text, row[:5] if narrow else row))
        more = f"and {len(rows) - len(shown)} more settings; " if len(rows) > len(shown) else ""
        done, whole = len(self.sweep.done), len(self.sweep.cells)
        table.caption = f"{more}{done} of {plural(whole, 'campaign')} done, {len(self.sweep.running)} running"
        return table

    def _rows(self) -> Iterator[list[str]]:
        """The rows, those of settings with running campaigns first."""
        settings: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
        for cell in self.sweep.cells:
            settings.setdefault(cell.labels, []).append(cell)
        under_way = {cell.labels for cell in self.sweep.running}
        for labels, cells in sorted(settings.items(), key=lambda pair: pair[0] not in under_way):
            ended = [self.sweep.done[cell] for cell in cells if cell in self.sweep.done]
            now = [cell for cell in cells if cell in self.sweep.running]
            name = " ".join(f"{axis}={value}" for axis, value in labels) or "all"
            title = cut(escape(name), max(16, self._console.width // 3))
            buckets = f"{fmean(len(one.first) for one in ended):.1f}" if ended else ""
            executions = f"{fmean(one.executions for one in ended):.0f}" if ended else ""
            done, progress = f"{len(ended)}/{len(cells)}", ", ".join(map(self._progress, now[:2]))
            yield [title, done, f"{len(now) or ''}", buckets, progress, executions]

    def _progress(self, cell: Cell) -> str:
        """How far a running campaign is, as of its last commit."""
        directory = self.sweep.directory(cell)
        try:
            share = CampaignRecord.read(directory).budget.share() if has_commit(directory) else 0
            return f"{cell.spec.seed}: {share:.0%}"
        except Exception:  # the sweep reports the reason when the process has ended
            return f"{cell.spec.seed}: ?"
