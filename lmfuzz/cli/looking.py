"""Commands that look: at campaigns and their findings, at models, at what there is to choose from."""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import FOUND, NOTHING
from lmfuzz.errors import UsageError, nearest


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("finding", type=int, required=False)
@options.ONLY_JSON
def show(directory: Path, finding: int | None, as_json: bool) -> None:
    """Show the campaign in DIRECTORY, or one FINDING of it."""
    from lmfuzz.analysis import summary as texts
    from lmfuzz.storage.record import CampaignRecord
    from lmfuzz.text import finding_line, strict_json

    record = CampaignRecord.read(directory)
    if as_json and finding is not None:
        click.echo(strict_json(texts.finding_record(record.finding(finding), finding)))
    elif as_json:
        records = [texts.finding_record(found, n) for n, found in enumerate(record.findings, start=1)]
        click.echo(strict_json({**texts.summary(record), "records": records}))
    elif finding is not None:
        tell(texts.detail_lines(record, finding))
    else:
        tell(texts.summary_lines(texts.summary(record)))
        tell(finding_line(n, found) for n, found in enumerate(record.findings, start=1))


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("finding", type=int, required=False)
@click.option("--model", metavar="OTHER", help="Another version of the model; without FINDING seeds, too.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a JUnit report.")
@click.option("--sarif", type=click.Path(path_type=Path), metavar="FILE", help="Write a SARIF log.")
@options.ONLY_JSON
def replay(
    directory: Path, finding: int | None, model: str | None, junit: Path | None, sarif: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the findings in DIRECTORY, or one FINDING, again, each alone.

    With --model on another version of the model, and, unless one FINDING is named, all seeds of the
    campaign with them: one that passed before and fails now newly fails. Seeds are run in batches, and those
    that fail there again alone: a seed that fails only alone is missed.
    """
    from lmfuzz import files
    from lmfuzz.analysis.recorded import Recorded
    from lmfuzz.analysis.replay import Replay
    from lmfuzz.analysis.verdict import verdict_line, verdict_record
    from lmfuzz.exports import export_model as dossier
    from lmfuzz.exports import formats
    from lmfuzz.storage.record import CampaignRecord
    from lmfuzz.text import strict_json

    for file in (junit, sarif):
        if file is not None:
            files.check(file)
    if junit is not None and sarif is not None and junit.resolve() == sarif.resolve():
        raise UsageError(f"--junit and --sarif both name {junit}; give two files")
    again = Replay(Recorded.of(CampaignRecord.read(directory), finding), model)
    if not as_json:
        if again.changed:
            say("the model is another than the one these were found on")
        if again.respelled:
            say("its alphabet or tokenizer is another, too: inputs are made anew from their texts")
    verdicts = []
    with_seeds = model is not None and finding is None
    for verdict in chain(again, again.seeds() if with_seeds else ()):
        verdicts.append(verdict)
        if not as_json:
            tell([verdict_line(verdict)])
    done = dossier.judged(directory, again, verdicts, with_seeds)
    for file, name in ((junit, "junit"), (sarif, "sarif")):
        if file is not None:
            files.write(formats.known(name)(done), file)
    if as_json:
        records = [verdict_record(verdict) for verdict in verdicts]
        click.echo(strict_json({"changed": again.changed, "respelled": again.respelled, "verdicts": records}))
    elif with_seeds:
        tell(done.about)
    elif not verdicts:
        say(f"{directory} has no findings")
    sys.exit(NOTHING if all(verdict.fixed for verdict in verdicts) else FOUND)


@options.command()
@click.argument("model")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=20,
    metavar="N",
    help="The number of tokens to show. [default: 20]",
)
@options.LOADING_OPTIONS
@options.ONLY_JSON
def tokens(top: int, as_json: bool, **given: Any) -> None:
    """Look for tokens that MODEL hardly saw in training.

    MODEL is a Hugging Face causal language model, a folder or a name on the hub. Its embeddings say which
    tokens are suspicious; of every one the model is asked whether it can say it after reading it again and
    again. Those it cannot are under-trained: a prompt that holds one can make the model do anything.
    """
    from lmfuzz import spec as specs
    from lmfuzz.analysis.token_scan import FIXED, Scan
    from lmfuzz.text import strict_json

    scan = Scan(specs.resolve(FIXED, given))
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(scan), label="tokens", file=sys.stderr, hidden=hidden) as bar:
        for many in scan:
            bar.update(many)
    if as_json:
        click.echo(strict_json(scan.record()))
    else:
        tell(scan.lines(top))
    sys.exit(FOUND if scan.found else NOTHING)


@options.command("list")
@options.kind_argument()
def list_(kind: str | None) -> None:
    """List what there is to choose from, with parameters."""
    kinds = options.kinds()
    if kind is not None and kind not in kinds:
        known = nearest(kind, kinds) or f"; there are {', '.join(kinds)}"
        raise UsageError(f"there is no list of {kind!r}{known}")
    for name in [kind] if kind else kinds:
        entries = kinds[name].describe()
        if not entries and kind is None:
            continue
        click.secho(name, bold=True)
        for entry in entries:
            click.echo(f"  {entry.name:<13} {entry.line}")
            for parameter in entry.parameters:
                click.echo(f"  {'':<13}   {parameter}")
        if not entries:
            click.echo("  none are installed; a file or module of your own works too: file.py:name")
