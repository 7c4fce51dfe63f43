"""How campaigns begin and resume, for the command line and for Python."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from lmfuzz.campaign.build import Parts, build
from lmfuzz.campaign.campaign import Campaign, Observer, spec_for_resume
from lmfuzz.campaign.signals import stop_on_signal
from lmfuzz.spec import Own
from lmfuzz.storage import known
from lmfuzz.storage.store import Store
from lmfuzz.text import plural

View = Callable[[Campaign], AbstractContextManager[Observer]]
Note = Callable[[str], object]
EVERY = 5.0  # seconds between notes about calibration


def silent(_: Campaign) -> AbstractContextManager[Observer]:
    """Show nothing while a campaign runs."""
    return nullcontext(Observer())


def begin(parts: Parts, directory: Path, note: Note, view: View) -> Campaign:
    """Calibrate a campaign, run it in a new directory, and return it.

    Args:
        parts: what ``lmfuzz.campaign.build.build`` made from a spec.
        directory: the new directory of the campaign.
        note: called with each line that a person should read before the run.
        view: what to show during the run.

    Raises:
        UsageError: an objective does not fit the model, or the directory is not empty.
        DiskError: the disk is full; the directory holds the last commit.
    """
    campaign = Campaign.begin(parts, _calibrating(note))
    note(campaign.calibration.words())
    for name, floor in campaign.objectives.noise.items():
        note(f"noise floor of {name}: {floor:.3g}; smaller differences are not findings")
    with campaign.create(directory) as store:
        _run(campaign, store, view)
    return campaign


def _calibrating(note: Note) -> Callable[[int, int], None]:
    """Return what notes every few seconds how far calibration is."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            note(f"calibrating: {done} of {total} executions")

    return progress


def go_on(directory: Path, given: Mapping[str, Any], own: Own, note: Note, view: View) -> Campaign:
    """Resume the campaign in a directory, with a larger budget if one is given, and return it.

    Args:
        directory: the directory of the campaign.
        given: settings to change: budget and stop_after, which include what was spent and found; baseline
            and ignore, for what is found from now on; trust_remote_code. Those that are None or empty stay.
        own: the objects that the campaign was given from Python.
        note: as for ``begin``.
        view: as for ``begin``.

    Raises:
        UsageError: nothing is left to spend, or the campaign does not fit its model any more.
        DiskError: the disk is full; the directory holds the last commit.
    """
    spec = spec_for_resume(directory, **given)
    with Store.resume(directory) as store:
        record = store.record()
        if baseline := given.get("baseline"):
            record = replace(record, baseline=known.read(baseline))
        campaign = Campaign.restore(build(spec, own, record), store)
        note(f"going on with {directory} after {plural(campaign.executor.executions, 'execution')}")
        _run(campaign, store, view)
    return campaign


def _run(campaign: Campaign, store: Store, view: View) -> None:
    with view(campaign) as observer, stop_on_signal(campaign.stop):
        campaign.run(store, observer)


def default_directory() -> Path:
    """Return runs/DATE-TIME, with a number added if that exists."""
    now = Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    numbered = (now.with_name(f"{now.name}-{number}") for number in count(2))
    return next(path for path in chain([now], numbered) if not path.exists())
