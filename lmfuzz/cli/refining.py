"""Commands that make less of what was found: minimal findings, few seeds."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import FOUND, NOTHING
from lmfuzz.inputs.spaces import BoxSpace, Space

if TYPE_CHECKING:
    from lmfuzz.campaign.shrink import Shrinker
    from lmfuzz.storage.store import Store
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
    from lmfuzz.analysis import summary as texts
    from lmfuzz.campaign import build as assembly
    from lmfuzz.storage.store import Store
    from lmfuzz.text import strict_json

    with Store.resume(directory) as store:
        record = store.record()
        found = dict(enumerate(record.findings, start=1))
        if finding is not None:
            found = {finding: record.finding(finding)}
        large = any(one.minimal is None for one in found.values())
        shrinker = assembly.shrinker(record) if large else None
        records = []
        for number, one in found.items():
            if shrinker and one.minimal is None:
                one = _shrunk(number, one, shrinker, store)
            records.append(texts.finding_record(one, number))
            if not as_json:
                tell(_minimal_lines(number, one, record.space))
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


def _shrunk(number: int, finding: "Finding", shrinker: "Shrinker", store: "Store") -> "Finding":
    """The finding with its minimal row, which is on disk by then; as it is where it does not fail again."""
    if (small := shrinker(finding)) is None:
        return finding
    store.minimise(number, small)
    if isinstance(store.space, BoxSpace) and store.space.image:
        from lmfuzz.files import PICTURES
        from lmfuzz.inputs import render as pictures  # only where it is used: it loads Pillow

        seed = shrinker.seeds.row(finding.origin)
        pictures.save_minimal(store.directory / PICTURES, number, small.row, seed, store.space)
    return replace(finding, minimal=small)


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
