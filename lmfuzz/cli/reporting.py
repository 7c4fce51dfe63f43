"""Commands that write things in other forms: campaigns for people and programs, checkpoints as folders."""

from pathlib import Path

import click

from lmfuzz import files
from lmfuzz.cli import options
from lmfuzz.cli.console import say
from lmfuzz.errors import UsageError, printable
from lmfuzz.text import escape, plural, shell_quote

_ALPHABET = """The characters, in the order of their numbers: a file (text, a JSON list or object, nanoGPT's
meta.pkl), a text, or printable, which is Python's string.printable. [default: the checkpoint's own]"""
_FORMATS = "The format to write: jsonl, csv, pytest, junit, sarif, markdown or baseline."


@options.command()
@click.argument("directories", metavar="DIRECTORY...", nargs=-1, required=True, type=options.PATH)
@options.option("-o/--output FILE", "The file. [default: DIRECTORY/report.html]", "file", type=options.PATH)
@options.SECRETS
def report(directories: tuple[Path, ...], file: Path | None, with_secrets: bool) -> None:
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
    page.write(directories, file, with_secrets)
    say(f"the report is in {escape(str(file))}")


@options.command()
@options.DIRECTORY
@options.option("--format NAME", _FORMATS, "name", required=True)
@options.option("-o/--output FILE", "The file to write. [default: stdout]", type=options.PATH)
@options.SECRETS
@options.KNOWN
def export(
    directory: Path, name: str, output: Path | None, with_secrets: bool, **known: tuple[str, ...]
) -> None:
    """Write the findings in DIRECTORY for other programs, or for people.

    The format pytest is a file of tests, one for each finding, that runs on its own. The tests of a campaign
    with a system prompt take it from the variable LMFUZZ_SYSTEM, unless --with-secrets writes it into them.
    The format baseline holds the buckets, for --baseline. Findings in known buckets are left out; in junit
    these are skipped.
    """
    from lmfuzz.exports import formats
    from lmfuzz.exports.export_model import campaign

    write = formats.known(name)
    if output is not None:
        files.check(output)
    found = campaign(directory, with_secrets, **known)
    text = write(found)
    if output is None:
        click.echo(text, nl=False)
    else:
        files.write(text, output)
        say(f"{plural(len(found.cases), 'finding')} of {directory}: {output}")
    if found.empty:
        click.echo(f"lmfuzz: {printable(found.empty)}", err=True)


@options.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.option("-o/--output FOLDER", "The folder to make.", required=True, type=options.PATH)
@options.option("--alphabet FILE|TEXT", _ALPHABET, default="", type=click.Path())
@options.option("--allow-pickle", "Read an alphabet that is a pickle; only plain data in it are read.")
def import_(file: Path, output: Path, alphabet: str, allow_pickle: bool) -> None:
    """Make a folder that can be tested of the checkpoint in FILE.

    FILE is a state_dict or training checkpoint of torch (.pt, .pth, .bin, .ckpt, .safetensors) of a character
    LSTM, GRU or RNN, whatever its tensors are called; a character model of nanoGPT's; or a recurrent network
    of Keras (.h5, .keras). No code that is in it runs.
    """
    from lmfuzz.targets.importing.folder import make

    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} is there already; give a new folder")
    made = make(file, output, alphabet, allow_pickle)
    say(f"{escape(str(output))} holds a model: {made}")
    say(f"test it with: lmfuzz fuzz {shell_quote(output)}")
