"""Commands that make less of what was found: minimal findings, few seeds."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import FOUND, NOTHING
from lmfuzz.inputs.spaces import Space

if TYPE_CHECKING:
    from lmfuzz.types import Finding


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("finding", type=int, required=False)
@options.ONLY_JSON
def shrink(directory: Path, finding: int | None, as_json: bool) -> None:
    """Make the findings in DIRECTORY, or one FINDING, minimal.

    Of a prompt, symbols are left out, of an image, changed pixels put back to the seed's, until without any
    one more it would be no finding of its bucket. The result is kept beside the finding; what is minimal
    already is shown. Exits with 1 where a finding does not fail again, and so stays as it is.
    """
    from lmfuzz.analysis.shrink import shrink as shrink_findings
    from lmfuzz.analysis.summary import finding_record
    from lmfuzz.storage.record import CampaignRecord
    from lmfuzz.text import strict_json

    records, space = [], CampaignRecord.read(directory).space
    for number, one in shrink_findings(directory, finding):
        records.append(finding_record(one, number))
        if not as_json:
            tell(_minimal_lines(number, one, space))
    if as_json:
        click.echo(strict_json({"findings": records}))
    elif not records:
        say(f"{directory} has no findings")
    sys.exit(NOTHING if all(one["minimal"] for one in records) else FOUND)


def _minimal_lines(number: int, finding: "Finding", space: Space) -> Iterator[str]:
    """A finding before and after it was made minimal, on three lines; one where it could not be."""
    from lmfuzz.analysis.summary import reduction
    from lmfuzz.text import WIDTH, bucket_title, quote_output, shorten

    head = f"finding {number}, {bucket_title(finding.bucket)}"
    if (small := finding.minimal) is None:
        yield f"{head}: did not fail again alone in this bucket, so it stays as it is"
        return
    yield f"{head}: {reduction(small, space)}"
    for when, one in (("before", finding), ("after", finding.reduced)):
        yield f"  {when:<6} {shorten(one.prompt)} -> {quote_output(one, WIDTH)}"


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "file", type=click.Path(path_type=Path), required=True, metavar="SEEDS",
    help="What --seeds reads: a .jsonl file of prompts, a .npy file of images or numbers.",
)  # fmt: skip
@click.option(
    "--radius", type=float, metavar="R", help="How near a row must be to what it covers (the campaign's)."
)
def distil(directory: Path, file: Path, radius: float | None) -> None:
    """Write the fewest rows that cover what the archive in DIRECTORY holds, without running the model.

    States of the archive are more than the campaign's radius apart, so that each needs a row of its own;
    with a larger radius fewer rows cover it. Those that cover most come first (--count takes these).
    """
    from lmfuzz.analysis.distil import distil as distilled
    from lmfuzz.text import plural

    done = distilled(directory, file, radius)
    say(
        f"{plural(done.rows, 'row')} in {file} cover {plural(done.states, 'state')} within "
        f"{done.radius:.3g} (the corpus has {plural(done.corpus, 'row')})"
    )
    if done.respelled:
        left_out = f"; {done.left_out} of these do not fit and are left out" if done.left_out else ""
        say(f"{plural(done.respelled, 'prompt')} of tokens will be spelled as other tokens{left_out}")
