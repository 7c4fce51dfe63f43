"""The command that reports: campaigns as one HTML file."""

from pathlib import Path

import click

from lmfuzz import files
from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import UsageError
from lmfuzz.text import escape


@options.command()
@click.argument("directories", metavar="DIRECTORY...", nargs=-1, required=True, type=options.PATH)
@options.option(
    "-o FILE", "The file. [default: DIRECTORY/report.html, or comparison.html]", "file", type=options.PATH
)
def report(directories: tuple[Path, ...], file: Path | None) -> None:
    """Write a report of the campaign in DIRECTORY as one HTML file.

    The file opens offline. It shows what was found, how the search went, and what is probably left; it
    compares several campaigns. The model does not run.
    """
    from lmfuzz.report import page

    if len(set(directories)) < len(directories):
        raise UsageError("a campaign is given twice; name each directory once")
    one = len(directories) == 1
    file = file or (directories[0] / "report.html" if one else Path("comparison.html"))
    files.check(file, makes_folder=True)
    page.write(directories, file)
    say(f"the report is in {escape(str(file))}")
