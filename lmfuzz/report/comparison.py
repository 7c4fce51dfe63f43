"""What a report says of several campaigns together: what tells them apart, and their hits side by side."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmfuzz.report.campaign_view import Account
from lmfuzz.spec import Spec

# A sweep's name of a campaign: settings, and a digest of its spec.
_CELL = re.compile(r"(.+=.*)-[0-9a-f]{10}")
_SETTING = re.compile(r"-(?=[^-=]+=)")  # between two of them


def names(directories: Sequence[Path]) -> list[str]:
    """Names that tell campaigns apart: their paths without what all have in common at either end.

    Those of a sweep are called by the settings that differ, where these tell them apart.
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
    """The hits of every bucket in each campaign, the bucket that most of them found first.

    None where a campaign did not have the bucket's objective, so that it could not find it.
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
    """Sentences on which settings differ, and what that means for a comparison."""
    specs = [account.record.spec.model_dump() for account in accounts]
    differ = [key for key in Spec.model_fields if _several([spec[key] for spec in specs])]
    said = ", ".join(differ).replace("_", " ")
    sentences = [f"Settings that differ: {said}." if differ else "All settings are the same."]
    if _several([account.record.identity for account in accounts]):
        sentences.append("The models, or how they wrote, differ: what one did, another may be unable to do.")
    if "objectives" in differ:
        sentences.append(
            'The objectives differ: a bucket that a campaign had no objective for is marked "not looked for".'
        )
    return sentences


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """How many parts at the beginning all have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))


def _several(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)
