"""Commands that write campaigns down: as HTML for people, or in the forms that other programs read."""

from pathlib import Path

import click

from lmfuzz import files
from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import UsageError, printable
from lmfuzz.text import escape, plural

_FORMATS = "The format to write: jsonl, csv, pytest, junit, sarif or markdown."


@options.command()
@click.argument("directories", metavar="DIRECTORY...", nargs=-1, required=True, type=options.PATH)
@options.option("-o/--output FILE", "The file. [default: DIRECTORY/report.html]", "file", type=options.PATH)
def report(directories: tuple[Path, ...], file: Path | None) -> None:
    """Write a report of the campaign in DIRECTORY as one HTML file.

    The file opens offline. It shows what was found, how the search went, and what is probably left; it
    compares several campaigns (comparison.html). The model does not run.
    """
    from lmfuzz.report import page

    if len(set(directories)) < len(directories):
        raise UsageError("a campaign is given twice; name each directory once")
    one = len(directories) == 1
    file = file or (directories[0] / "report.html" if one else Path("comparison.html"))
    files.check(file, makes_folder=True)
    page.write(directories, file)
    say(f"the report is in {escape(str(file))}")


@options.command()
@options.DIRECTORY
@options.option("--format NAME", _FORMATS, "name", required=True)
@options.option("-o/--output FILE", "The file to write. [default: stdout]", type=options.PATH)
def export(directory: Path, name: str, output: Path | None) -> None:
    """Write the findings in DIRECTORY for other programs, or for people.

    The format pytest is a file of tests, one for each finding, that runs on its own.
    """
    from lmfuzz.exports import formats
    from lmfuzz.exports.export_model import campaign

    write = formats.known(name)
    if output is not None:
        files.check(output)
    found = campaign(directory)
    text = write(found)
    if output is None:
        click.echo(text, nl=False)
    else:
        files.write(text, output)
        say(f"{plural(len(found.cases), 'finding')} of {directory}: {output}")
    if found.empty:
        click.echo(f"lmfuzz: {printable(found.empty)}", err=True)
