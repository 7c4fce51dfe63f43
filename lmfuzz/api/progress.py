"""The progress bar of campaigns that run from Python, in a terminal or a notebook."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lmfuzz.campaign.campaign import Campaign, Observer
from lmfuzz.text import plural
from lmfuzz.types import Step


class Bar(Observer):
    """Show how much of the budget was spent, and how much was found."""

    def __init__(self, campaign: Campaign, progress: Progress) -> None:
        self._campaign, self._progress = campaign, progress
        self._task = progress.add_task("", total=1.0, found=self._found)

    @property
    def _found(self) -> str:
        kept = self._campaign.findings.kept
        return f"{plural(sum(kept.values()), 'finding')} in {plural(len(kept), 'bucket')}"

    def step(self, step: Step) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=self._campaign.budget.share(), found=self._found)


@contextmanager
def bar(campaign: Campaign) -> Iterator[Observer]:
    """Show a bar on stderr while a campaign runs, if that is a terminal or a notebook."""
    console = Console(stderr=True)
    columns = (TextColumn("fuzzing"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    last = (TextColumn("{task.fields[found]}"), TimeElapsedColumn())
    hidden = not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, *last, console=console, transient=True, disable=hidden) as progress:
        yield Bar(campaign, progress)
