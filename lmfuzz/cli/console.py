"""Lines for a person, as every command prints them."""

import sys
from collections.abc import Iterable
from shutil import get_terminal_size

import click

from lmfuzz.cli.options import verbosity
from lmfuzz.errors import printable


def say(line: str, level: int = 0) -> None:
    """Print a line of lmfuzz's own; with -q none, of level 1 only with -v."""
    if verbosity() >= level:
        click.echo(f"lmfuzz: {printable(line)}")


def tell(lines: Iterable[str]) -> None:
    """Lines, wrapped where a terminal would cut words in two."""
    from lmfuzz.text import wrap

    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in map(printable, lines):
        for part in wrap(line, columns) if columns else [line]:
            click.echo(part)
