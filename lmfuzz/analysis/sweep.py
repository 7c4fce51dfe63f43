"""A sweep: a grid of campaigns, each in a process and a directory of its own; what was killed goes on.

A campaign belongs to the sweep by its spec: its directory's name ends with a digest of it. Its process holds
a lock to its end, whatever becomes of the sweep that started it; the process that the next sweep starts waits
for that one (cli/sweep_campaign.py). So no campaign is lost, and none runs twice.
"""

import hashlib
import itertools
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmfuzz import spec as specs
from lmfuzz.analysis.survival import ENOUGH, Trial, trial
from lmfuzz.campaign.choose import check_names
from lmfuzz.errors import UsageError, nearest, one_line
from lmfuzz.files import DATABASE
from lmfuzz.plugins.coerce import complaint
from lmfuzz.spec import Spec
from lmfuzz.storage.directory import has_commit, lock
from lmfuzz.storage.record import CampaignRecord

Settings = dict[str, Any]
TICK = 0.2  # seconds between looks at what was asked for
CAMPAIGNS, LOGS = "campaigns", "logs"
_MOST = 100_000  # campaigns
_DIGEST = 10  # characters
_PROCESS = "lmfuzz.cli.sweep_campaign"  # what a campaign is run with
_OWN = "lmfuzz: "  # begins a line of lmfuzz's own
_UNREADABLE = 2  # how the process of a campaign ends whose database cannot be read
_names = attrgetter("search", "feature", "objectives", "operators", "twin")  # of a spec


