"""What a campaign shows while it runs: a live view at a terminal, one line every few seconds elsewhere."""

import time
from collections import deque
from types import TracebackType
from typing import IO, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmfuzz.campaign import Campaign
from lmfuzz.findings import Finding
from lmfuzz.loop import Step
from lmfuzz.show import AFTER, BEFORE, counted, duration, line, pieces, shortened, title

EVERY = 5.0  # seconds between lines
REFRESH = 0.5  # seconds between pictures: one takes some 5 ms, so they cost about 1 %
WINDOW = 10.0  # seconds that speed and novelty are averaged over
BUCKETS, OPERATORS = 10, 8  # rows of the live view's tables
WIDE = 90  # columns of a terminal that has room for these tables


class Pace:
    """Executions per second and the share of novel rows, over the last ten seconds."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._marks: deque[tuple[float, int, int, int]] = deque()
        self.mark()

    def mark(self) -> None:
        """Take note of now."""
        c = self._campaign
        self._marks.append((time.perf_counter(), c.executor.executions, c.tally.rows, c.tally.novel))
        while len(self._marks) > 2 and self._marks[-1][0] - self._marks[1][0] > WINDOW:
            self._marks.popleft()

    @property
    def speed(self) -> float:
        """Executions per second."""
        first, last = self._marks[0], self._marks[-1]
        return (last[1] - first[1]) / max(1e-9, last[0] - first[0])

    @property
    def novelty(self) -> float:
        """The share of rows that were novel."""
        first, last = self._marks[0], self._marks[-1]
        return (last[3] - first[3]) / max(1, last[2] - first[2])


class Lines:
    """One line per finding, and one every few seconds, for pipes and logs."""

    def __init__(self, campaign: Campaign, out: IO[str]) -> None:
        self._campaign, self._out = campaign, out
        self._pace = Pace(campaign)
        self._last = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note(self, line: str) -> None:
        """A line of its own."""
        print(f"lmfuzz: {line}", file=self._out, flush=True)

    def found(self, number: int, finding: Finding) -> None:
        """The finding on a line."""
        self.note(line(number, finding))

    def step(self, step: Step) -> None:
        """A line when the last one is some seconds old."""
        now = time.perf_counter()
        if now - self._last < EVERY:
            return
        self._last = now
        self._pace.mark()
        c = self._campaign
        findings = f"{counted(len(c.kept), 'finding')} in {counted(len(c.findings.kept), 'bucket')}"
        self.note(
            f"{c.budget.elapsed():.0f} s, {step.executions} executions, {self._pace.speed:.0f}/s, "
            f"corpus {len(c.corpus)}, archive {len(c.archive)}, "
            f"novel {self._pace.novelty:.1%}, {findings}"
        )


class Screen:
    """A picture of the campaign that is drawn anew twice a second, below the findings as they come."""

    def __init__(self, campaign: Campaign, console: Console) -> None:
        self._campaign, self._console = campaign, console
        self._pace = Pace(campaign)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._last = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, line: str) -> None:
        """A line above the picture."""
        self._console.print(Text(f"lmfuzz: {line}"))

    def found(self, number: int, finding: Finding) -> None:
        """The finding on a line above the picture, its bad part in red, or between marks without colours."""
        plain = self._console.no_color or self._console.color_system is None
        marks = (BEFORE, AFTER) if plain else ("", "")
        confirmed = finding.label == "confirmed"
        label = "" if confirmed else f" ({finding.label})"
        bucket = shortened(title(finding.bucket), max(12, self._console.width // 4))[1:-1]
        left = self._console.width - len(f"{number:>4} {bucket}{label}   -> ") - 4  # the quotes
        room = max(8, left // 3 if left > 45 else left // 4)
        before, bad, after = pieces(finding, max(8, left - room - 12 - 2 * len(marks[0])), least=3)
        self._console.print(
            Text.assemble(
                (f"{number:>4} ", "dim"),
                (bucket, "bold" if confirmed else "yellow"),
                f"{label}  {shortened(finding.prompt, room)} ",
                ("-> ", "dim"),
                f'"{before}',
                (f"{marks[0]}{bad}{marks[1]}" if bad else "", "bold red"),
                f'{after}"',
            ),
            no_wrap=True,
            overflow="ellipsis",
        )

    def step(self, step: Step) -> None:
        """A new picture when the last one is half a second old."""
        now = time.perf_counter()
        if now - self._last >= REFRESH:
            self._last = now
            self._pace.mark()
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        tables = Table.grid(padding=(0, 4))
        wide = self._console.width >= WIDE
        tables.add_row(self._numbers(), *((self._yields(), self._buckets()) if wide else ()))
        budget = Table.grid(padding=(0, 1))
        c = self._campaign
        left = Text(f"{duration(c.budget.elapsed())} of {c.spec.budget}", "dim")
        budget.add_row(
            ProgressBar(
                total=1.0,
                completed=c.budget.share(),
                width=max(5, min(40, self._console.width - len(left) - 2)),
            ),
            left,
        )
        return Group(Text(""), tables, Text(""), budget)

    def _numbers(self) -> Table:
        c = self._campaign
        since = c.budget.elapsed() - c.tally.last_novel
        table = Table.grid(padding=(0, 2))
        for name, value in (
            ("executions", f"{c.executor.executions}"),
            ("executions/s", f"{self._pace.speed:.0f}"),
            ("corpus", f"{len(c.corpus)}"),
            ("archive", f"{len(c.archive)}"),
            ("novel", f"{self._pace.novelty:.1%}"),
            ("stability", f"{c.calibration.stability:.0%}"),
            ("last new state", f"{duration(since)} ago"),
            ("in the target", f"{c.executor.seconds / max(1e-9, c.budget.elapsed()):.0%}"),
            ("findings", f"{len(c.kept)} in {counted(len(c.findings.kept), 'bucket')}"),
        ):
            table.add_row(Text(name, "dim"), Text(value))
        return table

    def _yields(self) -> Table:
        """Operators by how many of 1 000 mutants were novel or hits."""
        tally = self._campaign.tally
        rates = 1000 * tally.fruitful / tally.mutants.clip(1)
        best = sorted(zip(self._campaign.operators, rates.tolist(), strict=True), key=lambda pair: -pair[1])
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("yield per 1 000", "dim"), "")
        for name, rate in best[:OPERATORS]:
            table.add_row(Text(shortened(name, 16)[1:-1]), Text(f"{rate:.1f}"))
        return table

    def _buckets(self) -> Table:
        """Buckets by hits."""
        hits = self._campaign.findings.hits
        room = max(16, min(40, self._console.width - WIDE + 16))
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("hits", "dim"), Text("bucket", "dim"))
        for bucket, count in hits.most_common(BUCKETS):
            table.add_row(Text(f"{count}"), Text(shortened(title(bucket), room)[1:-1]))
        if len(hits) > BUCKETS:
            table.add_row("", Text(f"and {len(hits) - BUCKETS} more", "dim"))
        return table


def watch(campaign: Campaign, out: IO[str]) -> Lines | Screen:
    """The live view where ``out`` is a terminal that can show one, else lines."""
    console = Console(file=out, highlight=False, markup=False)
    return (
        Screen(campaign, console)
        if console.is_terminal and not console.is_dumb_terminal
        else Lines(campaign, out)
    )
