"""Campaigns begun and gone on with, for the command line and for Python."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path

from lmfuzz.campaign.build import Parts, build
from lmfuzz.campaign.campaign import Campaign, Observer, spec_for_resume
from lmfuzz.campaign.signals import stop_on_signal
from lmfuzz.spec import Own
from lmfuzz.storage.store import Store
from lmfuzz.text import plural

View = Callable[[Campaign], AbstractContextManager[Observer]]
Note = Callable[[str], object]


def silent(campaign: Campaign) -> AbstractContextManager[Observer]:
    """Show nothing while a campaign runs."""
    return nullcontext(Observer())


def begin(parts: Parts, directory: Path, note: Note, view: View) -> Campaign:
    """Calibrate a campaign, run it in a new directory, and return it.

    Args:
        parts: what ``lmfuzz.campaign.build.build`` made of a spec.
        directory: where the campaign is to be.
        note: called with each line that a person should know before it runs.
        view: what is shown while it runs.

    Raises:
        UsageError: an objective does not fit the model, or the directory is taken.
        DiskError: the disk takes no more; the directory holds what was committed before.
    """
    campaign = Campaign.begin(parts)
    note(campaign.calibration.words())
    for name, floor in campaign.objectives.noise.items():
        note(f"noise floor of {name}: {floor:.3g}; smaller differences are not findings")
    with campaign.create(directory) as store:
        _run(campaign, store, view)
    return campaign


def go_on(
    directory: Path, budget: str | None, stop_after: int | None, own: Own, note: Note, view: View
) -> Campaign:
    """Go on with the campaign in a directory, with a larger budget if one is given, and return it.

    ``own`` are the objects that it was given from Python; the rest is as of ``begin``.
    """
    spec = spec_for_resume(directory, budget, stop_after)
    with Store.resume(directory) as store:
        campaign = Campaign.restore(build(spec, own, store.record()), store)
        note(f"going on with {directory} after {plural(campaign.executor.executions, 'execution')}")
        _run(campaign, store, view)
    return campaign


def _run(campaign: Campaign, store: Store, view: View) -> None:
    with view(campaign) as observer, stop_on_signal(campaign.stop):
        campaign.run(store, observer)


def default_directory() -> Path:
    """Return runs/DATE-TIME, with a number after it if that exists."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = Path("runs") / now, 2
    while path.exists():
        path, number = Path("runs") / f"{now}-{number}", number + 1
    return path