class Plan(BaseModel):
    """What a sweep file says: settings that all campaigns share, and the axes of the grid.

    An axis is the name of a setting with the list of its values, or any name with tables of settings, each
    under the name of its value; several tables under one name ([[grid.AXIS.NAME]]) are trials of the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    campaign: Settings = {}
    grid: dict[str, list[Any] | dict[str, Settings | list[Settings]]] = {}
    trials: int | None = Field(default=None, ge=1, le=_MOST)  # seeds 0 to N - 1, unless grid has 'seed'
    baseline: Settings = {}  # axis -> value: what the others are compared with


class _Point(NamedTuple):
    """A value of an axis: what it is called, and what it sets; ``number`` tells trials of the same apart."""

    label: str
    settings: Settings
    number: str = ""


@dataclass(frozen=True, eq=False)
class Cell:
    """One campaign of a sweep; ``labels``: axis -> value of what it is a trial of."""

    name: str
    labels: tuple[tuple[str, str], ...]
    spec: Spec

    @cached_property
    def digest(self) -> str:
        """Names the spec; keys that have their default do not count, so that new ones change nothing."""
        text = json.dumps(self.spec.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def read(path: Path) -> Plan:
    """The plan in a file; UsageError for whatever it has wrong, with the nearest key."""
    config = specs.read(path)
    for key in config:
        if key in Spec.model_fields:
            raise UsageError(f"{key} in {path} stands outside of a table; put it below [campaign] or [grid]")
        if key not in Plan.model_fields:
            raise UsageError(f"unknown key {key!r} in {path}{nearest(key, Plan.model_fields)}")
    try:
        return Plan(**config)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        if place[0] == "grid" and len(place) > 1:
            wrong = f"{place[1]} in [grid] must be a list of values, or tables of settings"
            raise UsageError(f"{path}: {wrong}") from None
        key = str(place[0])
        annotation = dict if key != "trials" else int
        wrong = complaint(error, config[key], annotation).replace("must be dict", "must be a table")
        raise UsageError(f"{key} in {path} {wrong}") from None


def label(value: Any) -> str:
    """What a value is called: texts as they are, a list's joined."""
    if isinstance(value, list):
        return " + ".join(map(label, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def cells(plan: Plan, file: str) -> list[Cell]:
    """All campaigns of a plan, the first trial of everything before the second; UsageError for what is wrong.

    file: what the plan was read from, for sentences.
    """
    axes = {name: _points(name, axis, file) for name, axis in plan.grid.items()}
    if "seed" in plan.campaign or (plan.trials and "seed" in axes):
        right = "write trials = N for seeds 0 to N - 1, or seed in [grid]"
        raise UsageError(f"{file} says twice what the seeds are; {right}")
    seeds = axes.pop("seed", None) or _points("seed", [*range(plan.trials or ENOUGH)], file)
    _check_baseline(plan, axes, file)
    if (many := math.prod(map(len, [seeds, *axes.values()]))) > _MOST:
        raise UsageError(f"{file} asks for {many} campaigns; {_MOST} are the most")
    found: dict[str, Cell] = {}
    for points in itertools.product(seeds, *axes.values()):
        named = dict(zip(["seed", *axes], points, strict=True))
        cell = _cell(plan, named, axes, file)
        if (same := found.setdefault(cell.digest, cell)) is not cell:
            raise UsageError(f"two campaigns of {file} are the same: {same.name}, and {cell.name}")
    for spec in {str(_names(cell.spec)): cell.spec for cell in found.values()}.values():
        check_names(spec)
    return list(found.values())


def _points(name: str, axis: list[Any] | Mapping[str, Any], file: str) -> list[_Point]:
    """The values of an axis."""
    if isinstance(axis, list):
        field = Spec.model_fields.get(name)
        several = field is not None and get_origin(field.annotation) is list
        found = [_Point(label(v), {name: [v] if several and isinstance(v, str) else v}) for v in axis]
        names = [point.label for point in found]
    else:
        tables = {at: given if isinstance(given, list) else [given] for at, given in axis.items()}
        found = [
            _Point(at, settings, f".{number}" if len(many) > 1 else "")
            for at, many in tables.items()
            for number, settings in enumerate(many)
        ]
        names = list(tables)
    if not found:
        raise UsageError(f"{name} in [grid] of {file} has no values")
    if twice := [at for at, times in Counter(names).items() if times > 1]:
        raise UsageError(f"{name} in [grid] of {file} names {twice[0]} twice")
    return found


def _cell(plan: Plan, named: Mapping[str, _Point], axes: Mapping[str, list[_Point]], file: str) -> Cell:
    settings: Settings = {"threads": 1, **plan.campaign}
    set_by: dict[str, str] = {}
    for name, point in named.items():
        if twice := set_by.keys() & point.settings.keys():
            key = min(twice)
            raise UsageError(f"{key} in {file} is set by two axes, {set_by[key]} and {name}")
        settings |= point.settings
        set_by |= dict.fromkeys(point.settings, name)
    varied = [name for name, points in axes.items() if len(points) > 1]
    title = " ".join(f"{name}={named[name].label}{named[name].number}" for name in [*varied, "seed"])
    labels = tuple((n, named[n].label) for n in varied if len({point.label for point in axes[n]}) > 1)
    return Cell(title, labels, specs.resolve(settings, {}, file))


def _check_baseline(plan: Plan, axes: Mapping[str, list[_Point]], file: str) -> None:
    for name, value in plan.baseline.items():
        if name not in axes:
            raise UsageError(f"[baseline] of {file} names {name!r}, which is no axis{nearest(name, axes)}")
        known = [point.label for point in axes[name]]
        if label(value) not in known:
            wrong = f"{name} in [baseline] of {file} is {label(value)!r}, which that axis has not"
            raise UsageError(wrong + nearest(label(value), known))


class View(Protocol):
    """Who looks on."""

    def begun(self, cell: Cell, again: bool) -> None:
        """A campaign begins, or goes on."""

    def ended(self, cell: Cell) -> None:
        """A campaign is at its end."""

    def failed(self, failure: "Failure") -> None:
        """A campaign could not be run."""

    def tick(self) -> object:
        """Some time has passed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no trial of a campaign; ``code`` is how its process ended, minus a signal's number."""

    cell: Cell
    code: int
    words: str


class Sweep:
    """The campaigns of a plan in a folder; a context manager that keeps other sweeps out of it.

    One whose database cannot be read has failed. UsageError when another sweep works in the folder, or it
    is a campaign's.
    """

    def __init__(self, found: Sequence[Cell], folder: Path) -> None:
        self.cells, self.folder = list(found), folder
        self.failures: dict[Cell, Failure] = {}
        self.done: dict[Cell, Trial] = {}  # in the order of their ends
        self.running: dict[Cell, subprocess.Popen[bytes]] = {}
        self._stopped, self._turn = False, Lock()  # which of the threads speaks
        self._asked: set[Cell] = set()  # to end
        if (folder / DATABASE).exists():
            raise UsageError(f"{folder} is a campaign, not a sweep; give another folder with -o")
        for name in (CAMPAIGNS, LOGS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._places = {path.name[-_DIGEST:]: path for path in (folder / CAMPAIGNS).iterdir()}
        self._lock = lock(folder)
        for cell in self.cells:
            self._judge(cell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def directory(self, cell: Cell) -> Path:
        """Where a campaign is, or will be; its digest is what counts, axes may have come since."""
        plain = re.sub(r"[^\w=.+-]+", "-", cell.name, flags=re.ASCII).strip("-.")[:80]
        return self._places.setdefault(cell.digest, self.folder / CAMPAIGNS / f"{plain}-{cell.digest}")

    def log(self, cell: Cell) -> Path:
        """What a campaign printed."""
        return self.folder / LOGS / f"{self.directory(cell).name}.log"

    def stop(self) -> None:
        """End the campaigns under way in order, and begin no other."""
        self._stopped = True

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before all campaigns were at their ends."""
        return self._stopped and len(self.done) < len(self.cells)

    def run(self, jobs: int, view: View) -> None:
        """Bring the campaigns to their ends, ``jobs`` at a time, or until ``stop``; ``failures`` are left."""
        for failure in self.failures.values():
            view.failed(failure)
        ended = {*self.done, *self.failures}
        with ThreadPoolExecutor(jobs) as pool:
            left = {pool.submit(self._run, cell, view) for cell in self.cells if cell not in ended}
            try:
                while left:
                    done, left = wait(left, TICK, FIRST_COMPLETED)
                    for future in done:
                        future.result()  # or what it raised
                    if self._stopped:
                        self._terminate()
                    view.tick()
            finally:
                while wait(left, TICK).not_done:  # after an error: no process is left behind
                    self._stopped = True
                    self._terminate()

    def _run(self, cell: Cell, view: View) -> None:
        """Run a campaign in a process of its own, and take note of how that ended."""
        if self._stopped:
            return
        directory, log = self.directory(cell), self.log(cell)
        with self._turn:
            view.begun(cell, has_commit(directory))
        specs.write(cell.spec, config := log.with_suffix(".toml"), {}, {})
        command = [sys.executable, "-m", _PROCESS, str(config), str(directory)]
        with log.open("ab") as said:
            self.running[cell] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the sweep, which passes it on
            )  # fmt: skip
        code = self.running[cell].wait()
        del self.running[cell]
        with self._turn:
            if not self._judge(cell) and not self._stopped:
                self.failures[cell] = Failure(cell, code, self._said(cell, code))
            if cell in self.done:
                view.ended(cell)
            elif cell in self.failures:
                view.failed(self.failures[cell])

    def _judge(self, cell: Cell) -> bool:
        """Whether a campaign is at its end or cannot be read, of which it takes note."""
        directory = self.directory(cell)
        try:
            if not has_commit(directory) or not (record := CampaignRecord.read(directory)).at_end:
                return False
            self.done[cell] = trial(record)
        except Exception as error:  # whatever is in the database; the others go on
            words = str(error) if isinstance(error, UsageError) else f"{directory}: {one_line(error)}"
            self.failures[cell] = Failure(cell, _UNREADABLE, words)
        return True

    def _terminate(self) -> None:
        """Ask the processes under way to end, each once: the second time would not be in order."""
        for cell, process in list(self.running.items()):
            if cell not in self._asked:
                self._asked.add(cell)
                process.terminate()

    def _said(self, cell: Cell, code: int) -> str:
        """Why a campaign's process ended, in its own words where it has any."""
        if code < 0:
            return f"its process was killed by signal {-code}; the same sweep again goes on with it"
        lines = self.log(cell).read_text(encoding="utf-8", errors="replace").splitlines()
        own = [line.removeprefix(_OWN) for line in lines if line.startswith(_OWN)]
        return own[-1] if own else f"exit code {code}, see {self.log(cell)}"
