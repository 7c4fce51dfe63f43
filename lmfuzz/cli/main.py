"""The command line: its commands, and how errors are reported."""

import sys
import traceback
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

import click

import lmfuzz
from lmfuzz.cli.console import add_verbosity, verbosity
from lmfuzz.cli.exit_codes import (
    BUG,
    EXITS,
    INTERRUPTED,
    NOTHING,
    discard,
    fail,
    replace_closed_streams,
    sentence,
)
from lmfuzz.errors import UsageError, nearest
from lmfuzz.plugins.modules import raised_by_user

COMMANDS = {  # name -> the module that has it, which is loaded when the command runs, and its help
    "diff": ("searching", "Search for prompts that MODEL and its TWIN answer differently."),
    "distil": ("refining", "Write the fewest inputs that cover the archive in DIRECTORY."),
    "export": ("reporting", "Write the findings in DIRECTORY for other programs, or for people."),
    "fuzz": ("searching", "Search for prompts on which MODEL misbehaves."),
    "image": ("searching", "Search for images on which a classifier misbehaves."),
    "import": ("reporting", "Make a folder that can be tested of the checkpoint in FILE."),
    "list": ("listing", "List the plug-ins to choose from, with their parameters, and the presets."),
    "replay": ("looking", "Run the findings in DIRECTORY, or a single FINDING, again."),
    "report": ("reporting", "Write a report of the campaign in DIRECTORY as one HTML file."),
    "resume": ("searching", "Resume the campaign in DIRECTORY."),
    "show": ("looking", "Show the campaign in DIRECTORY, or a single FINDING."),
    "shrink": ("refining", "Shrink the findings in DIRECTORY, or a single FINDING."),
    "sweep": ("sweeping", "Run and compare campaigns over the grid of settings in FILE."),
    "tokens": ("looking", "Look for tokens that MODEL hardly saw in training."),
    "watch": ("sweeping", "Follow the campaign in DIRECTORY, which another process runs."),
}


class _Commands(click.Group):
    """A group that loads its commands when they run, and ends quietly if its output pipe is closed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # a shell completes it
                return None
            raise UsageError(f"there is no command {cmd_name}{nearest(cmd_name, COMMANDS)}")
        module = import_module(f"lmfuzz.cli.{COMMANDS[cmd_name][0]}")
        return getattr(module, f"{cmd_name}_" if cmd_name in ("import", "list") else cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])

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
        except click.exceptions.NoArgsIsHelpError:
            raise
        except BaseException as error:  # a file of a user may call sys.exit()
            code = sentence(error)[1]
            why = raised_by_user(error) if code == BUG else ""
            if verbosity() > 0 and (why or code != BUG):  # of a bug, the traceback is printed anyway
                traceback.print_exc()
            if why:
                raise UsageError(f"{why}; what is on disk is kept") from error
            if isinstance(error, EOFError):  # click would take it for Ctrl-D
                raise RuntimeError("a file ended too early") from error
            raise


@click.group(cls=_Commands, epilog=EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmfuzz.__version__, prog_name="lmfuzz", message="%(prog)s %(version)s")
def cli() -> None:
    """Search for inputs on which a model misbehaves: prompts, images or numbers."""


add_verbosity(cli)


def main() -> NoReturn:
    """Run the command line; an error that a user can cause becomes one sentence and an exit code."""
    replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as bare:
        click.echo(bare.format_message())
        sys.exit(NOTHING)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except Exception as error:
        words, code = sentence(error)
        if code == BUG:
            traceback.print_exc()
        fail(words, code)
