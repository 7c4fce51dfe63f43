"""The command line: its commands, and how errors are reported."""

import sys
import traceback
from io import TextIOWrapper
from typing import Any, NoReturn

import click

import lmfuzz
from lmfuzz.cli.exit_codes import BUG, EXITS, INTERRUPTED, NOTHING, discard, fail, sentence
from lmfuzz.cli.exporting import export
from lmfuzz.cli.looking import list_, replay, show, tokens
from lmfuzz.cli.options import add_verbosity, verbosity
from lmfuzz.cli.refining import distil, shrink
from lmfuzz.cli.reporting import report
from lmfuzz.cli.searching import diff, fuzz, image, resume
from lmfuzz.cli.sweeping import sweep, watch


class _Commands(click.Group):
    """A group that ends quietly if its output pipe is closed."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:  # from --help and --version
            discard()
            sys.exit(NOTHING)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1, which says that something was found
            discard()
            sys.exit(NOTHING if ctx.invoked_subcommand in ("list", "show") else INTERRUPTED)
        except Exception as error:
            if verbosity() > 0 and sentence(error)[1] != BUG:  # of a bug, the traceback is printed anyway
                traceback.print_exc()
            raise


@click.group(cls=_Commands, epilog=EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmfuzz.__version__, prog_name="lmfuzz", message="%(prog)s %(version)s")
def cli() -> None:
    """Search for inputs on which a model misbehaves: prompts, images or numbers."""


_SEARCHING, _LOOKING = (fuzz, diff, image, resume), (show, replay, export, report)
for _command in (*_SEARCHING, *_LOOKING, shrink, distil, sweep, watch, tokens, list_):
    cli.add_command(_command)
add_verbosity(cli)


def main() -> NoReturn:
    """Run the command line; an error that a user can cause becomes one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except Exception as error:
        words, code = sentence(error)
        if code == BUG:
            traceback.print_exc()
        fail(words, code)
