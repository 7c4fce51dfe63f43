"""Findings as a report shows them, by bucket; all texts are escaped as for a terminal.

A page stays small, whatever a model wrote: long texts are cut, with '...' for what is left out, and a report
shows a limited number of findings, the first of every bucket before the second of any.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lmfuzz.analysis.summary import alone_words, ancestors, facts, variants_line, variants_of
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import bucket_title, cut, escape, excerpt, plural, replay_command, shorten
from lmfuzz.types import Array, Finding

MOST = 250  # findings that a report shows
TEXT, TITLE, ROW, NAME = 400, 80, 60, 40  # characters of a text, a bucket, an ancestor, an operator
PROMPT, OUTPUT = 40, 60  # characters of these on a line
PICTURES = 1_500_000  # bytes of pictures after which a report shows no more of them
STEPS = 6  # ancestors that are shown besides the seed
TALLEST = 224  # pixels of a picture


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold a finding as it is shown.

    Attributes:
        number: its number.
        finding: the finding.
        about: more about it, by name.
        lineage: the operator and text of each ancestor.
        left_out: how many ancestors are not shown.
        pictures: data: addresses of its picture and of that of its minimal input; '' for one that is missing,
            or would make the report too large.
    """

    number: int
    finding: Finding
    about: list[tuple[str, str]]
    lineage: list[tuple[str, str]]
    left_out: int
    pictures: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Hold a behaviour that was found; ``hits`` counts all inputs that showed it, kept or not.

    Its findings that the report shows have ``entries``. ``about`` says how many seeds do this unmutated, and
    which variants of it there are.
    """

    name: str
    hits: int
    findings: Sequence[Finding]
    entries: list[Entry]
    about: str = ""

    @property
    def title(self) -> str:
        """Its name, shortened."""
        return cut(bucket_title(self.name), TITLE)

    @property
    def flaky(self) -> int:
        """How many of its findings did not fail in every re-run."""
        return sum(finding.label != "confirmed" for finding in self.findings)

    @property
    def first(self) -> int:
        """The execution of its first finding."""
        return min(finding.execution for finding in self.findings)

    @property
    def minimal(self) -> str:
        """The smallest minimal prompt among its findings; '' if none was shrunk."""
        known = [finding.minimal for finding in self.findings if finding.minimal is not None]
        return shorten(min(known, key=lambda one: one.size).prompt, OUTPUT) if known else ""


def buckets(record: CampaignRecord, campaigns: int) -> list[Bucket]:
    """Return the buckets of one of ``campaigns`` in a report, those with the most hits first."""
    numbers: dict[str, list[int]] = {}
    for number, finding in enumerate(record.findings, start=1):
        numbers.setdefault(finding.bucket, []).append(number)
    hits = {name: max(record.hits.get(name, 0), len(some)) for name, some in numbers.items()}
    names = sorted(numbers, key=lambda name: (-hits[name], name))
    ranks = zip_longest(*(numbers[name] for name in names))  # the first of every bucket, the second ...
    shown = [n for rank in ranks for n in rank if n is not None][: MOST // campaigns]
    entries: dict[int, Entry] = {}
    left = PICTURES // campaigns
    for n in shown:
        entries[n] = _entry(record, n, left > 0)
        left -= sum(map(len, entries[n].pictures))
    found = {name: [record.finding(n) for n in some] for name, some in numbers.items()}
    seen = {name: [entries[n] for n in some if n in entries] for name, some in numbers.items()}
    return [Bucket(name, hits[name], found[name], seen[name], _about(record, name)) for name in names]


def _about(record: CampaignRecord, bucket: str) -> str:
    seeds, variants = record.unmutated.get(bucket, 0), variants_of(record, bucket)
    known = [
        f"{seeds} of {plural(record.seed_count, 'seed')} do this unmutated." if seeds else "",
        f"Variants by hits: {variants_line(variants)}." if variants else "",
    ]
    return " ".join(filter(None, known))


def _entry(record: CampaignRecord, number: int, drawn: bool) -> Entry:
    finding = record.finding(number)
    lineage = [(cut(escape(by), NAME), shorten(text, ROW)) for _, by, text in ancestors(record, finding)]
    made = record.operator(finding.operator) or (record.spec.search if finding.parent >= 0 else "")
    how = f"last changed by {cut(escape(made), NAME)}" if made else "an unchanged seed"
    shown = lineage if len(lineage) <= STEPS + 2 else [lineage[0], *lineage[-STEPS:]]
    about = [
        *((name.capitalize(), cut(value, TEXT)) for name, value in facts(finding, record.space)),
        ("Found", f"at execution {finding.execution:,}, {how}"),
        ("Replay", escape(replay_command(record.directory, number))),
    ]
    own = _picture(record, finding, finding.row) if drawn else ""
    small = _picture(record, finding, finding.minimal.row) if drawn and finding.minimal else ""
    return Entry(number, finding, about, shown, len(lineage) - len(shown), (own, small))


def brief(finding: Finding) -> tuple[str, tuple[str, str, str]]:
    """Return the prompt and the output of a finding, shortened."""
    return shorten(finding.prompt, PROMPT), excerpt(finding, OUTPUT)


# The filters of the templates.
FILTERS: dict[str, Callable[..., Any]] = {
    "text": lambda text: cut(escape(text), TEXT), "output": lambda finding: excerpt(finding, TEXT),
    "brief": brief, "alone": alone_words,
}  # fmt: skip


def _picture(record: CampaignRecord, finding: Finding, row: Array) -> str:
    """The seed, ``row`` and their difference as a data: address; '' if they are no images."""
    space, seed = record.space, finding.origin
    if not (isinstance(space, BoxSpace) and space.image and seed >= 0):
        return ""
    from lmfuzz.inputs import render  # only when it is used: it loads Pillow

    picture = render.beside(row, record.rows.row(seed), space)
    picture.thumbnail((4 * TALLEST, TALLEST))
    picture.save(file := io.BytesIO(), "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
