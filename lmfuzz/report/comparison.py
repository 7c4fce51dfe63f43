"""What a report says about several campaigns: what tells them apart, and their hits side by side."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmfuzz.report.campaign_view import Account
from lmfuzz.spec import Spec

_CELL = re.compile(r"(.+=.*)-[0-9a-f]{10}")  # a campaign's directory in a sweep: settings and a digest
_SETTING = re.compile(r"-(?=[^-=]+=)")  # between two settings


def names(directories: Sequence[Path]) -> list[str]:
    """Return names that tell campaigns apart: their paths without what all share at either end.

    Campaigns of a sweep are named by the settings that differ, if these tell them apart.
    """
    parts = [directory.parts for directory in directories]
    least = max(0, min(map(len, parts)) - 1)
    front = min(least, _shared(parts))
    back = min(least - front, _shared([one[::-1] for one in parts]))
    rest = [Path(*one[front : len(one) - back]) for one in parts]
    found = [str(path) for path in rest]
    cells = [_CELL.fullmatch(path.name) for path in rest]
    settings = [_SETTING.split(cell[1]) for cell in cells if cell]
    if len(settings) < len(rest):
        return found
    shared = set(settings[0]).intersection(*settings)
    differ = [", ".join(one for one in some if one not in shared) for some in settings]
    short = [str(path.parent / words) for path, words in zip(rest, differ, strict=True)]
    return short if len(set(short)) == len(short) and "." not in short else found


def hits(accounts: Sequence[Account]) -> list[tuple[str, list[int | None]]]:
    """Return the hits of every bucket in each campaign, the bucket that most of them found first.

    None means that a campaign did not have the bucket's objective, so it could not find it.
    """
    found: dict[tuple[str, str], list[int | None]] = {}
    for i, account in enumerate(accounts):
        for bucket in account.buckets:
            none = [0 if bucket.findings[0].objective in one.record.targets else None for one in accounts]
            found.setdefault((bucket.title, bucket.name), none)[i] = bucket.hits
    rows = sorted(
        found.items(), key=lambda row: (sum(not n for n in row[1]), -sum(n or 0 for n in row[1]), row[0])
    )
    return [(title, row) for (title, _), row in rows]


def differences(accounts: Sequence[Account]) -> list[str]:
    """Return sentences on which settings differ, and what that means for a comparison."""
    specs = [account.record.spec.model_dump() for account in accounts]
    differ = [key for key in Spec.model_fields if _several([spec[key] for spec in specs])]
    said = ", ".join(differ).replace("_", " ")
    sentences = [f"Settings that differ: {said}." if differ else "All settings are the same."]
    if _several([account.record.identity for account in accounts]):
        sentences.append("The models or their decoding differ: one may be unable to do what another did.")
    if "objectives" in differ:
        sentences.append('The objectives differ: "not looked for" marks buckets without an objective.')
    return sentences


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many leading parts all have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))


def _several(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)
