"""What is shown while campaigns run: a live view at a terminal, one line every few seconds elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import IO, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmfuzz.campaign.campaign import Campaign, Observer
from lmfuzz.storage.record import Standing
from lmfuzz.text import MARKS, bucket_title, cut, escape, excerpt, finding_line, format_duration, plural
from lmfuzz.types import Finding, Step

EVERY = 5.0  # seconds between lines
REFRESH = 0.5  # seconds between pictures: one takes some 5 ms, so they cost about 1 %
WINDOW = 10.0  # seconds that speed and novelty are averaged over
BUCKETS, OPERATORS = 10, 8  # rows of the live view's tables
WIDE = 90  # columns of a terminal that has room for these tables


Look = Callable[[], Standing]


def standing(c: Campaign) -> Standing:
    """How a campaign of this process stands."""
    return Standing(
        c.spec, c.operators, asdict(c.calibration), c.budget.calibration, c.executor.executions,
        c.budget.elapsed(), c.executor.seconds, len(c.corpus), len(c.archive), replace(c.tally),
        c.findings.kept, c.findings.hits,
    )  # fmt: skip


class Pace:
    """Executions per second and the share of novel rows, over the last ten seconds."""

    def __init__(self, first: Standing) -> None:
        self._marks = deque([first])

    def mark(self, now: Standing) -> None:
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
        return (last.tally.novel - first.tally.novel) / max(1, last.tally.rows - first.tally.rows)


class View:
    """Lines, and at a terminal a picture below them that is drawn again and again; a context manager."""

    def __init__(self, console: Console, every: float = REFRESH) -> None:
        self._console, self._every, self._last = console, every, 0.0
        alive = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if alive else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, line: str) -> None:
        """A line of its own."""
        if self._live:
            self._console.print(Text(f"lmfuzz: {line}"))
        else:
            print(f"lmfuzz: {line}", file=self._console.file, flush=True)

    def tick(self) -> bool:
        """Draw again, or say that there may be another line, when the last picture or line is old."""
        if (now := time.perf_counter()) - self._last < self._every:
            return False
        self._last = now
        if self._live:
            self._live.update(self.picture(), refresh=True)
        return not self._live

    def picture(self) -> RenderableType:
        """What is drawn."""
        raise NotImplementedError


class CampaignView(View, Observer):
    """A campaign: its findings as they come, and how it stands."""

    def __init__(self, look: Look, console: Console) -> None:
        super().__init__(console)
        self._look, self._pace = look, Pace(look())
        if not self._live:
            self._every, self._last = EVERY, time.perf_counter()

    def found(self, number: int, finding: Finding) -> None:
        """The finding on a line, at a terminal its bad part in red, or between marks without colours."""
        if not self._live:
            self.note(finding_line(number, finding))
            return
        plain = self._console.no_color or self._console.color_system is None
        marks = MARKS if plain else ("", "")
        confirmed = finding.label == "confirmed"
        label = "" if confirmed else f" ({finding.label})"
        bucket = cut(bucket_title(finding.bucket), max(12, self._console.width // 4))
        left = self._console.width - len(f"{number:>4} {bucket}{label}   -> ") - 4  # the quotes
        room = max(8, left // 3 if left > 45 else left // 4)
        before, bad, after = excerpt(finding, max(8, left - room - 12 - 2 * len(marks[0])), least=3)
        self._console.print(
            Text.assemble(
                (f"{number:>4} ", "dim"),
                (bucket, "bold" if confirmed else "yellow"),
                f'{label}  "{cut(escape(finding.prompt), room)}" ',
                ("-> ", "dim"),
                f'"{before}',
                (f"{marks[0]}{bad}{marks[1]}" if bad else "", "bold red"),
                f'{after}"',
            ),
            no_wrap=True,
            overflow="ellipsis",
        )

    def step(self, step: Step | None = None) -> None:
        """A new picture, or line, when the last one is old."""
        if self.tick():
            s = self._now()
            self.note(
                f"{s.seconds:.0f} s, {s.executions} executions, {self._pace.speed:.0f}/s, "
                f"corpus {s.corpus_size}, archive {s.archive_size}, novel {self._pace.novelty:.1%}, "
                f"{plural(s.finding_count, 'finding')} in {plural(len(s.kept), 'bucket')}"
            )

    def _now(self) -> Standing:
        self._pace.mark(now := self._look())
        return now

    def picture(self) -> RenderableType:
        """Its numbers, and on a wide terminal its operators and buckets."""
        s = self._now()
        tables = Table.grid(padding=(0, 4))
        wide = self._console.width >= WIDE
        tables.add_row(self._numbers(s), *((self._yields(s), self._buckets(s)) if wide else ()))
        budget = Table.grid(padding=(0, 1))
        left = Text(f"{format_duration(s.seconds)} of {s.spec.budget}", "dim")
        width = max(5, min(40, self._console.width - len(left) - 2))
        budget.add_row(ProgressBar(1.0, s.budget.share(), width), left)
        return Group(Text(""), tables, Text(""), budget)

    def _numbers(self, s: Standing) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, value in (
            ("executions", f"{s.executions}"),
            ("executions/s", f"{self._pace.speed:.0f}"),
            ("corpus", f"{s.corpus_size}"),
            ("archive", f"{s.archive_size}"),
            ("novel", f"{self._pace.novelty:.1%}"),
            ("stability", f"{s.calibration['stability']:.0%}"),
            ("last new state", f"{format_duration(s.seconds - s.tally.last_novel)} ago"),
            ("in the target", f"{s.time_in_target / max(1e-9, s.seconds):.0%}"),
            ("findings", f"{s.finding_count} in {plural(len(s.kept), 'bucket')}"),
        ):
            table.add_row(Text(name, "dim"), Text(value))
        return table

    def _yields(self, s: Standing) -> Table:
        """Operators by how many of 1 000 mutants were novel or hits."""
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("yield per 1 000", "dim"), "")
        yields = zip(s.operators, s.tally.yields.tolist(), strict=True)
        for name, rate in sorted(yields, key=lambda pair: -pair[1])[:OPERATORS]:
            table.add_row(Text(cut(escape(name), 16)), Text(f"{rate:.1f}"))
        return table

    def _buckets(self, s: Standing) -> Table:
        """Buckets by hits."""
        room = max(16, min(40, self._console.width - WIDE + 16))
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("hits", "dim"), Text("bucket", "dim"))
        for bucket, count in Counter(s.hits).most_common(BUCKETS):
            table.add_row(Text(f"{count}"), Text(cut(bucket_title(bucket), room)))
        if len(s.hits) > BUCKETS:
            table.add_row("", Text(f"and {len(s.hits) - BUCKETS} more", "dim"))
        return table


def watch(campaign: Campaign, out: IO[str]) -> CampaignView:
    """The view of a campaign of this process."""
    return CampaignView(partial(standing, campaign), console(out))


def console(out: IO[str]) -> Console:
    """What draws on ``out``, and takes no text for more than that."""
    return Console(file=out, highlight=False, markup=False)
