"""The findings of a campaign, shrunk one by one and kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmfuzz.campaign.build import shrinker
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.files import PICTURES
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.spec import NOTHING, Own
from lmfuzz.storage.store import Store
from lmfuzz.types import Finding


def shrink(directory: Path, number: int | None = None, own: Own = NOTHING) -> Iterator[tuple[int, Finding]]:
    """Shrink the findings of a campaign, or one; each is on disk when it is yielded, with its number.

    One that does not fail again stays as it is, without a minimal input. What is minimal already costs
    nothing.

    Raises:
        UsageError: there is no such campaign or finding, or its model is another now.
        TargetError: the model cannot be loaded.
        DiskError: the disk takes no more.
    """
    with Store.resume(directory) as store:
        record = store.record()
        found = dict(enumerate(record.findings, start=1))
        if number is not None:
            found = {number: record.finding(number)}
        large = any(finding.minimal is None for finding in found.values())
        shrinks = shrinker(record, own) if large else None
        for n, finding in found.items():
            if shrinks is not None and finding.minimal is None:
                finding = _shrunk(n, finding, shrinks, store)
            yield n, finding


def _shrunk(number: int, finding: Finding, shrinks: Shrinker, store: Store) -> Finding:
    """The finding with its minimal input, which is on disk by then; as it is when it does not fail again."""
    if (small := shrinks(finding)) is None:
        return finding
    store.minimise(number, small)
    if isinstance(store.space, BoxSpace) and store.space.image:
        from lmfuzz.inputs import render  # only where it is used: it loads Pillow

        seed = shrinks.seeds.row(finding.origin)
        render.save_minimal(store.directory / PICTURES, number, small.row, seed, store.space)
    return replace(finding, minimal=small)
