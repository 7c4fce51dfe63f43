"""Lines for a person, as every command prints them."""

import sys
from collections.abc import Iterable
from shutil import get_terminal_size

import click

from lmfuzz.errors import printable
from lmfuzz.text import strict_json, wrap

_VERBOSITY = "lmfuzz.verbosity"  # in the meta of a click context: -1 quiet, 0, 1 verbose


def add_verbosity(command: click.Command) -> None:
    """Give a command the options -q and -v."""
    for name, help in (
        ("quiet", "Print only results and errors."),
        ("verbose", "Also print the settings, the model's identity and the tracebacks of all errors."),
    ):
        names = f"-{name[0]}", f"--{name}"
        made = click.Option(names, is_flag=True, expose_value=False, callback=_set_verbosity, help=help)
        command.params.append(made)


def _set_verbosity(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_VERBOSITY] = 1 if option.name == "verbose" else -1


def verbosity() -> int:
    """Return how much the current command prints: -1 for results alone, 1 for more than usual, else 0."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else context.meta.get(_VERBOSITY, 0)


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
