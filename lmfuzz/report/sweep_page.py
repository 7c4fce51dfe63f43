"""The results of a sweep: for a terminal, as CSV, as Markdown, and as a page that opens offline."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmfuzz import files
from lmfuzz.analysis.survival import p_text
from lmfuzz.analysis.sweep_results import ENDS, LOG_RANK, SOONER, Quote, Results, Table
from lmfuzz.report.page import template
from lmfuzz.text import as_utf8, bucket_title, columns, escape, markdown_code, plural, spreadsheet_cell

Shown = tuple[list[str], list[list[str]]]  # heads and rows
MOST = 40  # buckets on a page; the CSV has all
_FORMS = {"more": ".2f", "executions": ".0f"}  # how numbers are shown, if not with four digits
_HEADS = {
    "trials": "trials", "executions": "executions", "seconds": "seconds", "buckets": "buckets",
    "more": "A12, more buckets", "p": "p (Mann-Whitney)", "bucket": "bucket", "found": "found",
    "executions_sooner": "sooner (A12, p)", "seconds_sooner": "sooner (A12, p)",
}  # fmt: skip


def shown(table: Table, most: int | None = None, quote: Quote = str) -> Shown:
    """Return heads and rows as a person reads them: escaped, an interval or p beside its value."""
    heads = [name for name in table.columns if not name.endswith((*ENDS, LOG_RANK))]
    texts = []
    for values in table.rows[:most]:
        row = dict(zip(table.columns, values, strict=True))
        cells = ((_text(name, row), row[name]) for name in heads)
        texts.append([quote(text) if isinstance(value, str) else text for text, value in cells])
    return [_HEADS.get(name) or quote(escape(name)) for name in heads], texts


def _text(name: str, row: Mapping[str, Any]) -> str:
    value = row[name]
    if value is not None and (place := name.replace(SOONER, LOG_RANK)) != name and place in row:
        p = row[place]
        return f"{value:.2f}, {'no p' if p is None else p_text(p)}"
    if f"{name}_low" not in row:
        return _number(name, value)
    low, high = (_number(name, row[name + end]) for end in ENDS)
    between = f" ({low} to {high})" if low and high else f" ({low} or more)" if low else ""
    return f"{_number(name, value) or 'not reached'}{between}"


def _number(name: str, value: Any) -> str:
    if isinstance(value, float):
        return p_text(value) if name == "p" else format(value, _FORMS.get(name, ".4g"))
    text = "" if value is None else str(value)
    return bucket_title(text) if name == "bucket" else escape(text)


def as_lines(table: Table) -> Iterator[str]:
    """Yield a table as lines for a terminal."""
    heads, rows = shown(table)
    return columns([heads, *rows])


def as_csv(table: Table) -> str:
    """Return all columns and rows; what a spreadsheet could run begins with '."""
    out = io.StringIO()
    rows = [map(spreadsheet_cell, row) for row in (table.columns, *table.rows)]
    csv.writer(out, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return out.getvalue()


def as_markdown(found: Results) -> str:
    """Return both tables and the notes; texts that are not lmfuzz's own stand in code: no markup acts."""
    lines = [f"# {markdown_code(escape(found.name))}", ""]
    for caption, heads, rows, left_out in _tables(found, _in_cell):
        lines += [f"## {caption}", ""]
        head, *body = (f"| {' | '.join(texts)} |" for texts in (heads, *rows))
        lines += [head, "|" + "---|" * len(heads), *body, "", *([left_out, ""] if left_out else [])]
    return "\n".join([*lines, *(f"- {note.text(markdown_code)}" for note in found.notes), ""])


def as_html(found: Results) -> str:
    """Return a page that opens offline, with both tables and the notes."""
    notes = [note.text() for note in found.notes]
    return template("sweep.html").render(name=escape(found.name), tables=_tables(found), notes=notes)


def _tables(found: Results, quote: Quote = str) -> Iterator[tuple[str, *Shown, str]]:
    """Caption, heads and rows of both tables, for MOST buckets and any; and what is left out."""
    settings = max(1, len(found.settings.rows))
    for table in (found.settings, found.buckets):
        more = len(table.rows) // settings - MOST - 1
        left_out = f"and {plural(more, 'bucket')} more, in buckets.csv" if more > 0 else ""
        yield table.caption, *shown(table, settings * (MOST + 1), quote), left_out


def _in_cell(text: str) -> str:
    """Code in a cell of a Markdown table: a bar ends it unless an odd number of backslashes come before."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", markdown_code(text))


def write(found: Results, folder: Path) -> list[Path]:
    """Write results.csv (settings), buckets.csv, results.md and results.html, and return their paths."""
    texts = {
        "results.csv": as_csv(found.settings), "buckets.csv": as_csv(found.buckets),
        "results.md": as_markdown(found), "results.html": as_html(found),
    }  # fmt: skip
    for name, text in texts.items():
        files.write(as_utf8(text), folder / name)
    return [folder / name for name in texts]
