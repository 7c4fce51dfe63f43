"""What a report says of one campaign, read from its directory; the model is not run."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmfuzz.analysis import summary as show
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.report.findings_view import Bucket, Entries
from lmfuzz.report.residual_risk import Share, lately, unseen
from lmfuzz.report.truncate import Marked, quoted
from lmfuzz.spec import Spec
from lmfuzz.storage.schema import Sample
from lmfuzz.storage.store import Store
from lmfuzz.text import escape
from lmfuzz.types import FloatArray, IntArray

FITTED = 1000  # points that the axes of a map are found from
ALWAYS = {"model", "seeds", "objectives", "search", "feature", "budget", "seed"}  # settings that are shown
TEXTS, IMAGES = {"max_length", "max_new", "temperature"}, {"resolution"}  # of such targets, too


@dataclass(frozen=True, slots=True)
class Operator:
    """How many rows an operator made, and how many of these were a new state or a hit."""

    name: str
    made: int
    fruitful: int

    @property
    def yields(self) -> float:
        """Fruitful rows in a thousand."""
        return 1000 * self.fruitful / max(1, self.made)


@dataclass(frozen=True, slots=True)
class Map:
    """Visited states in two dimensions: places (N, 2), when each was new (N,), its row in few words.

    explained: the share of the variance that the two axes show. findings: number of a finding to the
    place (2,) of the nearest of its ancestors that is a state of the archive, since its own was not kept.
    """

    places: FloatArray
    born: IntArray
    texts: list[str]
    explained: float
    findings: dict[int, FloatArray]


class Account:
    """A campaign, of ``total`` findings and ``campaigns`` in a report, which share the room there is.

    name: what it is called there; '' is its directory.
    """

    def __init__(self, store: Store, total: int = 0, campaigns: int = 1, name: str = "") -> None:
        self._store = store
        self.noun = "Input" if isinstance(store.space, BoxSpace) else "Prompt"
        self.directory = escape(str(store.directory))
        self.name = escape(name) or self.directory
        self.meta, self.state, self.numbers = store.meta, store.state(), show.summary(store)
        self.findings, self._rows = store.findings(), store.rows()
        self.campaigns, self.births = campaigns, store.admissions()
        self._entries = Entries(store, self._rows, total or len(self.findings))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """What was found, most hits first."""
        return self._entries.buckets(self.findings, self.state["findings"]["hits"])

    @property
    def shorts(self) -> list[tuple[str, int, tuple[str, Marked]]]:
        """Of every finding its bucket's title, its number, and prompt and output in few characters."""
        return [(bucket.title, one.number, one.short) for bucket in self.buckets for one in bucket.entries]

    @property
    def lines(self) -> list[str]:
        """The summary in words, without the table of buckets."""
        lines = list(show.summary_lines({**self.numbers, "findings": {}}))
        return [line for line in lines if line != "nothing was found"]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What was run: the settings that are always shown, and those that are not the default."""
        space, spec, defaults = self._store.space, self.meta["spec"], Spec().model_dump()
        always = ALWAYS | (TEXTS if not isinstance(space, BoxSpace) else IMAGES if space.image else set())
        shown = [key for key, value in spec.items() if key in always or value != defaults.get(key)]
        given = [(key.replace("_", " "), self.setting(key)) for key in shown]
        return [("identity", escape(self.meta["identity"])), *given]

    def setting(self, key: str) -> str:
        """A setting in words."""
        value, space = self.meta["spec"][key], self._store.space
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        drawn = isinstance(space, BoxSpace) and not space.image
        unsaid = {"model": "the bundled model", "seeds": "drawn at random" if drawn else "bundled"}
        return escape(words) or unsaid.get(key, "none")

    @property
    def about(self) -> str:
        """What was run, in a sentence."""
        twin = f" and its twin {self.setting('twin')}" if self.meta["spec"]["twin"] else ""
        return (
            f"{self.setting('model')}{twin} (identity {escape(self.meta['identity'])}); "
            f"seeds: {self.setting('seeds')}, {self.meta['seeds']:,} of them; "
            f"search: {self.setting('search')}; objectives: {self.setting('objectives')}"
        )

    @property
    def operators(self) -> list[Operator]:
        """The operators, the most fruitful first."""
        tally = self.state["tally"]
        counts = zip(
            self.meta["operators"], tally["mutants"].tolist(), tally["fruitful"].tolist(), strict=True
        )
        known = [Operator(escape(name), made, fruitful) for name, made, fruitful in counts]
        return sorted((one for one in known if one.made), key=lambda one: -one.yields)

    def samples(self, most: int) -> list[Sample]:
        """How it stood, at most about ``most`` times, and at the end."""
        samples = self._store.samples()
        numbers, state = self.numbers, self.state
        last = Sample(
            state["executions"], state["seconds"], state["time_in_target"], numbers["corpus_size"],
            numbers["archive_size"], len(self.findings), 0.0,
        )  # fmt: skip
        return [*samples[:: len(samples) // most + 1], last]

    @property
    def remaining(self) -> list[tuple[str, Share | None]]:
        """How probable the next row is to show something new; None where it cannot be said.

        The first finding of a bucket is always kept, so that the rows are known that showed a bucket alone.
        """
        rows, executions = int(self.state["tally"]["rows"]), int(self.state["executions"])
        hits = self.state["findings"]["hits"]
        times = np.fromiter(hits.values(), np.int64)
        rows_of = {one.bucket: (one.execution, one.row.tobytes()) for one in self.findings}
        alone = {rows_of.get(bucket, bucket) for bucket, count in hits.items() if count == 1}
        visits = self.state.get("visits")  # the first campaigns of format 4 have none
        counted = None if visits is None or not rows or not (visits > 0).all() else visits
        return [
            ("new state", None if counted is None else unseen(counted, rows)),
            ("new bucket", unseen(times, rows, len(alone)) if rows else None),
            (
                "new state, as seen in the last tenth of executions",
                lately(self.births, executions) if executions else None,
            ),
        ]

    def map(self, most: int) -> Map | None:
        """About ``most`` of its states, and where its findings come from; None where there are too few."""
        states = self._store.states()
        if len(states) < 3:
            return None
        at = {row.tobytes(): i for i, (row, _) in enumerate(states)}
        come = {n: self._state_of(n, at) for n in range(1, len(self.findings) + 1)}
        shown = np.arange(0, len(states), -(-len(states) // most))
        keep = np.union1d(shown, [i for i in come.values() if i is not None]).astype(np.int64)
        points = np.stack([states[i][1] for i in keep.tolist()]).astype(np.float64)
        if self.state["trials"] is not None:  # the last coordinate is the number of the seed
            points = points[:, :-1]
        axes, explained = _axes(points)
        places = (points - points.mean(axis=0)) @ axes.T
        texts = [quoted(self._store.space.decode(states[i][0]), 60) for i in shown.tolist()]
        place = dict(zip(keep.tolist(), places, strict=True))
        findings = {n: place[i] for n, i in come.items() if i is not None}
        return Map(
            np.stack([place[i] for i in shown.tolist()]), self.births[shown], texts, explained, findings
        )

    def _state_of(self, number: int, at: dict[bytes, int]) -> int | None:
        finding = self.findings[number - 1]
        for row in [*reversed(self._entries.chain(finding)), finding.origin]:
            if 0 <= row < len(self._rows) and (state := at.get(self._rows.row(row).tobytes())) is not None:
                return state
        return None


def _axes(points: FloatArray) -> tuple[FloatArray, float]:
    """The first two principal axes (2, D) of points (N, D), and the share of the variance they show."""
    some = points[:: -(-len(points) // FITTED)]
    _, spread, axes = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
    axes = np.vstack([axes, np.zeros_like(axes)])[:2]  # points of one number have one axis
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1, 1)  # the same way round every time
    variance = spread**2
    return axes, float(variance[:2].sum() / variance.sum()) if variance.sum() else 1.0
