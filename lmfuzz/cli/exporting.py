"""The command that writes a campaign's findings for other programs."""

from pathlib import Path

import click

from lmfuzz import files
from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import printable
from lmfuzz.text import plural

_FORMATS = "The format to write: jsonl, csv, pytest, junit, sarif or markdown."


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
