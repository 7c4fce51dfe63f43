"""Looking on from outside: at a campaign that another process runs, and at the campaigns of a sweep."""

import time
from collections.abc import Iterator
from pathlib import Path
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
LAST = 10  # findings that were there before somebody looked
COLUMNS = ("setting", "done", "running", "buckets", "under way", "executions")
ROOM = 8  # lines of a terminal that the table of a sweep leaves free


def follow(directory: Path, out: IO[str]) -> CampaignRecord:
    """Show what the campaign in ``directory`` does until no process works on it; how it stood then.

    The database is open for moments only. UsageError when there is no campaign.
    """
    record = CampaignRecord.read(directory)
    seen = max(0, len(record.findings) - LAST)
    with CampaignView(lambda: record, console(out)) as shown:
        while True:
            alive = running(directory)  # before the look, so that the last one sees the end
            record = CampaignRecord.read(directory)
            for number, finding in enumerate(record.findings[seen:], start=seen + 1):
                shown.found(number, finding)
            if not alive:
                return record
            seen = len(record.findings)
            shown.step()
            time.sleep(EVERY)


class SweepView(View):
    """A sweep: a line per campaign that begins, ends or fails, and at a terminal a table of the settings."""

    def __init__(self, sweep: Sweep, console: Console) -> None:
        super().__init__(console, EVERY)
        self.sweep = sweep

    def begun(self, cell: Cell, again: bool) -> None:
        """A campaign begins, or goes on."""
        self.note(f"{'goes on' if again else 'begins'}: {escape(cell.name)}")

    def ended(self, cell: Cell) -> None:
        """A campaign is at its end."""
        one = self.sweep.done[cell]
        self.note(
            f"{len(self.sweep.done)} of {len(self.sweep.cells)} done: {escape(cell.name)}: {one.executions} "
            f"executions in {format_duration(one.seconds)}, {plural(len(one.first), 'bucket')}"
        )

    def failed(self, failure: Failure) -> None:
        """A campaign could not be run."""
        self.note(f"failed: {escape(failure.cell.name)}: {escape(failure.words)}")

    def picture(self) -> Table:
        """A row per setting, as many as there is room for."""
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
                cut(escape(name), max(16, self._console.width // 3)),
                f"{len(ended)}/{len(cells)}", f"{len(now) or ''}",
                f"{sum(len(one.first) for one in ended) / len(ended):.1f}" if ended else "",
                ", ".join(map(self._progress, now[:2])),
                f"{sum(one.executions for one in ended) / len(ended):.0f}" if ended else "",
            ]  # fmt: skip

    def _progress(self, cell: Cell) -> str:
        """How far a campaign under way is, as of its last commit."""
        directory = self.sweep.directory(cell)
        try:
            share = CampaignRecord.read(directory).budget.share() if has_commit(directory) else 0
            return f"{cell.spec.seed}: {share:.0%}"
        except Exception:  # the sweep says why when its process has ended
            return f"{cell.spec.seed}: ?"
