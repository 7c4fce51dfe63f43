"""Lines for a person, as every command prints them."""

import sys
from collections.abc import Iterable
from shutil import get_terminal_size

import click

from lmfuzz.cli.options import verbosity
from lmfuzz.errors import printable
from lmfuzz.text import strict_json, wrap


def say(line: str, level: int = 0) -> None:
    """Print a line about the run: none with -q, and those of level 1 only with -v."""
    if verbosity() >= level:
        click.echo(f"lmfuzz: {printable(line)}")


def tell(lines: Iterable[str]) -> None:
    """Print lines, wrapped so that a terminal does not cut words in two."""
    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in map(printable, lines):
        for part in wrap(line, columns) if columns else [line]:
            click.echo(part)


def tell_json(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(strict_json(value))
