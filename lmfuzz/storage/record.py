"""The record of a campaign, finished or running: the only way in which its directory is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz import spec as specs
from lmfuzz.budget import Budget
from lmfuzz.errors import UsageError
from lmfuzz.inputs.corpus import lineage
from lmfuzz.inputs.spaces import Space, described
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.directory import reading
from lmfuzz.storage.schema import Sample, ancestors, found, minimal
from lmfuzz.storage.secrets import conceal, concealed, stand_in
from lmfuzz.storage.serialize import decode
from lmfuzz.storage.sound import sound
from lmfuzz.types import SEED, Array, Batch, BoolArray, Finding, FloatArray, IntArray, State

_MEASURED = {"radius", "stability"}  # by coverage/calibrate.py; what is shown needs no more
_GOES_ON = ("", "interrupted")  # reasons of campaigns that did not end; '' if it was killed, or runs


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Hold what became of each seed (S,), as in search/seed_outcomes.py."""

    natural: BoolArray
    solved: BoolArray
    queries: IntArray
    distance: FloatArray


@dataclass(frozen=True, slots=True)
class States:
    """Hold the states of the archive, in the order in which they were admitted.

    Attributes:
        rows: the row that led to each state.
        points: float32 (N, D), as the archive has them; (0, 1) if it is empty.
        places: the same without the column that holds the seed.
        seeds: the seed (N,) whose archive each state is in; 0 if there is one archive for all.
        births: the executions (N,) when each state was new.
    """

    rows: list[Array]
    points: FloatArray
    places: FloatArray
    seeds: FloatArray
    births: IntArray


@dataclass(frozen=True, eq=False)
class Progress:
    """Hold how a campaign stands, as of the moment it was looked at, or of its last commit.

    Attributes:
        spec: the settings of the campaign.
        operators: the names of the operators; an operator's id is its position.
        calibration: what coverage/calibrate.py measured.
        calibration_executions: how many rows the calibration ran.
        executions: how many rows the model ran, those of the calibration included.
        seconds: the wall time.
        time_in_target: how many of these seconds were spent inside the model.
        corpus_size: how many rows the corpus has.
        archive_size: how many states the archive has.
        tally: what the search counted.
        kept: how many findings each bucket has.
        hits: how many rows fell into each bucket.
    """

    spec: Spec
    operators: list[str]
    calibration: dict[str, float]
    calibration_executions: int
    executions: int
    seconds: float
    time_in_target: float
    corpus_size: int
    archive_size: int
    tally: Tally
    kept: Mapping[str, int]
    hits: Mapping[str, int]

    @property
    def finding_count(self) -> int:
        """How many findings there are."""
        return sum(self.kept.values())

    @property
    def budget(self) -> Budget:
        """What the campaign may spend and has spent; its clock starts now."""
        budget = Budget.parse(self.spec.budget)
        budget.findings, budget.spent_findings = self.spec.stop_after, self.finding_count
        budget.spent_executions, budget.calibration = self.executions, self.calibration_executions
        budget.seconds_before = self.seconds
        return budget


