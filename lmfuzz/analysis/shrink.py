"""The findings of a campaign, shrunk one by one and kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmfuzz.campaign.build import shrinker
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.files import PICTURES
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.spec import NO_OBJECTS, Own
from lmfuzz.storage.store import Store
from lmfuzz.types import Finding


def shrink(
    directory: Path, number: int | None = None, own: Own = NO_OBJECTS, trust: bool | None = None
) -> Iterator[tuple[int, Finding]]:
    """Shrink the findings of a campaign, or one; each is on disk when it is yielded, with its number.

    A finding that does not fail again stays as it is, without a minimal input. One that is minimal already
    costs nothing. ``trust`` is --trust-remote-code.

    Raises:
        UsageError: there is no such campaign or finding, or its model has changed.
        TargetError: the model cannot be loaded.
        DiskError: the disk is full.
    """
    with Store.resume(directory) as store:
        record = store.record().trusting(trust)
        numbers = range(1, len(record.findings) + 1) if number is None else [number]
        large = any(record.finding(n).minimal is None for n in numbers)
        shrinks = shrinker(record, own) if large else None
        for n in numbers:
            finding = record.finding(n)
            if shrinks is not None and finding.minimal is None:
                finding = _shrunk(n, finding, shrinks, store)
            yield n, finding


def _shrunk(number: int, finding: Finding, shrinks: Shrinker, store: Store) -> Finding:
    """The finding with its minimal input, which is on disk by then; as it is if it does not fail again."""
    if (small := shrinks(finding)) is None:
        return finding
    store.minimise(number, small)
    if isinstance(store.space, BoxSpace) and store.space.image:
        from lmfuzz.inputs import render  # only when it is used: it loads Pillow

        seed = shrinks.seeds.row(finding.origin)
        render.save_minimal(store.directory / PICTURES, number, small.row, seed, store.space)
    return replace(finding, minimal=small)
