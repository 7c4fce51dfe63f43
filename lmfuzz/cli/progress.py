"""The view of a running campaign: live in a terminal, a line every few seconds elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import IO, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmfuzz.campaign.campaign import Campaign, Observer
from lmfuzz.storage.record import Progress
from lmfuzz.text import MARKS, bucket_title, cut, escape, excerpt, finding_line, format_duration, plural
from lmfuzz.types import Finding, Step

EVERY = 5.0  # seconds between lines
REFRESH = 0.5  # seconds between pictures: one takes some 5 ms, so they cost about 1 %
WINDOW = 10.0  # seconds over which speed and novelty are averaged
BUCKETS, OPERATORS = 10, 8  # rows of the live view's tables
WIDE = 90  # columns that a terminal needs to show these tables

Look = Callable[[], Progress]


def progress_of(c: Campaign) -> Progress:
    """Return how a campaign of this process stands."""
    measured, cost, tally = asdict(c.calibration), c.budget.calibration, replace(c.tally)
    executions, seconds, inside = c.executor.executions, c.budget.elapsed(), c.executor.seconds
    rows, states, kept, hits = len(c.corpus), len(c.archive), c.findings.kept, c.findings.hits
    return Progress(
        c.spec, c.operators, measured, cost, executions, seconds, inside, rows, states, tally, kept, hits
    )


class View:
    """Show lines and, in a terminal, a picture below them that is redrawn often; a context manager."""

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
        """Print a line."""
        if self._live:
            self._console.print(Text(f"lmfuzz: {line}"))
        else:
            print(f"lmfuzz: {line}", file=self._console.file, flush=True)

    def tick(self) -> bool:
        """Redraw an old picture; outside a terminal, return whether another line is due."""
        if (now := time.perf_counter()) - self._last < self._every:
            return False
        self._last = now
        if self._live:
            self._live.update(self.picture(), refresh=True)
        return not self._live

    def picture(self) -> RenderableType:
        """Return what is drawn."""
        raise NotImplementedError


class CampaignView(View, Observer):
    """Show a campaign: each finding as it comes, and how the campaign stands."""

    def __init__(self, look: Look, console: Console) -> None:
        super().__init__(console)
        self._look, self._marks = look, deque([before := look()])
        self._shown, self._named = before.finding_count, set(before.kept)  # what was printed
        if not self._live:
            self._every, self._last = EVERY, time.perf_counter()

    def found(self, number: int, finding: Finding) -> None:
        """Print the finding on a line; in a terminal its bad part is red, or marked if without colours."""
        self._shown = max(self._shown, number)
        self._named.add(finding.bucket)
        if not self._live:
            self.note(finding_line(number, finding))
            return
        self._live.update(self.picture(), refresh=True)  # what is drawn below the line counts it
        plain = self._console.no_color or self._console.color_system is None
        marks = MARKS if plain else ("", "")
        confirmed = finding.label == "confirmed"
        label = "" if confirmed else f" ({finding.label})"
        bucket = cut(bucket_title(finding.bucket), max(12, self._console.width // 4))
        left = self._console.width - len(f"{number:>4} {bucket}{label}   -> ") - 4  # the quotes
        width = max(8, left // 3 if left > 45 else left // 4)
        before, bad, after = excerpt(finding, max(8, left - width - 12 - 2 * len(marks[0])), least=3)
        head = (f"{number:>4} ", "dim"), (bucket, "bold" if confirmed else "yellow"), label
        prompt = f'  "{cut(escape(finding.prompt), width)}" '
        marked = f"{marks[0]}{bad}{marks[1]}" if bad else "", "bold red"
        line = Text.assemble(*head, prompt, ("-> ", "dim"), f'"{before}', marked, f'{after}"')
        self._console.print(line, no_wrap=True, overflow="ellipsis")

    def step(self, step: Step | None = None) -> None:
        """Show a new picture or line if the last one is old."""
        if self.tick():
            s = self._now()
            speed, novelty = self._pace()
            self.note(
                f"{s.seconds:.0f} s, {s.executions} executions, {speed:.0f}/s, "
                f"corpus {s.corpus_size}, archive {s.archive_size}, novel {novelty:.1%}, "
                f"{plural(self._shown, 'finding')} in {plural(len(self._named), 'bucket')}"
            )

    def _now(self) -> Progress:
        self._marks.append(now := self._look())
        while len(self._marks) > 2 and now.seconds - self._marks[1].seconds > WINDOW:
            self._marks.popleft()
        return now

    def _pace(self) -> tuple[float, float]:
        """The executions per second, and the share of novel rows, over the last ten seconds."""
        first, last = self._marks[0], self._marks[-1]
        speed = (last.executions - first.executions) / max(1e-9, last.seconds - first.seconds)
        return speed, (last.tally.novel - first.tally.novel) / max(1, last.tally.rows - first.tally.rows)

    def picture(self) -> RenderableType:
        """Return the campaign's numbers and, for a wide terminal, its operators and buckets."""
        s = self._now()
        tables = Table.grid(padding=(0, 4))
        wide = self._console.width >= WIDE
        tables.add_row(self._numbers(s), *((self._yields(s), self._buckets(s)) if wide else ()))
        budget = Table.grid(padding=(0, 1))
        left = Text(f"{format_duration(s.seconds)} of {s.spec.budget}", "dim")
        width = max(5, min(40, self._console.width - len(left) - 2))
        budget.add_row(ProgressBar(1.0, s.budget.share(), width), left)
        return Group(Text(""), tables, Text(""), budget)

    def _numbers(self, s: Progress) -> Table:
        speed, novelty = self._pace()
        numbers = {
            "executions": f"{s.executions}",
            "executions/s": f"{speed:.0f}",
            "corpus": f"{s.corpus_size}",
            "archive": f"{s.archive_size}",
            "novel": f"{novelty:.1%}",
            "stability": f"{s.calibration['stability']:.0%}",
            "last new state": f"{format_duration(s.seconds - s.tally.last_novel)} ago",
            "in the target": f"{s.time_in_target / max(1e-9, s.seconds):.0%}",
            "findings": f"{self._shown} in {plural(len(self._named), 'bucket')}",
        }
        return _grid([(Text(name, "dim"), Text(value)) for name, value in numbers.items()])

    def _yields(self, s: Progress) -> Table:
        """The operators with the largest share of mutants that were novel or hits."""
        yields = sorted(zip(s.operators, s.tally.yields.tolist(), strict=True), key=lambda pair: -pair[1])
        rows = [(Text(cut(escape(name), 16)), Text(f"{rate:.1f}")) for name, rate in yields[:OPERATORS]]
        return _grid([(Text("yield per 1 000", "dim"), Text()), *rows])

    def _buckets(self, s: Progress) -> Table:
        """The buckets with the most hits."""
        width = max(16, min(40, self._console.width - WIDE + 16))
        largest = Counter(s.hits).most_common(BUCKETS)
        rows = [(Text(f"{hits}"), Text(cut(bucket_title(bucket), width))) for bucket, hits in largest]
        more = Text(f"and {len(s.hits) - BUCKETS} more", "dim")
        head = Text("hits", "dim"), Text("bucket", "dim")
        return _grid([head, *rows, *([(Text(), more)] if len(s.hits) > BUCKETS else [])])


def _grid(rows: Iterable[tuple[Text, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return table


def watch(campaign: Campaign, out: IO[str]) -> CampaignView:
    """Return the view of a campaign of this process."""
    return CampaignView(partial(progress_of, campaign), console(out))


def console(out: IO[str]) -> Console:
    """Return a console that draws on ``out`` and does not interpret the text."""
    return Console(file=out, highlight=False, markup=False)
