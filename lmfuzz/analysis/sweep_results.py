"""The results of a sweep: what every setting found, how soon, and how that compares with the baseline."""

import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lmfuzz
from lmfuzz import files
from lmfuzz.analysis.survival import (
    ENOUGH,
    Times,
    Trial,
    a12,
    gehan,
    logrank,
    mann_whitney,
    median_interval,
    p_text,
    survival,
)
from lmfuzz.analysis.sweep import Plan, Sweep, label
from lmfuzz.text import as_utf8, bucket_title, escape, markdown_code, plural
from lmfuzz.text import spreadsheet_cell as harmless

Labels = tuple[tuple[str, str], ...]  # axis and value
ANY = "any bucket"
MOST = 40  # buckets that a page shows; the CSV has all
_HEADS = {
    "trials": "trials", "executions": "executions", "seconds": "seconds", "buckets": "buckets",
    "more": "A12, more buckets", "p": "p (Mann-Whitney)", "bucket": "bucket", "found": "found",
    "executions_sooner": "sooner (A12, p)", "seconds_sooner": "sooner (A12, p)",
}  # fmt: skip
_PAGE = Path(lmfuzz.__file__).parent / "report" / "sweep.html"
_ENDS = ("_low", "_high")  # of the interval of a value, in columns of their own in the CSV
_SOONER, _P = "_sooner", "_log_rank"  # how a time compares: A12, and the same of its p


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and rows with a value for each; None where there is none."""

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Any]]

    def shown(
        self, most: int | None = None, quote: Callable[[str], str] = str
    ) -> tuple[list[str], list[list[str]]]:
        """Heads and rows as a person reads them: escaped, an interval or p beside its value.

        quote: what is done to texts that are not lmfuzz's own.
        """
        heads = [name for name in self.columns if not name.endswith((*_ENDS, _P))]
        texts = []
        for values in self.rows[:most]:
            row = dict(zip(self.columns, values, strict=True))
            shown = ((_text(name, row), row[name]) for name in heads)
            texts.append([quote(text) if isinstance(value, str) else text for text, value in shown])
        return [_HEADS.get(name) or quote(escape(name)) for name in heads], texts


class Note(NamedTuple):
    """Something to know about the numbers, and the names, not escaped, that it is about."""

    words: str
    names: str = ""

    def text(self, quote: Callable[[str], str] = str) -> str:
        """As a person reads it, its names escaped, then quoted."""
        return f"{self.words}: {quote(escape(self.names))}" if self.names else self.words


@dataclass(frozen=True, slots=True)
class Results:
    """A table per setting, one per setting and bucket, and what to know about them."""

    name: str
    settings: Table
    buckets: Table
    notes: tuple[Note, ...]


def results(sweep: Sweep, plan: Plan, trials: Sequence[tuple[Labels, Trial]]) -> Results:
    """The results of those campaigns that are at their end."""
    arms: dict[Labels, list[Trial]] = {cell.labels: [] for cell in sweep.cells}
    for labels, trial in trials:
        arms[labels].append(trial)
    axes = tuple(name for name, _ in next(iter(arms)))
    chosen = {name: label(value) for name, value in plan.baseline.items() if name in axes}
    rivals = {labels: _rival(labels, chosen, arms) for labels in arms}
    found = Counter(bucket for trials in arms.values() for one in trials for bucket in one.first)
    names = [None, *(bucket for bucket, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))]
    ours = [labels for labels in arms if arms[labels]]
    return Results(
        sweep.folder.name,
        Table(
            "What every setting found",
            (*axes, "trials", "executions", "seconds", *_wide("buckets"), "more", "p"),
            [[*_values(labels), *_found(arms[labels], rivals[labels])] for labels in ours],
        ),
        Table(
            "How soon, to the first confirmed finding",
            ("bucket", *axes, "found", "trials", *_timed("executions"), *_timed("seconds")),
            [
                [bucket or ANY, *_values(labels), *_soon(bucket, arms[labels], rivals[labels])]
                for bucket in names
                for labels in ours
            ],
        ),
        tuple(_notes(sweep, plan, arms, chosen)),
    )


def _wide(name: str) -> list[str]:
    """The columns of a value with an interval."""
    return [name, *(name + end for end in _ENDS)]


def _timed(unit: str) -> list[str]:
    """The columns of a time, and of how it compares."""
    return [*_wide(unit), unit + _SOONER, unit + _P]


def _values(labels: Labels) -> list[str]:
    return [value for _, value in labels]


def _rival(labels: Labels, chosen: Mapping[str, str], arms: Mapping[Labels, list[Trial]]) -> list[Trial]:
    """The trials that those of ``labels`` are compared with; none of the baseline itself."""
    base = tuple((name, chosen.get(name, value)) for name, value in labels)
    return [] if base == labels or not chosen else arms.get(base, [])


def _found(ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """Trials, medians of executions, seconds and buckets, and whether there are more than theirs."""
    many, others = [len(one.first) for one in ours], [len(one.first) for one in theirs]
    return [
        len(ours), statistics.median(one.executions for one in ours),
        statistics.median(one.seconds for one in ours),
        statistics.median(many), *(median_interval(many) or (None, None)),
        a12(many, others) if others else None, mann_whitney(many, others) if others else None,
    ]  # fmt: skip


def _soon(bucket: str | None, ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """How many trials found a bucket, or any; medians until then; whether that is sooner than theirs."""
    row: list[Any] = []
    for unit in (0, 1):  # executions, seconds
        times, found = _times(bucket, unit, ours)
        life = survival(times, found)
        row += [life.found, life.trials] if not row else []
        row += [life.median, life.low, life.high]
        other = _times(bucket, unit, theirs)
        row += [gehan((times, found), other)[0], logrank((times, found), other)] if theirs else [None] * 2
    return row


def _times(bucket: str | None, unit: int, trials: Sequence[Trial]) -> Times:
    """When each trial found a bucket, or ended without, and whether it did."""
    whole = [(trial.executions, trial.seconds)[unit] for trial in trials]
    first = [
        trial.first.get(bucket) if bucket is not None else min(trial.first.values(), default=None)
        for trial in trials
    ]
    times = [float(end if at is None else at[unit]) for at, end in zip(first, whole, strict=True)]
    return times, [at is not None for at in first]


def _notes(
    sweep: Sweep, plan: Plan, arms: Mapping[Labels, list[Trial]], chosen: Mapping[str, str]
) -> Iterator[Note]:
    """What to know about the numbers."""
    trials = [one for many in arms.values() for one in many]
    if missing := len(sweep.cells) - len(trials):
        are = f"{missing} of {plural(len(sweep.cells), 'campaign')} are"
        failed = [failure.cell.name for failure in sweep.failures]
        yield Note(f"{are} not at their end, and not in here")
        if failed:
            yield Note(f"warning: {plural(len(failed), 'campaign')} failed", ", ".join(failed))
    if few := [len(of) for of in arms.values() if len(of) < ENOUGH]:
        many = plural(few[0], "trial") if len({*few}) == 1 else f"{min(few)} to {max(few)} trials"
        yield Note(f"warning: {many} per setting; below {ENOUGH}, what looks like a difference may be chance")
    if blind := sum(trial.unscored > 0 for trial in trials):
        yield Note(
            f"warning: in {plural(blind, 'campaign')} some rows could not be scored, which says nothing"
        )
    if chosen:
        base = ", ".join(f"{name}={value}" for name, value in chosen.items())
        yield Note(
            "p is two-sided, not corrected for the number of comparisons; A12 and p compare with", base
        )
        yield Note(
            "sooner is A12 over all pairs of trials, those whose order is not known counting half (Gehan),"
            " with the log-rank p"
        )
    elif plan.baseline:
        yield Note(
            "nothing is compared, since what [baseline] names has one value only", ", ".join(plan.baseline)
        )
    else:
        yield Note("nothing is compared, since no [baseline] is chosen")
    if any(cell.spec.stop_after for cell in sweep.cells):
        yield Note(
            "with stop_after a campaign ends at that many findings, flaky ones included, whatever else there"
            " was to find; what it had not found by then is censored there"
        )
    yield Note(
        "medians with 95 % intervals: of buckets by bootstrap, of times by Kaplan and Meier, where a trial "
        "that found nothing may have found it later; executions count from the end of calibration"
    )


def _text(name: str, row: Mapping[str, Any]) -> str:
    value = row[name]
    if value is not None and (place := name.replace(_SOONER, _P)) != name and place in row:
        p = row[place]
        return f"{value:.2f}, {'no p' if p is None else p_text(p)}"
    if f"{name}_low" not in row:
        return _number(name, value)
    low, high = (_number(name, row[name + end]) for end in _ENDS)
    between = f" ({low} to {high})" if low and high else f" ({low} or more)" if low else ""
    return f"{_number(name, value) or 'not reached'}{between}"


def _number(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "p":
        return p_text(value)
    if name == "more":
        return f"{value:.2f}"
    if isinstance(value, float):
        return f"{value:.0f}" if name == "executions" else f"{value:.4g}"
    return bucket_title(str(value)) if name == "bucket" else escape(str(value))


def as_lines(table: Table) -> Iterator[str]:
    """A table for a terminal."""
    heads, rows = table.shown()
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def as_csv(table: Table) -> str:
    """All columns and rows; what a spreadsheet could run begins with '."""
    out = io.StringIO()
    lines = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    lines.writerow([harmless(name) for name in table.columns])
    lines.writerows([["" if value is None else harmless(value) for value in row] for row in table.rows])
    return out.getvalue()


