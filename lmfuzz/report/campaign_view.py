"""What a report says of one campaign, read from its directory; the model is not run."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmfuzz.analysis import summary as show
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.report.findings_view import Bucket, buckets
from lmfuzz.report.residual_risk import Share, lately, unseen
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.schema import Sample
from lmfuzz.text import escape, shell_quote, shorten
from lmfuzz.types import Finding, FloatArray, IntArray

FITTED = 1000  # points that the axes of a map are found from
ROW = 40  # characters of a row on it
ALWAYS = {"model", "seeds", "objectives", "search", "feature", "budget", "seed"}  # settings that are shown
TEXTS, IMAGES = {"max_length", "max_new", "temperature"}, {"resolution"}  # of such targets, too


@dataclass(frozen=True, slots=True)
class Map:
    """Visited states in two dimensions: places (N, 2), when each was new (N,), its row in few words.

    findings: number of a finding to the place (2,) of the nearest of its ancestors that is a state of the
    archive, since its own was not kept.
    """

    places: FloatArray
    born: IntArray
    texts: list[str]
    findings: dict[int, FloatArray]


class Account:
    """A campaign, one of ``campaigns`` in a report, which share the findings that a report shows.

    name: what it is called there; '' is its directory.
    """

    def __init__(self, record: CampaignRecord, campaigns: int = 1, name: str = "") -> None:
        self.record, self.campaigns = record, campaigns
        self.noun = "Input" if isinstance(record.space, BoxSpace) else "Prompt"
        self.directory, self.identity = escape(str(record.directory)), escape(record.identity)
        self.command = escape(f"lmfuzz show {shell_quote(record.directory)}")
        self.name = escape(name) or self.directory
        self.numbers, self.findings = show.summary(record), record.findings

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What was found, most hits first; entries of as many findings as there is room for."""
        return buckets(self.record, self.campaigns)

    @property
    def shown(self) -> list[Bucket]:
        """The buckets that have entries."""
        return [bucket for bucket in self.buckets if bucket.entries]

    @property
    def lines(self) -> list[str]:
        """The summary in words, without the table of buckets."""
        lines = list(show.summary_lines({**self.numbers, "findings": {}}))
        return [line for line in lines if line != "nothing was found"]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What was run: the settings that are always shown, and those that are not the default."""
        space, default = self.record.space, Spec().model_dump()
        always = ALWAYS | (TEXTS if not isinstance(space, BoxSpace) else IMAGES if space.image else set())
        spec = self.record.spec.model_dump()
        known = [key for key, value in spec.items() if key in always or value != default[key]]
        return [("identity", self.identity), *((key.replace("_", " "), self.setting(key)) for key in known)]

    def setting(self, key: str) -> str:
        """A setting in words."""
        value, space = self.record.spec.model_dump()[key], self.record.space
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        drawn = isinstance(space, BoxSpace) and not space.image
        unsaid = {"model": "the bundled model", "seeds": "drawn at random" if drawn else "bundled"}
        return escape(words) or unsaid.get(key, "none")

    @property
    def operators(self) -> list[tuple[str, int, int, float]]:
        """Name, rows made, those that were fruitful, and how many of a thousand; most fruitful first."""
        tally, names = self.record.tally, map(escape, self.record.operators)
        counts = (tally.mutants.tolist(), tally.fruitful.tolist(), tally.yields.tolist())
        known = [one for one in zip(names, *counts, strict=True) if one[1]]
        return sorted(known, key=lambda one: -one[3])

    def samples(self, most: int) -> list[Sample]:
        """How it stood, at most about ``most`` times, and at the end."""
        record, samples = self.record, self.record.samples
        last = Sample(
            record.executions, record.seconds, record.time_in_target, record.corpus_size,
            record.archive_size, len(self.findings), 0.0,
        )  # fmt: skip
        return [*samples[:: len(samples) // most + 1], last]

    @property
    def remaining(self) -> list[tuple[str, Share | None]]:
        """How probable the next row is to show something new; None where it cannot be said.

        The first finding of a bucket is always kept, so that the rows are known that showed a bucket alone.
        """
        record, rows, visits = self.record, self.record.tally.rows, self.record.visits
        times = np.fromiter(record.hits.values(), np.int64)
        rows_of = {one.bucket: (one.execution, one.row.tobytes()) for one in self.findings}
        alone = {rows_of.get(bucket, bucket) for bucket, count in record.hits.items() if count == 1}
        counted = None if visits is None or not rows or not (visits > 0).all() else visits
        late = lately(record.states.births, record.executions) if record.executions else None
        return [
            ("new state", None if counted is None else unseen(counted, rows)),
            ("new bucket", unseen(times, rows, len(alone)) if rows else None),
            ("new state, as seen in the last tenth of executions", late),
        ]

    def map(self, most: int) -> Map | None:
        """About ``most`` of its states, and where its findings come from; None where there are too few."""
        states, many = self.record.states, len(self.record.states.rows)
        if many < 3:
            return None
        at = {row.tobytes(): i for i, row in enumerate(states.rows)}
        come = {n: self._state_of(finding, at) for n, finding in enumerate(self.findings, start=1)}
        shown = np.arange(0, many, -(-many // most))
        keep = np.union1d(shown, [i for i in come.values() if i is not None]).astype(np.int64)
        points = states.places[keep].astype(np.float64)
        places = (points - points.mean(axis=0)) @ _axes(points).T
        texts = [shorten(self.record.space.decode(states.rows[i]), ROW) for i in shown.tolist()]
        place = dict(zip(keep.tolist(), places, strict=True))
        findings = {n: place[i] for n, i in come.items() if i is not None}
        return Map(np.stack([place[i] for i in shown.tolist()]), states.births[shown], texts, findings)

    def _state_of(self, finding: Finding, at: dict[bytes, int]) -> int | None:
        rows = self.record.rows
        for row in [*reversed(self.record.lineage(finding)), finding.origin]:
            if 0 <= row < len(rows) and (state := at.get(rows.row(row).tobytes())) is not None:
                return state
        return None


def _axes(points: FloatArray) -> FloatArray:
    """The first two principal axes (2, D) of points (N, D)."""
    some = points[:: -(-len(points) // FITTED)]
    _, _, found = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
    axes: FloatArray = np.vstack([found, np.zeros_like(found)])[:2]  # points of one number have one axis
    return axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1, 1)  # the same way round every time
