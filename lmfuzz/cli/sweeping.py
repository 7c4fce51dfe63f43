"""Commands that run a sweep over a grid of campaigns, and watch a campaign that runs elsewhere."""

import os
import sys
from pathlib import Path

import click

from lmfuzz.analysis import summary as texts
from lmfuzz.campaign.signals import stop_on_signal
from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import INTERRUPTED, NOTHING, fail
from lmfuzz.text import escape, plural, resume_command


@options.command()
@click.argument("file", type=options.PATH)
@options.option(
    "--jobs N", "How many campaigns run at once. [default: a core each]", type=click.IntRange(min=1)
)
@options.option("-o/--output DIR", "The folder of the sweep. [default: runs/NAME of FILE]", type=options.PATH)
def sweep(file: Path, jobs: int | None, output: Path | None) -> None:
    """Run and compare campaigns over the grid of settings in FILE.

    FILE is TOML: [campaign] holds the settings of all campaigns, [grid] holds a list of values for any of the
    other settings, trials = N runs each combination with N seeds (by default 20), and [baseline] names the
    one that the others are compared with. Each campaign has its own process and directory. Run the command
    again to continue a sweep that was interrupted or killed: finished campaigns do not run twice, and the
    others are resumed.
    """
    from lmfuzz.analysis.sweep import Sweep, cells, read
    from lmfuzz.analysis.sweep_results import results
    from lmfuzz.cli.follow import SweepView
    from lmfuzz.cli.progress import console
    from lmfuzz.report.sweep_page import as_lines, write

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
    failures = [grid.failures[cell] for cell in grid.cells if cell in grid.failures]  # in this order
    codes = [failure.code if failure.code > 0 else INTERRUPTED for failure in failures]
    wrong = [f"{escape(failure.cell.name)}: {escape(failure.words)}" for failure in failures]
    if grid.interrupted:
        codes.append(INTERRUPTED)
        wrong.append("interrupted; the same command goes on")
    if wrong:
        fail(wrong[0], codes[0], *wrong[1:])
    sys.exit(NOTHING)


@options.command()
@options.DIRECTORY
def watch(directory: Path) -> None:
    """Follow the campaign in DIRECTORY, which another process runs.

    Only its database is read.
    """
    from lmfuzz.cli.follow import follow

    numbers = texts.summary(follow(directory, sys.stdout))
    tell(texts.summary_lines(numbers))
    if numbers["exit_reason"] == texts.UNFINISHED:
        say(f"no process works on it any more; go on with: {resume_command(directory)}")