def as_markdown(found: Results) -> str:
    """Both tables and the notes; texts that are not lmfuzz's own stand in code: nothing in it is obeyed."""
    lines = [f"# {markdown_code(escape(found.name))}", ""]
    for table in (found.settings, found.buckets):
        heads, rows = table.shown(_most(found), _in_cell)
        lines += [f"## {table.caption}", ""]
        head, *body = (f"| {' | '.join(texts)} |" for texts in (heads, *rows))
        lines += [head, "|" + "---|" * len(heads), *body, *_left_out(found, table), ""]
    return "\n".join([*lines, *(f"- {note.text(markdown_code)}" for note in found.notes), ""])


def as_html(found: Results) -> str:
    """A page that opens offline: both tables and the notes."""
    from jinja2 import Environment  # only where it is used

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _PAGE.read_text(encoding="utf-8")
    )
    tables = [
        (table.caption, *table.shown(_most(found)), _left_out(found, table))
        for table in (found.settings, found.buckets)
    ]
    return page.render(name=escape(found.name), tables=tables, notes=[note.text() for note in found.notes])


def _most(found: Results) -> int:
    """Rows of a table that a page shows: those of MOST buckets, and of any."""
    return max(1, len(found.settings.rows)) * (MOST + 1)


def _left_out(found: Results, table: Table) -> list[str]:
    more = (len(table.rows) - _most(found)) // max(1, len(found.settings.rows))
    return ["", f"and {plural(more, 'bucket')} more, in buckets.csv"] if more > 0 else []


def _in_cell(text: str) -> str:
    """Code in a cell of a Markdown table, which a bar ends, unless backslashes, of an odd number, hide it."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", markdown_code(text))


def write(found: Results, folder: Path) -> list[Path]:
    """The results as files in a folder: results.csv (settings), buckets.csv, results.md, results.html."""
    texts = {
        "results.csv": as_csv(found.settings), "buckets.csv": as_csv(found.buckets),
        "results.md": as_markdown(found), "results.html": as_html(found),
    }  # fmt: skip
    for name, text in texts.items():
        files.write(as_utf8(text), folder / name)
    return [folder / name for name in texts]
