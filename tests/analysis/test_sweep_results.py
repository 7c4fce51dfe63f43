"""The results of a sweep: what stands in the tables, and that nothing of a stranger's acts in them."""

import csv
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from lmfuzz.analysis.survival import Trial
from lmfuzz.analysis.sweep import Failure, Plan, Sweep, cells
from lmfuzz.analysis.sweep_results import ANY, results
from lmfuzz.report.sweep_page import MOST, as_csv, as_html, as_lines, as_markdown, shown, write

HOSTILE = (
    "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "a|b\nc", "\x1b[2Jgone", "\u202egnp.exe",
    "`x` **b** [l](u)", "https://evil.example", "see www.evil.example", "@octocat", "a$b$c", "a\\|b", "``|``",
)  # fmt: skip


def made(folder: Path, trials: dict[str, list[Trial]], baseline: bool = True, **settings):
    """Results of searches, each with its trials."""
    axes = {"search": list(trials), "seed": [*range(max(map(len, trials.values())))]}
    plan = Plan(campaign=settings, grid=axes, baseline={"search": "random"} if baseline else {})
    with Sweep(cells(plan, "x.toml"), folder / "s<b>w") as sweep:
        return results(sweep, plan, [((("search", n),), one) for n, many in trials.items() for one in many])


def once(bucket: str, at: int) -> Trial:
    return Trial(100, 10.0, {bucket: (at, at / 10)})


NOTHING = Trial(100, 10.0, {})


@pytest.fixture
def found(tmp_path: Path):
    better = [Trial(100, 10.0, {"a: a": (n, n / 10), "b: b": (50, 5.0)}) for n in range(1, 21)]
    return made(tmp_path, {"random": [once("a: a", 90)] + [NOTHING] * 19, "walk": better})


def test_the_tables_say_what_was_found_and_how_soon(found) -> None:
    rows = [dict(zip(found.settings.columns, row, strict=True)) for row in found.settings.rows]
    assert [row["search"] for row in rows] == ["random", "walk"]
    assert [row["trials"] for row in rows] == [20, 20]
    assert (rows[1]["buckets"], rows[1]["buckets_low"], rows[1]["buckets_high"]) == (2, 2, 2)
    assert rows[0]["more"] is None, "the baseline is not compared with itself"
    assert rows[1]["more"] == 1
    assert rows[1]["p"] < 1e-6
    soon = {
        (row[0], row[1]): dict(zip(found.buckets.columns, row, strict=True)) for row in found.buckets.rows
    }
    assert [row[0] for row in found.buckets.rows[::2]] == [ANY, "a: a", "b: b"]
    assert soon["a: a", "random"]["found"] == 1
    assert soon["a: a", "random"]["executions"] is None
    assert soon["a: a", "walk"]["executions"] == 10
    assert soon["a: a", "walk"]["seconds"] == 1.0
    assert soon["a: a", "random"]["seconds_sooner"] is None
    for unit in ("executions", "seconds"):
        assert soon["a: a", "walk"][f"{unit}_sooner"] == 1
        assert soon["b: b", "walk"][f"{unit}_log_rank"] < 1e-6
    assert not any("warning" in note.words for note in found.notes)
    assert any(note.names == "search=random" for note in found.notes)


def test_executions_and_seconds_are_compared_each_for_itself(tmp_path: Path) -> None:
    slow = [Trial(100, 900.0, {"a: a": (n, 30.0 * n)}) for n in range(1, 21)]
    quick = [Trial(100, 10.0, {"a: a": (n + 50, (n + 50) / 10)}) for n in range(1, 21)]
    compared = made(tmp_path, {"random": quick, "walk": slow})
    row = dict(zip(compared.buckets.columns, compared.buckets.rows[-1], strict=True))
    assert row["executions_sooner"] == 1
    assert row["seconds_sooner"] < 0.01
    heads, rows = shown(compared.buckets)
    assert len(heads) == 8
    assert rows[-1][heads.index("sooner (A12, p)")] == "1.00, < 0.001"


def test_a_trial_that_ended_early_is_not_taken_for_late(tmp_path: Path) -> None:
    """Both find b as often; walk also finds a, and ends there."""
    random = [Trial(100, 10.0, {"b: b": (50 + n, 5.0)}) if n < 4 else NOTHING for n in range(20)]
    walk = [Trial(5 + n, 1.0, {"a: a": (5 + n, 1.0)}) for n in range(20)]
    ended = made(tmp_path, {"random": random, "walk": walk}, stop_after=1)
    rows = [dict(zip(ended.buckets.columns, row, strict=True)) for row in ended.buckets.rows]
    (row,) = [row for row in rows if (row["bucket"], row["search"]) == ("b: b", "walk")]
    assert row["executions_sooner"] == 0.5
    assert any("stop_after" in note.words for note in ended.notes)
    assert row["executions"] is None
    assert not any(
        "stop_after" in note.words for note in made(tmp_path, {"random": random, "walk": walk}).notes
    )


def test_there_is_no_median_unless_half_of_the_trials_found_it(tmp_path: Path) -> None:
    early = [Trial(n, n / 10, {}) for n in range(1, 13)]
    late = [once("a: a", 50 + n) for n in range(8)]
    for trials, median in ((early + late, None), (early[:8] + late, 53.0)):
        table = made(tmp_path / str(median), {"random": trials, "walk": trials}).buckets
        row = dict(zip(table.columns, table.rows[-1], strict=True))
        assert (row["executions"], row["executions_high"] is None) == (median, median is None)


def test_a_baseline_of_several_axes_is_one_setting(tmp_path: Path) -> None:
    grid = {"search": ["random", "walk"], "batch": [32, 64], "linf": [0.5, 1.0], "seed": [0]}
    plan = Plan(grid=grid, baseline={"search": "random", "batch": 64})
    with Sweep(cells(plan, "x"), tmp_path) as sweep:
        many = {cell.labels: 1 + i for i, cell in enumerate(sweep.cells)}  # buckets that each found
        trials = [
            (labels, Trial(9, 9.0, {f"{b}: x": (1, 1.0) for b in range(n)})) for labels, n in many.items()
        ]
        compared = results(sweep, plan, trials)
    for row in compared.settings.rows:
        search, batch, linf = row[:3]
        base = many[("search", "random"), ("batch", "64"), ("linf", linf)]
        own = many[("search", search), ("batch", batch), ("linf", linf)]
        expected = None if (search, batch) == ("random", "64") else float(own > base)
        assert row[compared.settings.columns.index("more")] == expected, row
    assert any(note.names == "search=random, batch=64" for note in compared.notes)


def test_a_baseline_on_an_axis_of_one_value_compares_nothing(tmp_path: Path) -> None:
    plan = Plan(grid={"search": ["random"], "batch": [32, 64], "seed": [0]}, baseline={"search": "random"})
    with Sweep(cells(plan, "x"), tmp_path) as sweep:
        compared = results(sweep, plan, [(cell.labels, NOTHING) for cell in sweep.cells])
    words = [note.text() for note in compared.notes]
    assert "nothing is compared, since the grid has only one value of what [baseline] names: search" in words
    assert not any("no [baseline]" in text for text in words)


def test_a_person_reads_intervals_and_what_was_not_reached(found) -> None:
    lines = list(as_lines(found.settings))
    assert lines[0].split()[:2] == ["search", "trials"]
    assert "2 (2 to 2)" in lines[2]
    assert "< 0.001" in lines[2]
    page = as_markdown(found)
    assert "| ` a ` | ` random ` | 1 | 20 | not reached" in page
    assert "| ` a ` | ` walk ` | 20 | 20 | 10 (" in page


def test_without_a_baseline_and_findings_it_says_so(tmp_path: Path) -> None:
    none = made(tmp_path, {"random": [NOTHING] * 2, "walk": [NOTHING]}, baseline=False)
    notes = " ".join(note.text() for note in none.notes)
    assert "warning: 1 to 2 trials per setting; below 20" in notes
    assert "there is no [baseline]" in notes
    assert "1 of 4 campaigns are not at their end" in notes
    assert [row[0] for row in none.buckets.rows] == [ANY, ANY]
    for text in (as_csv(none.settings), as_markdown(none), as_html(none)):
        assert "walk" in text


class Page(HTMLParser):
    """The tags of a page and the texts of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data):
        self.texts.append(data)


def test_nothing_of_a_stranger_acts(tmp_path: Path) -> None:
    hostile = made(tmp_path, {"random": [once(text, 5) for text in HOSTILE], "walk": [NOTHING] * 6})
    files = write(hostile, tmp_path)
    assert [file.name for file in files] == ["results.csv", "buckets.csv", "results.md", "results.html"]
    rows = list(csv.reader(io.StringIO(as_csv(hostile.buckets)), strict=True))
    assert {len(row) for row in rows} == {len(hostile.buckets.columns)}
    assert not any(text.startswith(("=", "+", "-", "@")) for row in rows for text in row)
    page = Page(as_html(hostile))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script>alert(1)</script>" in page.texts
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text.replace("\r\n", "\n"))


def test_in_markdown_what_is_a_strangers_stands_in_code(tmp_path: Path) -> None:
    """Read as GitHub reads it: whatever it would make of a text, it makes nothing of code."""
    hostile = made(tmp_path, {"random": [once(text, 5) for text in HOSTILE], "walk": [NOTHING] * 6})
    plan = Plan(
        grid={"www.evil.example": {text: {"batch": 1 + i} for i, text in enumerate(HOSTILE)}},
        trials=1,
        baseline={"www.evil.example": HOSTILE[0]},
    )
    with Sweep(cells(plan, "x"), tmp_path / "@octocat") as sweep:
        sweep.failures[sweep.cells[1]] = Failure(sweep.cells[1], 3, "no")
        labelled = results(sweep, plan, [(cell.labels, NOTHING) for cell in sweep.cells[2:]])
    for one in (hostile, labelled):
        tokens = MarkdownIt("commonmark").enable("table").parse(as_markdown(one))
        inline = [child for token in tokens for child in token.children or []]
        assert {token.type for token in inline} == {"text", "code_inline"}
        assert not any(re.search(r"[@$`\\]|<\S|www|http|evil", t.content) for t in inline if t.type == "text")
        assert not any(token.type.startswith("html") for token in tokens)
        cells_read = [
            "".join(child.content for child in inside.children or [])
            for begin, inside in pairwise(tokens)
            if begin.type == "td_open"
        ]
        texts = [text for table in (one.settings, one.buckets) for row in shown(table)[1] for text in row]
        assert [text.replace("\\", "") for text in cells_read] == [text.replace("\\", "") for text in texts]


def test_a_page_leaves_out_rare_buckets_and_says_so(tmp_path: Path) -> None:
    many = {f"b{i}: x": (i + 1, 0.1) for i in range(MOST + 5)}
    lots = made(tmp_path, {"random": [Trial(100, 10.0, many)], "walk": [NOTHING]})
    assert "and 5 buckets more, in buckets.csv" in as_markdown(lots)
    assert "and 5 buckets more, in buckets.csv" in as_html(lots)
    assert len(as_csv(lots.buckets).splitlines()) == 1 + 2 * (MOST + 6)
