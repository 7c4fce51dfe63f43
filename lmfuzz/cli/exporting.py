"""The command that writes a campaign's findings for others."""

from pathlib import Path

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import printable


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "name",
    required=True,
    metavar="NAME",
    help="The format to write: jsonl, csv, pytest, junit, sarif or markdown.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write. [default: stdout]",
)
def export(directory: Path, name: str, output: Path | None) -> None:
    """Write the findings in DIRECTORY for other programs, or for people.

    pytest: a file of tests, one per finding, that runs by itself.
    """
    from lmfuzz import files
    from lmfuzz.exports import formats
    from lmfuzz.exports.export_model import campaign
    from lmfuzz.text import plural

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
