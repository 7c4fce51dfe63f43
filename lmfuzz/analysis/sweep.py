"""A sweep: a grid of campaigns, each in its own process and directory; a campaign that was killed goes on.

A campaign belongs to the sweep by its spec: its directory's name ends with a digest of it. Its process holds
a lock until it ends, whatever becomes of the sweep that started it; the process that the next sweep starts
waits for that one (cli/sweep_campaign.py). So no campaign is lost, and none runs twice.
"""

import hashlib
import itertools
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
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
TICK = 0.1  # seconds between looks at the processes
CAMPAIGNS, LOGS = "campaigns", "logs"
_MOST = 100_000  # campaigns
_DIGEST = 10  # characters
_PROCESS = "lmfuzz.cli.sweep_campaign"  # the module that runs a campaign
_OWN = "lmfuzz: "  # how lmfuzz's own lines begin
_UNREADABLE = 2  # the exit code for a database that cannot be read
_names = attrgetter("search", "feature", "objectives", "operators", "twin")  # of a spec


class Plan(BaseModel):
    """Hold what a sweep file says: settings that all campaigns share, and the axes of the grid.

    An axis is the name of a setting with the list of its values, or any name with tables of settings, each
    under the name of its value; several tables under one name ([[grid.AXIS.NAME]]) are trials of one value.

    Attributes:
        campaign: the settings that all campaigns share.
        grid: the axes.
        trials: N for the seeds 0 to N - 1, unless the grid has ``seed``.
        baseline: for some axes, the value that the other values are compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    campaign: Settings = {}
    grid: dict[str, list[Any] | dict[str, Settings | list[Settings]]] = {}
    trials: int | None = Field(default=None, ge=1, le=_MOST)
    baseline: Settings = {}


class _Point(NamedTuple):
    """A value of an axis: its name, and what it sets; ``number`` tells trials of one value apart."""

    label: str
    settings: Settings
    number: str = ""


@dataclass(frozen=True, eq=False)
class Cell:
    """Hold one campaign of a sweep; ``labels`` are the axes and values that it is a trial of."""

    name: str
    labels: tuple[tuple[str, str], ...]
    spec: Spec

    @cached_property
    def digest(self) -> str:
        """A name for the spec; settings that have their default do not count, so new ones change nothing."""
        text = json.dumps(self.spec.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def read(path: Path) -> Plan:
    """Return the plan in a file; raises UsageError for whatever is wrong in it, with the nearest key."""
    config = specs.read(path)
    for key in config:
        if key in Spec.model_fields.keys() - Plan.model_fields.keys():
            raise UsageError(f"{key} in {path} stands outside any table; put it below [campaign] or [grid]")
        if key not in Plan.model_fields:
            raise UsageError(f"unknown key {key!r} in {path}{nearest(key, Plan.model_fields)}")
    try:
        return Plan(**config)
    except ValidationError as error:
        key, *inside = map(str, error.errors()[0]["loc"])
        if key == "grid" and inside:
            wrong = f"{inside[0]} in [grid] must be a list of values, or tables of settings"
            raise UsageError(f"{path}: {wrong}") from None
        wrong = complaint(error, config[key], int if key == "trials" else dict)
        raise UsageError(f"{key} in {path} {wrong.replace('must be dict', 'must be a table')}") from None


def label(value: Any) -> str:
    """Return the name of a value: a text as it is, a list joined by +."""
    if isinstance(value, list):
        return " + ".join(map(label, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def cells(plan: Plan, file: str) -> list[Cell]:
    """Return all campaigns of a plan, the first trial of everything before the second.

    Args:
        plan: the plan.
        file: what the plan was read from, for error messages.

    Raises:
        UsageError: something in the plan is wrong.
    """
    if not plan.model_fields_set:
        raise UsageError(f"{file} is empty, so there is nothing to compare; put settings below [grid]")
    axes = {name: _points(name, axis, file) for name, axis in plan.grid.items()}
    if "seed" in plan.campaign or (plan.trials and "seed" in axes):
        right = "write either trials = 20 for the seeds 0 to 19, or seed in [grid]"
        raise UsageError(f"{file} gives the seeds in two ways; {right}")
    seeds = axes.pop("seed", None) or _points("seed", [*range(plan.trials or ENOUGH)], file)
    _check_baseline(plan, axes, file)
    if (many := math.prod(map(len, [seeds, *axes.values()]))) > _MOST:
        raise UsageError(f"{file} asks for {many} campaigns; the limit is {_MOST}")
    found: dict[str, Cell] = {}
    for points in itertools.product(seeds, *axes.values()):
        cell = _cell(plan, dict(zip(["seed", *axes], points, strict=True)), axes, file)
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
        named = [(label(v), [{name: [v] if several and isinstance(v, str) else v}]) for v in axis]
    else:
        named = [(at, given if isinstance(given, list) else [given]) for at, given in axis.items()]
    if not any(many for _, many in named):
        raise UsageError(f"{name} in [grid] of {file} has no values")
    if twice := [at for at, times in Counter(at for at, _ in named).items() if times > 1]:
        raise UsageError(f"{name} in [grid] of {file} names {twice[0]} twice")
    return [
        _Point(at, settings, f".{number}" if len(many) > 1 else "")
        for at, many in named
        for number, settings in enumerate(many)
    ]


def _cell(plan: Plan, named: Mapping[str, _Point], axes: Mapping[str, list[_Point]], file: str) -> Cell:
    settings: Settings = {"threads": 1, **plan.campaign}
    set_by: dict[str, str] = {}
    for name, point in named.items():
        if twice := sorted(set_by.keys() & point.settings.keys()):
            raise UsageError(f"{twice[0]} in {file} is set by two axes, {set_by[twice[0]]} and {name}")
        settings |= point.settings
        set_by |= dict.fromkeys(point.settings, name)
    varied = [name for name, points in axes.items() if len(points) > 1]
    title = " ".join(f"{name}={named[name].label}{named[name].number}" for name in [*varied, "seed"])
    labels = tuple((n, named[n].label) for n in varied if len({point.label for point in axes[n]}) > 1)
    return Cell(title, labels, specs.resolve(settings, {}, file))


def _check_baseline(plan: Plan, axes: Mapping[str, list[_Point]], file: str) -> None:
    for name, value in plan.baseline.items():
        where = f"[baseline] of {file}"
        if name not in axes:
            raise UsageError(f"{where} names {name!r}, which is not an axis{nearest(name, axes)}")
        known = [point.label for point in axes[name]]
        if label(value) not in known:
            wrong = f"{name} in {where} is {label(value)!r}, which is not a value of that axis"
            raise UsageError(wrong + nearest(label(value), known))


class View(Protocol):
    """What follows a sweep."""

    def begun(self, cell: Cell, again: bool) -> None:
        """Note that a campaign begins, or goes on."""

    def ended(self, cell: Cell) -> None:
        """Note that a campaign has ended."""

    def failed(self, failure: "Failure") -> None:
        """Note that a campaign could not be run."""

    def tick(self) -> object:
        """Note that some time has passed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Hold why a campaign failed; ``code`` is its exit code, or minus the signal that killed it."""

    cell: Cell
    code: int
    words: str


class Sweep:
    """Run the campaigns of a plan in a folder; a context manager that keeps other sweeps out of it.

    Attributes:
        cells: the campaigns.
        folder: where they are.
        failures: those that failed, or whose database cannot be read.
        done: those that have ended, in the order in which they did.
        running: those under way, with their processes.

    Raises:
        UsageError: another sweep works in the folder, or it belongs to a campaign.
    """

    def __init__(self, found: Sequence[Cell], folder: Path) -> None:
        self.cells, self.folder = list(found), folder
        self.failures: dict[Cell, Failure] = {}
        self.done: dict[Cell, Trial] = {}
        self.running: dict[Cell, Popen[bytes]] = {}
        self._stopped = self._asked = False
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
        """Return where a campaign is, or will be; its digest decides, since axes may have been added."""
        plain = re.sub(r"[^\w=.+-]+", "-", cell.name, flags=re.ASCII).strip("-.")[:80]
        return self._places.setdefault(cell.digest, self.folder / CAMPAIGNS / f"{plain}-{cell.digest}")

    def log(self, cell: Cell) -> Path:
        """Return the file with what a campaign printed."""
        return self.folder / LOGS / f"{self.directory(cell).name}.log"

    def stop(self) -> None:
        """Ask the campaigns under way to end, and begin no other."""
        self._stopped = True

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before all campaigns had ended."""
        return self._stopped and len(self.done) < len(self.cells)

    def run(self, jobs: int, view: View) -> None:
        """Run the campaigns to their ends, ``jobs`` at a time, until ``stop``; skip those that failed."""
        for failure in self.failures.values():
            view.failed(failure)
        left = [cell for cell in self.cells if cell not in self.done and cell not in self.failures]
        self._asked = False
        try:
            while self.running or (left and not self._stopped):
                while left and len(self.running) < jobs and not self._stopped:
                    self._begin(left.pop(0), view)
                if self._stopped:
                    self._terminate()
                time.sleep(TICK)
                for cell in [cell for cell, process in self.running.items() if process.poll() is not None]:
                    self._end(cell, view)
                view.tick()
        finally:  # after an error: leave no process running
            self._terminate()
            for process in self.running.values():
                process.wait()

    def _begin(self, cell: Cell, view: View) -> None:
        """Run a campaign in a process of its own."""
        directory, log = self.directory(cell), self.log(cell)
        view.begun(cell, has_commit(directory))
        specs.write(cell.spec, config := log.with_suffix(".toml"), {}, {})
        command = [sys.executable, "-m", _PROCESS, str(config), str(directory)]
        with log.open("ab") as said:
            self.running[cell] = Popen(  # in a group of its own: Ctrl-C is for the sweep, which passes it on
                command, stdin=DEVNULL, stdout=said, stderr=STDOUT, process_group=0
            )

    def _end(self, cell: Cell, view: View) -> None:
        """Record how the process of a campaign ended."""
        code = self.running.pop(cell).returncode
        if not self._judge(cell) and not self._stopped:
            self.failures[cell] = Failure(cell, code, self._said(cell, code))
        if cell in self.done:
            view.ended(cell)
        elif cell in self.failures:
            view.failed(self.failures[cell])

    def _judge(self, cell: Cell) -> bool:
        """Whether a campaign has ended or cannot be read; records which."""
        directory = self.directory(cell)
        try:
            if not has_commit(directory) or not (record := CampaignRecord.read(directory)).at_end:
                return False
            self.done[cell] = trial(record)
        except Exception as error:  # whatever is in the database, the other campaigns go on
            words = str(error) if isinstance(error, UsageError) else f"{directory}: {one_line(error)}"
            self.failures[cell] = Failure(cell, _UNREADABLE, words)
        return True

    def _terminate(self) -> None:
        """Ask the processes under way to end, each once: asked twice, they end at once."""
        if not self._asked:
            for process in self.running.values():
                process.terminate()
        self._asked = True

    def _said(self, cell: Cell, code: int) -> str:
        """Why a campaign's process ended, in its own words if it has any."""
        if code < 0:
            return f"its process was killed by signal {-code}; run the same sweep again to go on with it"
        lines = self.log(cell).read_text(encoding="utf-8", errors="replace").splitlines()
        own = [line.removeprefix(_OWN) for line in lines if line.startswith(_OWN)]
        return own[-1] if own else f"exit code {code}, see {self.log(cell)}"
