"""The formats that a campaign's findings can be exported in, by name."""

from collections.abc import Callable

from lmfuzz.errors import UsageError, nearest
from lmfuzz.exports.export_model import Dossier
from lmfuzz.exports.junit import junit
from lmfuzz.exports.markdown import markdown
from lmfuzz.exports.regression import pytest_file
from lmfuzz.exports.sarif import sarif
from lmfuzz.exports.tables import baseline, csv_table, jsonl

FORMATS: dict[str, Callable[[Dossier], str]] = {
    "jsonl": jsonl, "csv": csv_table, "pytest": pytest_file, "junit": junit, "sarif": sarif,
    "markdown": markdown, "baseline": baseline,
}  # fmt: skip


def known(name: str) -> Callable[[Dossier], str]:
    """Return the format of this name; UsageError, with the nearest name, if there is none."""
    if name not in FORMATS:
        close = nearest(name, FORMATS) or f"; there are {', '.join(FORMATS)}"
        raise UsageError(f"there is no format {name!r}{close}")
    return FORMATS[name]
