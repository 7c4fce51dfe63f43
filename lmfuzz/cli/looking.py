"""Commands that look at campaigns and their findings, at models, and at the plug-ins."""

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import click

from lmfuzz import files
from lmfuzz import spec as specs
from lmfuzz.analysis import summary as texts
from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell, tell_json
from lmfuzz.cli.exit_codes import FOUND, NOTHING
from lmfuzz.errors import UsageError
from lmfuzz.storage.known import known_to
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import finding_line


@options.command()
@options.DIRECTORY
@options.FINDING
@options.SECRETS
@options.ONLY_JSON
def show(directory: Path, finding: int | None, with_secrets: bool, as_json: bool) -> None:
    """Show the campaign in DIRECTORY, or a single FINDING."""
    record = CampaignRecord.read(directory, with_secrets)
    if as_json and finding is not None:
        tell_json(texts.finding_record(record.finding(finding), finding))
    elif as_json:
        records = [texts.finding_record(found, n) for n, found in enumerate(record.findings, start=1)]
        tell_json({**texts.summary(record), "records": records})
    elif finding is not None:
        tell(texts.detail_lines(record, finding))
    else:
        tell(texts.summary_lines(texts.summary(record)))
        tell(texts.known_table(record.known))
        tell(finding_line(n, found) for n, found in enumerate(record.findings, start=1))


@options.command()
@options.DIRECTORY
@options.FINDING
@options.option("--model OTHER", "Another version of the model to run; without FINDING, on the seeds too.")
@options.option("--junit FILE", "Write a JUnit report to this file.", type=options.PATH)
@options.option("--sarif FILE", "Write a SARIF log to this file.", type=options.PATH)
@options.option("--with-secrets", "Write the system prompt into these files too, not only its length.")
@options.KNOWN
@options.TRUST
@options.ONLY_JSON
def replay(
    directory: Path,
    finding: int | None,
    model: str | None,
    with_secrets: bool,
    trust_remote_code: bool | None,
    as_json: bool,
    baseline: tuple[str, ...],
    ignore: tuple[str, ...],
    **reports: Path | None,
) -> None:
    """Run the findings in DIRECTORY, or a single FINDING, again.

    Each finding runs alone. With --model they run on another version of the model. Unless a FINDING is named,
    all seeds of the campaign run too: a seed that passed before and fails now is newly failing. Seeds run in
    batches, and again alone if they fail there, so that a seed that fails only alone is missed. The exit code
    is 1 if anything still fails, else 0: also for a campaign without findings, of which -q prints nothing.
    """
    from lmfuzz.analysis.recorded import Recorded
    from lmfuzz.analysis.replay import Replay
    from lmfuzz.analysis.verdict import verdict_line, verdict_record
    from lmfuzz.exports import export_model, formats

    written = {name: file for name, file in reports.items() if file is not None}
    for file in written.values():
        files.check(file)
    if len({file.resolve() for file in written.values()}) < len(written):
        raise UsageError(f"--junit and --sarif both name {written['junit']}; give two files")
    record = CampaignRecord.read(directory).trusting(trust_remote_code)
    known = known_to(record, baseline, ignore)
    again = Replay(Recorded.of(record, finding), model)
    if again.changed and not as_json:
        say("the model differs from the one that these were found on")
    if again.respelled and not as_json:
        say("its alphabet or tokenizer differs too: inputs are built again from their texts")
    verdicts = []
    with_seeds = model is not None and finding is None
    for verdict in chain(again, again.seeds() if with_seeds else ()):
        verdicts.append(verdict)
        if not (as_json or verdict.in_any(known)):
            tell([verdict_line(verdict)])
    done = export_model.judged(directory, again, verdicts, with_seeds, known, with_secrets)
    for name, file in written.items():
        files.write(formats.known(name)(done), file)
    if as_json:
        records = [verdict_record(verdict) for verdict in verdicts if not verdict.in_any(known)]
        about = {"changed": again.changed, "respelled": again.respelled}
        tell_json({**about, "verdicts": records, "known": done.known})
    elif with_seeds:
        tell(done.about)
    elif known:
        tell(done.about[1:])
    elif not verdicts:
        say(f"{directory} has no findings")
    sys.exit(NOTHING if all(case.fixed for case in done.cases) else FOUND)


@options.command()
@click.argument("model")
@options.option("--top N", "How many tokens to show. [default: 20]", type=click.IntRange(min=0), default=20)
@options.LOADING_OPTIONS
@options.ONLY_JSON
def tokens(top: int, as_json: bool, **given: Any) -> None:
    """Look for tokens that MODEL hardly saw in training.

    MODEL is a Hugging Face causal language model: a folder, or a name on the hub. Its embeddings show which
    tokens are suspicious. The model is then asked to repeat each of these again and again. A token that it
    cannot repeat is under-trained, and a prompt that contains it can make the model do anything.
    """
    from lmfuzz.analysis.token_scan import FIXED, Scan

    scan = Scan(specs.resolve(FIXED, given))
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(scan), label="tokens", file=sys.stderr, hidden=hidden) as bar:
        for many in scan:
            bar.update(many)
    if as_json:
        tell_json(scan.record())
    else:
        tell(scan.lines(top))
    sys.exit(FOUND if scan.found else NOTHING)
