"""The formats that a campaign's findings can be exported in, by name."""

from collections.abc import Callable
from pathlib import Path

from lmfuzz.errors import UsageError, nearest
from lmfuzz.exports.dossier import Dossier
from lmfuzz.exports.junit import junit
from lmfuzz.exports.markdown import markdown
from lmfuzz.exports.regression import pytest_file
from lmfuzz.exports.sarif import sarif
from lmfuzz.exports.tables import csv_table, jsonl

FORMATS: dict[str, Callable[[Dossier], str]] = {
    "jsonl": jsonl, "csv": csv_table, "pytest": pytest_file, "junit": junit, "sarif": sarif,
    "markdown": markdown,
}  # fmt: skip


def known(name: str) -> Callable[[Dossier], str]:
    """The format of this name; UsageError with the nearest when there is none."""
    if name not in FORMATS:
        close = nearest(name, FORMATS) or f"; there are {', '.join(FORMATS)}"
        raise UsageError(f"there is no format {name!r}{close}")
    return FORMATS[name]


def write(text: str, file: Path) -> None:
    """Write a whole file, or leave what was there; OSError where that cannot be."""
    draft = file.with_name(file.name + ".part")
    draft.write_text(text, encoding="utf-8", newline="")
    draft.replace(file)
