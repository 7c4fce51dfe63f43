"""Behaviour that one knows already: the buckets of a baseline, and those whose names match a pattern."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, NonNegativeInt, ValidationError

from lmfuzz.errors import UsageError
from lmfuzz.inputs.reading import read_text
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import as_utf8, bucket_title, plural

Buckets = Mapping[str, Mapping[str, int]]  # objective target -> signature -> how many inputs fell into it
FORMAT = 1  # of a baseline file


class Baseline(BaseModel):
    """Hold what a baseline file says; docs/baselines.md describes it.

    Attributes:
        baseline: the version of the format.
        buckets: what is known.
    """

    baseline: Literal[1]
    buckets: dict[str, dict[str, NonNegativeInt]]


class Known:
    """Tell buckets that are known from new ones: ``bucket in known``.

    A name also covers the names below it: ``X`` covers ``X/anything``. Spaces after colons do not count.

    Args:
        buckets: those of a baseline.
        patterns: shell-style patterns of the names of others, as they are printed.
    """

    def __init__(self, buckets: Buckets, patterns: Sequence[str]) -> None:
        self.buckets, self.patterns = buckets, patterns
        self._names = {_plain(f"{target}: {name}") for target, of in buckets.items() for name in of}
        self._seen: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._names or self.patterns)

    def __contains__(self, bucket: str) -> bool:
        if not self:  # and nothing is to be remembered of the names of all hits
            return False
        if bucket not in self._seen:
            name = _plain(bucket)
            above = (name[:end] for end in range(len(name)) if name[end] == "/")
            listed = not self._names.isdisjoint((name, *above))
            self._seen[bucket] = listed or any(matches(pattern, bucket) for pattern in self.patterns)
        return self._seen[bucket]

    def covers(self, bucket: str, variant: str) -> bool:
        """Return whether a variant of a bucket is known; baselines of 0.3.0 have one text for both."""
        names = [f"{bucket}/{variant}", f"{bucket} {variant}"] if variant else [bucket]
        return any(name in self for name in names)

    def notes(self, baselines: Sequence[str]) -> list[str]:
        """Return a line that says how many buckets were read from ``baselines``, if there are any."""
        many, where = len(self._names), ", ".join(baselines)
        if not many:
            return [f"the baseline {where} is empty, so that every bucket is new"] if where else []
        return [f"{plural(many, 'bucket')} in {where}: known, so counted and not reported"]


def matches(pattern: str, bucket: str) -> bool:
    """Return whether a pattern covers a bucket, by its full name or by its name as it is printed."""
    wanted = _plain(pattern)
    names = {_plain(bucket), _plain(bucket_title(bucket))}
    return any(
        name == wanted or fnmatchcase(name, wanted) or fnmatchcase(name, f"{wanted}/*") for name in names
    )


def _plain(name: str) -> str:
    return as_utf8(name).replace(": ", ":")


def buckets_of(record: CampaignRecord) -> dict[str, dict[str, int]]:
    """Return the buckets of a campaign, and those of its own baseline; what it ignored is not among them."""
    found = {target: dict(of) for target, of in record.baseline.items()}
    for bucket, hits in record.hits.items():
        targets = (target for target in record.targets if bucket.startswith(f"{target}: "))
        target = max(targets, key=len, default=bucket.partition(": ")[0])
        found.setdefault(target, {})[bucket[len(target) + 2 :]] = hits
    return found


def read(baselines: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the buckets of all these baselines: campaigns' directories, and files of exported baselines.

    Raises:
        UsageError: one is neither.
    """
    found: dict[str, dict[str, int]] = {}
    for text in baselines:
        path = Path(text).expanduser()
        buckets = buckets_of(CampaignRecord.read(path)) if path.is_dir() else _read_file(path)
        for target, of in buckets.items():
            found.setdefault(target, {}).update(of)
    return found


def _read_file(path: Path) -> dict[str, dict[str, int]]:
    try:
        return Baseline.model_validate_json(read_text(path, "baseline"), strict=True).buckets
    except ValidationError:
        right = "give a campaign's directory, or a file that `lmfuzz export --format baseline` wrote"
        raise UsageError(f"{path} is not a baseline; {right}") from None


def known_to(record: CampaignRecord, baseline: Sequence[str] = (), ignore: Sequence[str] = ()) -> Known:
    """Return what a campaign knows already, or what is given instead of its own baseline and patterns."""
    return Known(read(baseline) if baseline else record.baseline, ignore or record.spec.ignore)