@dataclass(frozen=True, eq=False)
class CampaignRecord(Progress):
    """Hold a campaign as of its last commit; its rows, findings and states are read when first asked for.

    Attributes:
        directory: where the campaign is.
        identity: the hash of the model, its alphabet and its decoding.
        space: what a legal input is.
        targets: what each column of the margins is about.
        seed_count: how many of the first rows are seeds.
        reason: why the campaign ended; '' if it runs or was killed.
        unmutated: how many seeds fell into each bucket as they are.
        variants: how many rows fell into each variant of each bucket.
        noise: the noise floors of objectives.
        unscored: how many rows each objective could not judge.
        errors: the tracebacks of objectives, and how often each came.
        baseline: the buckets that were known when it began: objective target -> signature -> hits.
        known: how many rows fell into each known bucket; these are not among ``hits``.
        outcomes: what became of each seed, if the search was per seed.
        visits: how often each state of the archive was met (N,).
        state: everything that the campaign resumes from.
        secret: the system prompt, if neither the spec nor a finding may show it; else ''.
    """

    directory: Path
    identity: str
    space: Space
    targets: list[str]
    seed_count: int
    reason: str
    unmutated: Mapping[str, int]
    variants: dict[str, dict[str, int]]
    noise: dict[str, float]
    unscored: dict[str, int]
    errors: dict[str, dict[str, int]]
    baseline: dict[str, dict[str, int]]
    known: Mapping[str, int]
    outcomes: Outcomes | None
    visits: IntArray | None
    state: State
    secret: str

    @classmethod
    def read(cls, directory: Path, with_secrets: bool = True) -> "CampaignRecord":
        """Read the campaign in ``directory``; UsageError if there is none, or if it cannot be read.

        Without secrets, what it shows has the length of the system prompt in its place.
        """
        with reading(directory) as read:
            meta = {key: json.loads(value) for key, value in read("SELECT key, value FROM meta")}
            if not (committed := read("SELECT value FROM state")):
                raise UsageError(f"the campaign in {directory} was killed before it began; delete it")
            state = decode(committed[0][0])
            spec = specs.stored(meta["spec"], f"the campaign in {directory}")
            secret = "" if with_secrets else spec.system
            made: dict[str, Any] = {
                "directory": directory,
                "spec": spec.model_copy(update={"system": stand_in(secret)}) if secret else spec,
                "secret": secret,
                "space": described(meta["space"]),
                "seed_count": meta["seeds"],
                "tally": sound(Tally(**state["tally"])),
                "outcomes": sound(Outcomes(**state["trials"])) if state["trials"] else None,
                "visits": state.get("visits"),  # the first campaigns of format 4 have none
                "state": state,
            }
            # What earlier versions did not store.
            older: State = {"baseline": {}, "known": {}, "unmutated": {}, "variants": {}}
            stored = {**older, **state["panel"], **state["findings"], **state, **meta, **made}
            record = sound(cls(**{field.name: stored[field.name] for field in fields(cls)}))
            tally, seeds = record.tally, record.outcomes
            if record.calibration_executions > record.executions:
                raise ValueError("calibration ran more inputs than the campaign")
            if {len(tally.mutants), len(tally.fruitful)} != {len(record.operators)}:
                raise ValueError("operators and what is counted of them differ in number")
            if seeds and {len(getattr(seeds, name.name)) for name in fields(seeds)} != {record.seed_count}:
                raise ValueError("seeds and what became of them differ in number")
            if lacks := _MEASURED - record.calibration.keys():
                raise ValueError(f"calibration lacks {', '.join(sorted(lacks))}")
            return record

    def trusting(self, code: bool | None) -> "CampaignRecord":
        """Return it with the code that comes with its model trusted, if ``code`` says so."""
        trusted = self.spec.model_copy(update={"trust_remote_code": True})
        return replace(self, spec=trusted) if code else self

    # -- what follows from it ---------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        """Whether nothing is left to do, even if it was killed before it could record that."""
        return self.reason not in _GOES_ON or self.budget.spent()

    def operator(self, number: int) -> str:
        """Return the name of an operator, '' for SEED."""
        return self.operators[number] if number >= 0 else ""

    def finding(self, number: int) -> Finding:
        """Return the finding with this number; UsageError if there is none."""
        if not 1 <= number <= len(self.findings):
            have = f"its findings are 1 to {len(self.findings)}" if self.findings else "it has no findings"
            raise UsageError(f"the campaign in {self.directory} has no finding {number}; {have}")
        return self.findings[number - 1]

    def lineage(self, finding: Finding) -> list[int]:
        """Return the ids of the rows that a finding descends from, its seed first; none for a seed."""
        return lineage(self.rows.parent, finding.parent)

    def text(self, row: Array) -> str:
        """Return the text of a row, as it may be shown."""
        return conceal(self.space.decode(row), self.secret)

    # -- what is large ----------------------------------------------------------------------------

    @cached_property
    def findings(self) -> list[Finding]:
        """All findings; finding number n is at index n - 1."""
        with reading(self.directory) as read:
            small = {row[0]: minimal(row, self.space) for row in read("SELECT * FROM minimals")}
            rows = read("SELECT * FROM findings ORDER BY id")
            made = [found(row, self._ids, self.space, small.get(row[0])) for row in rows]
            ((count,),) = read("SELECT count(*) FROM rows")
            if any(not SEED <= row < count for finding in made for row in (finding.origin, finding.parent)):
                raise ValueError("a finding descends from a row that does not exist")
            return [concealed(finding, self.secret) for finding in made] if self.secret else made

    @cached_property
    def rows(self) -> Batch:
        """All rows of the corpus, in the order of their ids."""
        with reading(self.directory) as read:
            query = "SELECT parent, operator, origin, row FROM rows ORDER BY id"
            parents, names, origins, blobs = zip(*read(query), strict=True)
            rows = self.space.batch([self.space.unpack(blob) for blob in blobs])
            operators = np.array([self._ids[name] for name in names], np.int32)
            origin = ancestors(origins, itself=True)
            return replace(rows, parent=ancestors(parents), operator=operators, origin=origin)

    @property
    def seeds(self) -> Batch:
        """The rows that all others descend from."""
        return self.rows[: self.seed_count]

    @cached_property
    def states(self) -> States:
        """The archive, with the rows that led to its states."""
        with reading(self.directory) as read:
            stored = read("SELECT row, point, execution FROM states ORDER BY n")
            points = np.frombuffer(b"".join(point for _, point, _ in stored), "<f4").astype(np.float32)
            points = points.reshape(len(stored), len(points) // len(stored) if stored else 1)
            births = np.array([execution for *_, execution in stored], np.int64)
            rows = [self.space.unpack(row) for row, *_ in stored]
            if self.outcomes is None:
                return States(rows, points, points, np.zeros(len(rows), np.float32), births)
            return States(rows, points, points[:, :-1], points[:, -1], births)  # see coverage/per_seed.py

    @cached_property
    def samples(self) -> list[Sample]:
        """How the campaign stood, about once a second."""
        with reading(self.directory) as read:
            return [sound(Sample(*row)) for row in read("SELECT * FROM steps ORDER BY executions")]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {"": SEED, **{name: i for i, name in enumerate(self.operators)}}
