"""Commands around many campaigns: a sweep over a grid of them, and a look at one that runs elsewhere."""

import os
import sys
from pathlib import Path

import click

from lmfuzz.campaign.signals import stop_on_signal
from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import INTERRUPTED, NOTHING, fail


@options.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Campaigns at a time (default: number of cores)."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: runs/NAME of the file."
)
def sweep(file: Path, jobs: int | None, output: Path | None) -> None:
    """Run a campaign for everything in the grid of FILE, and compare.

    FILE is TOML: [campaign] holds settings of all campaigns, [grid] lists of values, any setting being an
    axis; trials = N (20) runs each with N seeds; [baseline] says what the others are compared with. Every
    campaign has a process and a directory of its own. A sweep that was interrupted or killed goes on when
    it is run again: what is at its end is not run twice, what was under way is resumed.
    """
    from lmfuzz.analysis.sweep import Sweep, cells, read
    from lmfuzz.analysis.sweep_results import results
    from lmfuzz.cli.follow import SweepView
    from lmfuzz.cli.progress import console
    from lmfuzz.report.sweep_page import as_lines, write
    from lmfuzz.text import escape, plural

    plan = read(file)
    found = cells(plan, str(file))
    jobs = jobs or os.cpu_count() or 1
    with Sweep(found, output or Path("runs") / file.stem) as grid:
        done = f", {len(grid.done)} of them done" if grid.done else ""
        say(f"{plural(len(found), 'campaign')}{done}, {jobs} at a time, in {grid.folder}")
        with SweepView(grid, console(sys.stdout)) as view, stop_on_signal(grid.stop):
            grid.run(jobs, view)
        if trials := [(cell.labels, trial) for cell, trial in grid.done.items()]:
            table = results(grid, plan, trials)
            files = write(table, grid.folder)
            tell(as_lines(table.settings))
            for note in table.notes:
                say(note.text())
            say(f"the results are in {', '.join(map(str, files))}")
    failures = [grid.failures[cell] for cell in grid.cells if cell in grid.failures]  # not as they ended
    codes = [failure.code if failure.code > 0 else INTERRUPTED for failure in failures]
    wrong = [f"{escape(failure.cell.name)}: {escape(failure.words)}" for failure in failures]
    if grid.interrupted:
        codes.append(INTERRUPTED)
        wrong.append("interrupted; the same command goes on")
    if wrong:
        fail(wrong[0], codes[0], *wrong[1:])
    sys.exit(NOTHING)


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
def watch(directory: Path) -> None:
    """Follow the campaign in DIRECTORY, which runs in another terminal; only its database is read."""
    from lmfuzz.analysis import summary as texts
    from lmfuzz.cli.follow import follow
    from lmfuzz.text import resume_command

    numbers = texts.summary(follow(directory, sys.stdout))
    tell(texts.summary_lines(numbers))
    if numbers["exit_reason"] == texts.UNFINISHED:
        say(f"no process works on it any more; go on with: {resume_command(directory)}")
