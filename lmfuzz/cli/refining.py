"""The commands that reduce what was found: to minimal inputs, and to few seeds."""

import sys
from collections.abc import Iterator
from pathlib import Path

from lmfuzz.analysis.summary import finding_record, reduction
from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell, tell_json
from lmfuzz.cli.exit_codes import FOUND, NOTHING
from lmfuzz.inputs.spaces import Space
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import WIDTH, bucket_title, plural, quote_output, shorten
from lmfuzz.types import Finding

_SEEDS = "The file to write, for --seeds: .jsonl for prompts, .npy for images or numbers."


@options.command()
@options.DIRECTORY
@options.FINDING
@options.TRUST
@options.ONLY_JSON
def shrink(directory: Path, finding: int | None, trust_remote_code: bool | None, as_json: bool) -> None:
    """Shrink the findings in DIRECTORY, or a single FINDING.

    Symbols of a prompt are removed, and changed pixels of an image are set back to the seed's, as long as the
    input stays a finding of its bucket. The minimal input is stored beside the finding; one that is known
    already is shown. The exit code is 1 if a finding does not fail again, and so stays as it is, else 0: also
    for a campaign without findings, of which -q prints nothing.
    """
    from lmfuzz.analysis.shrink import shrink as shrink_findings

    records, space = [], CampaignRecord.read(directory).space
    for number, one in shrink_findings(directory, finding, trust=trust_remote_code):
        records.append(finding_record(one, number))
        if not as_json:
            tell(_minimal_lines(number, one, space))
    if as_json:
        tell_json({"findings": records})
    elif not records:
        say(f"{directory} has no findings")
    sys.exit(NOTHING if all(one["minimal"] for one in records) else FOUND)


def _minimal_lines(number: int, finding: Finding, space: Space) -> Iterator[str]:
    """A finding before and after it was shrunk, on three lines; on one if it could not be."""
    head = f"finding {number}, {bucket_title(finding.bucket)}"
    if (small := finding.minimal) is None:
        yield f"{head}: did not fail again alone in this bucket, so it stays as it is"
        return
    yield f"{head}: {reduction(small, space)}"
    for when, one in (("before", finding), ("after", finding.reduced)):
        yield f"  {when:<6} {shorten(one.prompt)} -> {quote_output(one, WIDTH)}"


@options.command()
@options.DIRECTORY
@options.option("-o/--output SEEDS", _SEEDS, "file", required=True, type=options.PATH)
@options.option("--radius R", "The distance that an input covers. [default: the campaign's]", type=float)
def distil(directory: Path, file: Path, radius: float | None) -> None:
    """Write the fewest inputs that cover the archive in DIRECTORY.

    The model does not run. The states of the archive are more than the campaign's radius apart, so each needs
    an input of its own; with a larger radius, fewer inputs cover them. The inputs that cover most come first,
    and are those that --count keeps.
    """
    from lmfuzz.analysis.distil import distil as distilled

    done = distilled(directory, file, radius)
    say(
        f"{plural(done.rows, 'row')} in {file} cover {plural(done.states, 'state')} within "
        f"{done.radius:.3g} (the corpus has {plural(done.corpus, 'row')})"
    )
    if done.respelled:
        left_out = f"; {done.left_out} of these do not fit and are left out" if done.left_out else ""
        say(f"{plural(done.respelled, 'prompt')} of tokens will be tokenized differently{left_out}")
