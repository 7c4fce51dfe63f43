"""The command that reports: campaigns as one HTML file."""

from pathlib import Path

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import UsageError


@options.command()
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o", "file", metavar="FILE", type=click.Path(path_type=Path),
    help="The HTML file (default: DIRECTORY/report.html; of several campaigns: comparison.html).",
)  # fmt: skip
def report(directories: tuple[Path, ...], file: Path | None) -> None:
    """Write the campaign in DIRECTORY as one HTML file that opens offline; compare several.

    What was found, how the search went, and what is probably left. The model is not run.
    """
    from lmfuzz import files
    from lmfuzz.report import page
    from lmfuzz.text import escape

    if len(set(directories)) < len(directories):
        raise UsageError("a campaign is given twice; name each directory once")
    one = len(directories) == 1
    file = file or (directories[0] / "report.html" if one else Path("comparison.html"))
    files.check(file, makes_folder=True)
    page.write(directories, file)
    say(f"the report is in {escape(str(file))}")
