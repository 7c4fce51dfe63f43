"""What a campaign shows while it runs: a live view at a terminal, one line every few seconds elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import IO, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmfuzz.campaign.campaign import Campaign
from lmfuzz.text import AFTER, BEFORE, bucket_title, excerpt, finding_line, format_duration, plural, shorten
from lmfuzz.types import Finding, Step

EVERY = 5.0  # seconds between lines
REFRESH = 0.5  # seconds between pictures: one takes some 5 ms, so they cost about 1 %
WINDOW = 10.0  # seconds that speed and novelty are averaged over
BUCKETS, OPERATORS = 10, 8  # rows of the live view's tables
WIDE = 90  # columns of a terminal that has room for these tables


@dataclass(frozen=True, slots=True)
class Progress:
    """How a campaign stands; ``yields``: operator -> how many of 1 000 mutants were novel or hits."""

    executions: int
    seconds: float
    in_target: float  # seconds
    budget: str
    share: float  # of the budget that is spent
    corpus: int
    archive: int
    rows: int
    novel: int  # rows
    last_novel: float  # seconds of the campaign
    stability: float
    findings: int
    buckets: int
    hits: Counter[str]
    yields: dict[str, float]

    @property
    def found(self) -> str:
        """Findings and buckets in words."""
        return f"{plural(self.findings, 'finding')} in {plural(self.buckets, 'bucket')}"


Look = Callable[[], Progress]


def standing(c: Campaign) -> Progress:
    """How a campaign of this process stands."""
    rates = 1000 * c.tally.fruitful / c.tally.mutants.clip(1)
    return Progress(
        c.executor.executions, c.budget.elapsed(), c.executor.seconds, c.spec.budget, c.budget.share(),
        len(c.corpus), len(c.archive), c.tally.rows, c.tally.novel, c.tally.last_novel,
        c.calibration.stability, len(c.kept), len(c.findings.kept), c.findings.hits,
        dict(zip(c.operators, rates.tolist(), strict=True)),
    )  # fmt: skip


class Pace:
    """Executions per second and the share of novel rows, over the last ten seconds."""

    def __init__(self, first: Progress) -> None:
        self._marks = deque([first])

    def mark(self, now: Progress) -> None:
        """Take note of how it stands."""
        self._marks.append(now)
        while len(self._marks) > 2 and now.seconds - self._marks[1].seconds > WINDOW:
            self._marks.popleft()

    @property
    def speed(self) -> float:
        """Executions per second."""
        first, last = self._marks[0], self._marks[-1]
        return (last.executions - first.executions) / max(1e-9, last.seconds - first.seconds)

    @property
    def novelty(self) -> float:
        """The share of rows that were novel."""
        first, last = self._marks[0], self._marks[-1]
        return (last.novel - first.novel) / max(1, last.rows - first.rows)


class Lines:
    """One line per finding, and one every few seconds, for pipes and logs."""

    def __init__(self, look: Look, out: IO[str]) -> None:
        self._look, self._out = look, out
        self._pace = Pace(look())
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
        self.note(finding_line(number, finding))

    def step(self, step: Step | None = None) -> None:
        """A line when the last one is some seconds old."""
        now = time.perf_counter()
        if now - self._last < EVERY:
            return
        self._last = now
        s = self._look()
        self._pace.mark(s)
        self.note(
            f"{s.seconds:.0f} s, {s.executions} executions, {self._pace.speed:.0f}/s, "
            f"corpus {s.corpus}, archive {s.archive}, novel {self._pace.novelty:.1%}, {s.found}"
        )


class Screen:
    """A picture of the campaign that is drawn anew twice a second, below the findings as they come."""

    def __init__(self, look: Look, console: Console) -> None:
        self._look, self._console = look, console
        self._pace = Pace(look())
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
        bucket = shorten(bucket_title(finding.bucket), max(12, self._console.width // 4))[1:-1]
        left = self._console.width - len(f"{number:>4} {bucket}{label}   -> ") - 4  # the quotes
        room = max(8, left // 3 if left > 45 else left // 4)
        before, bad, after = excerpt(finding, max(8, left - room - 12 - 2 * len(marks[0])), least=3)
        self._console.print(
            Text.assemble(
                (f"{number:>4} ", "dim"),
                (bucket, "bold" if confirmed else "yellow"),
                f"{label}  {shorten(finding.prompt, room)} ",
                ("-> ", "dim"),
                f'"{before}',
                (f"{marks[0]}{bad}{marks[1]}" if bad else "", "bold red"),
                f'{after}"',
            ),
            no_wrap=True,
            overflow="ellipsis",
        )

    def step(self, step: Step | None = None) -> None:
        """A new picture when the last one is half a second old."""
        now = time.perf_counter()
        if now - self._last >= REFRESH:
            self._last = now
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        s = self._look()
        self._pace.mark(s)
        tables = Table.grid(padding=(0, 4))
        wide = self._console.width >= WIDE
        tables.add_row(self._numbers(s), *((self._yields(s), self._buckets(s)) if wide else ()))
        budget = Table.grid(padding=(0, 1))
        left = Text(f"{format_duration(s.seconds)} of {s.budget}", "dim")
        budget.add_row(
            ProgressBar(
                total=1.0,
                completed=s.share,
                width=max(5, min(40, self._console.width - len(left) - 2)),
            ),
            left,
        )
        return Group(Text(""), tables, Text(""), budget)

    def _numbers(self, s: Progress) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, value in (
            ("executions", f"{s.executions}"),
            ("executions/s", f"{self._pace.speed:.0f}"),
            ("corpus", f"{s.corpus}"),
            ("archive", f"{s.archive}"),
            ("novel", f"{self._pace.novelty:.1%}"),
            ("stability", f"{s.stability:.0%}"),
            ("last new state", f"{format_duration(s.seconds - s.last_novel)} ago"),
            ("in the target", f"{s.in_target / max(1e-9, s.seconds):.0%}"),
            ("findings", f"{s.findings} in {plural(s.buckets, 'bucket')}"),
        ):
            table.add_row(Text(name, "dim"), Text(value))
        return table

    def _yields(self, s: Progress) -> Table:
        """Operators by how many of 1 000 mutants were novel or hits."""
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("yield per 1 000", "dim"), "")
        for name, rate in sorted(s.yields.items(), key=lambda pair: -pair[1])[:OPERATORS]:
            table.add_row(Text(shorten(name, 16)[1:-1]), Text(f"{rate:.1f}"))
        return table

    def _buckets(self, s: Progress) -> Table:
        """Buckets by hits."""
        room = max(16, min(40, self._console.width - WIDE + 16))
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("hits", "dim"), Text("bucket", "dim"))
        for bucket, count in s.hits.most_common(BUCKETS):
            table.add_row(Text(f"{count}"), Text(shorten(bucket_title(bucket), room)[1:-1]))
        if len(s.hits) > BUCKETS:
            table.add_row("", Text(f"and {len(s.hits) - BUCKETS} more", "dim"))
        return table


def watch(campaign: Campaign, out: IO[str]) -> Lines | Screen:
    """The live view where ``out`` is a terminal that can show one, else lines."""
    return view(partial(standing, campaign), out)


def view(look: Look, out: IO[str]) -> Lines | Screen:
    """The view of whatever ``look`` says how it stands."""
    console = Console(file=out, highlight=False, markup=False)
    alive = console.is_terminal and not console.is_dumb_terminal
    return Screen(look, console) if alive else Lines(look, out)
