"""Findings as a report shows them, by bucket; all texts are escaped as for a terminal."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from lmfuzz.analysis import summary as show
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.report.truncate import Marked, cut, quoted, shares, size, trimmed
from lmfuzz.storage.store import Store
from lmfuzz.text import bucket_title, escape, mark, replay_command
from lmfuzz.types import Array, Batch, Finding

TEXTS, PICTURES = 1_200_000, 1_500_000  # bytes that all texts, or all pictures, of a report may take
LEAST, MOST = 600, 16_000  # bytes of all texts of a finding: as many as there is room for
TITLE, NAME = 120, 40  # bytes of a bucket's title, of an operator's name
STEPS = 6  # rows of a lineage that are shown beside its seed
TALLEST = 224  # pixels of a picture


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A row on the way from a seed to a finding."""

    id: int
    operator: str
    text: str


@dataclass(frozen=True, slots=True)
class Minimal:
    """A finding's minimal row; ``picture`` is a data: address, '' without one; ``alone``: of its text."""

    size: int
    before: int
    prompt: str
    output: Marked
    picture: str
    alone: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A finding; ``left_out`` are the rows of its lineage that are not shown, ``about`` says more of it."""

    number: int
    label: str
    execution: int
    prompt: str
    output: Marked
    minimal: Minimal | None
    about: list[tuple[str, str]]
    lineage: list[Ancestor]
    left_out: int
    picture: str
    short: tuple[str, Marked]  # prompt and output in few characters


@dataclass(frozen=True, slots=True)
class Bucket:
    """A behaviour that was found, by its whole name and a title of few characters.

    ``hits`` counts all rows that showed it, kept or not.
    """

    name: str
    title: str
    objective: str
    hits: int
    entries: list[Entry]

    @property
    def flaky(self) -> int:
        """How many of its findings did not fail in every re-run."""
        return sum(entry.label != "confirmed" for entry in self.entries)

    @property
    def first(self) -> int:
        """The execution of its first finding."""
        return min(entry.execution for entry in self.entries)

    @property
    def minimal(self) -> Minimal | None:
        """The smallest minimal row among its findings, None where none was shrunk."""
        known = [entry.minimal for entry in self.entries if entry.minimal is not None]
        return min(known, key=lambda one: one.size, default=None)


class Entries:
    """The findings of a campaign, of ``total`` in a report, which share the room there is.

    rows: the corpus, in the order of its ids.
    """

    def __init__(self, store: Store, rows: Batch, total: int) -> None:
        self._store, self._rows, self._space, self._meta = store, rows, store.space, store.meta
        self._total = max(1, total)
        self._room = max(LEAST, min(MOST, TEXTS // self._total))
        self._pictures = 0

    def buckets(self, findings: Sequence[Finding], hits: dict[str, int]) -> list[Bucket]:
        """The buckets, those with the most hits first; pictures go to the first findings of each first."""
        self._pictures = PICTURES * len(findings) // self._total
        sorted_: dict[str, list[int]] = {}
        for number, finding in enumerate(findings, start=1):
            sorted_.setdefault(finding.bucket, []).append(number)
        ranks = {n: rank for numbers in sorted_.values() for rank, n in enumerate(numbers)}
        entries = {n: self._entry(n, findings[n - 1]) for n in sorted(ranks, key=lambda n: (ranks[n], n))}
        names = sorted(sorted_, key=lambda name: (-hits.get(name, 0), name))
        return [
            Bucket(
                name,
                cut(bucket_title(name), TITLE),
                findings[sorted_[name][0] - 1].objective,
                max(hits.get(name, 0), len(sorted_[name])),
                [entries[n] for n in sorted_[name]],
            )
            for name in names
        ]

    def _entry(self, number: int, finding: Finding) -> Entry:
        lineage = self.chain(finding)
        made = self._names(finding.operator)
        if not made and finding.parent >= 0:
            made = self._meta["spec"]["search"]
        how = f"last changed by {escape(made)}" if made else "a seed as it is"
        shown = lineage if len(lineage) <= STEPS + 2 else [lineage[0], *lineage[-STEPS:]]
        words, texts = self._texts(finding)
        prompt, output = texts[0]
        about = [
            ("Evidence", words),
            ("Margin", f"{finding.margin:.4g}"),
            ("Distance", show.distance(finding, self._space)),
            ("Found", f"at execution {finding.execution:,}, {how}"),
            ("Replay", escape(replay_command(self._store.directory, number))),
        ]
        if finding.by_text is not None:
            about.insert(3, ("Text alone", show.alone_words(finding.by_text)))
        return Entry(
            number, finding.label, finding.execution, prompt, output, self._minimal(finding, texts), about,
            [self._ancestor(row) for row in shown], len(lineage) - len(shown),
            self._picture(finding, finding.row), (quoted(finding.prompt, 40), trimmed(output, 60)),
        )  # fmt: skip

    def _texts(self, finding: Finding) -> tuple[str, list[tuple[str, Marked]]]:
        """Its evidence, and prompt and output of it and of its minimal row: all in the room of a finding."""
        ones = [finding] if finding.minimal is None else [finding, finding.reduced]
        plain = [escape(text) for text in (finding.evidence.words, *(one.prompt for one in ones))]
        outputs = [mark(one) for one in ones]
        rooms = shares([*map(size, plain), *(sum(map(size, parts)) for parts in outputs)], self._room)
        words, *prompts = map(cut, plain, rooms)
        return words, list(zip(prompts, map(trimmed, outputs, rooms[len(plain) :]), strict=True))

    def _minimal(self, finding: Finding, texts: Sequence[tuple[str, Marked]]) -> Minimal | None:
        small = finding.minimal
        if small is None:
            return None
        prompt, output = texts[1]
        alone = "" if small.by_text is None else show.alone_words(small.by_text)
        return Minimal(small.size, small.before, prompt, output, self._picture(finding, small.row), alone)

    def chain(self, finding: Finding) -> list[int]:
        """The corpus ids of its ancestors, the seed first."""
        path, row = [], finding.parent
        while 0 <= row < len(self._rows):
            path.append(row)
            row = int(self._rows.parent[row])
        return path[::-1]

    def _ancestor(self, row: int) -> Ancestor:
        name = self._names(int(self._rows.operator[row])) or "seed"
        return Ancestor(row, cut(escape(name), NAME), quoted(self._space.decode(self._rows.row(row)), 80))

    def _names(self, operator: int) -> str:
        return str(self._meta["operators"][operator]) if operator >= 0 else ""

    def _picture(self, finding: Finding, row: Array) -> str:
        """The seed, ``row`` and their difference as a data: address; '' where there is none, or no room."""
        space, seed = self._space, finding.origin
        if not (
            isinstance(space, BoxSpace) and space.image and 0 <= seed < len(self._rows) and self._pictures > 0
        ):
            return ""
        from lmfuzz.inputs import render as pictures  # only where it is used: it loads Pillow

        picture = pictures.beside(row, self._rows.row(seed), space)
        picture.thumbnail((4 * TALLEST, TALLEST))
        file = io.BytesIO()
        picture.save(file, "PNG", optimize=True)
        address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        self._pictures -= len(address)
        return address if self._pictures > 0 else ""
