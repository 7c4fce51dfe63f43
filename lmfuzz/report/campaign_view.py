"""What a report says about one campaign, read from its directory; the model is not run."""

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

FITTED = 1000  # points that the axes of a map are computed from
ROW = 40  # characters of an input on a map
ALWAYS = {"model", "seeds", "objectives", "search", "feature", "budget", "seed"}  # settings always shown
TEXTS, IMAGES = {"max_length", "max_new", "temperature"}, {"resolution"}  # those of models of each kind


@dataclass(frozen=True, slots=True)
class Map:
    """Hold visited states in two dimensions.

    Attributes:
        places: the places of the states (N, 2).
        born: the execution at which each was new (N,).
        texts: the input that led to each, shortened.
        findings: for a finding's number, the place (2,) of its nearest ancestor that is a state of the
            archive; the finding's own state is not kept.
    """

    places: FloatArray
    born: IntArray
    texts: list[str]
    findings: dict[int, FloatArray]


class Account:
    """Show a campaign, one of ``campaigns`` in a report, which share the number of findings it shows.

    Args:
        record: the campaign.
        campaigns: how many campaigns the report has.
        name: what the report calls it; '' for its directory.
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
        """What was found, most hits first, with entries for as many findings as a report shows."""
        return buckets(self.record, self.campaigns)

    @property
    def shown(self) -> list[Bucket]:
        """The buckets that have entries."""
        return [bucket for bucket in self.buckets if bucket.entries]

    @property
    def lines(self) -> list[str]:
        """The summary in words, without the table of buckets."""
        return list(show.summary_lines(self.numbers, buckets=False))

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What was run: the settings that are always shown, and those that do not have their default."""
        space, default = self.record.space, Spec().model_dump()
        always = ALWAYS | (TEXTS if not isinstance(space, BoxSpace) else IMAGES if space.image else set())
        spec = self.record.spec.model_dump()
        known = [key for key, value in spec.items() if key in always or value != default[key]]
        return [("identity", self.identity), *((key.replace("_", " "), self.setting(key)) for key in known)]

    def setting(self, key: str) -> str:
        """Return a setting in words."""
        value, space = self.record.spec.model_dump()[key], self.record.space
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        drawn = isinstance(space, BoxSpace) and not space.image
        unsaid = {"model": "the bundled model", "seeds": "drawn at random" if drawn else "bundled"}
        return escape(words) or unsaid.get(key, "none")

    @property
    def operators(self) -> list[tuple[str, int, int, float]]:
        """Name, inputs made, how many of them were fruitful, and how many per 1,000; most fruitful first."""
        tally, names = self.record.tally, map(escape, self.record.operators)
        counts = (tally.mutants.tolist(), tally.fruitful.tolist(), tally.yields.tolist())
        known = [one for one in zip(names, *counts, strict=True) if one[1]]
        return sorted(known, key=lambda one: -one[3])

    def samples(self, most: int) -> list[Sample]:
        """Return about ``most`` of its samples, and one of the end."""
        record, samples = self.record, self.record.samples
        spent = (record.executions, record.seconds, record.time_in_target)
        last = Sample(*spent, record.corpus_size, record.archive_size, len(self.findings), 0.0)
        return [*samples[:: len(samples) // most + 1], last]

    @property
    def remaining(self) -> list[tuple[str, Share | None]]:
        """How probable it is that the next input shows something new; None if it cannot be said.

        The first finding of a bucket is always kept, so it is known which inputs alone showed a bucket.
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
            ("new state, as counted in the last tenth of executions", late),
        ]

    def map(self, most: int) -> Map | None:
        """Return about ``most`` of its states, and where its findings come from; None if too few."""
        states, many = self.record.states, len(self.record.states.rows)
        if many < 3:
            return None
        points, shown = states.places.astype(np.float64), slice(None, None, -(-many // most))
        places = (points - points.mean(axis=0)) @ _axes(points).T
        texts = [shorten(self.record.text(row), ROW) for row in states.rows[shown]]
        at = {row.tobytes(): i for i, row in enumerate(states.rows)}
        come = {n: self._state_of(finding, at) for n, finding in enumerate(self.findings, start=1)}
        findings = {n: places[i] for n, i in come.items() if i is not None}
        return Map(places[shown], states.births[shown], texts, findings)

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
    axes: FloatArray = np.vstack([found, np.zeros_like(found)])[:2]  # one number has one axis
    return axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1, 1)  # the same orientation every time
