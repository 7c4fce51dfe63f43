"""The results of a sweep: what stands in the tables, and that nothing of a stranger's acts in them."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmfuzz.results import ANY, MOST, as_csv, as_html, as_lines, as_markdown, results, write
from lmfuzz.statistics import Trial
from lmfuzz.sweep import Plan, Sweep, cells

HOSTILE = (
    "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "a|b\nc", "\x1b[2Jgone", "\u202egnp.exe",
    "`x` **b** [l](u)",
)  # fmt: skip


def made(folder: Path, trials: dict[str, list[Trial]], baseline: bool = True):
    """Results of searches, each with its trials."""
    axes = {"search": list(trials), "seed": [*range(max(map(len, trials.values())))]}
    plan = Plan(grid=axes, baseline={"search": "random"} if baseline else {})
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
    assert soon["a: a", "walk"]["sooner"] == 1
    assert soon["b: b", "walk"]["log_rank"] < 1e-6
    assert not any("warning" in note for note in found.notes)
    assert any("search=random" in note for note in found.notes)


def test_a_person_reads_intervals_and_what_was_not_reached(found) -> None:
    lines = list(as_lines(found.settings))
    assert lines[0].split()[:2] == ["search", "trials"]
    assert "2 (2 to 2)" in lines[2]
    assert "< 0.001" in lines[2]
    page = as_markdown(found)
    assert "| a | random | 1 | 20 | not reached" in page
    assert "| a | walk | 20 | 20 | 10 (" in page


def test_without_a_baseline_and_findings_it_says_so(tmp_path: Path) -> None:
    none = made(tmp_path, {"random": [NOTHING] * 2, "walk": [NOTHING]}, baseline=False)
    notes = " ".join(none.notes)
    assert "warning: 1 to 2 trials per setting; below 20" in notes
    assert "no [baseline] is chosen" in notes
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
    markdown = (tmp_path / "results.md").read_text()
    assert "<script" not in markdown.replace("\\<", "")
    table = [line for line in markdown.splitlines() if "a\\|b" in line]
    assert table
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 9 for line in table)


def test_a_page_leaves_out_rare_buckets_and_says_so(tmp_path: Path) -> None:
    many = {f"b{i}: x": (i + 1, 0.1) for i in range(MOST + 5)}
    lots = made(tmp_path, {"random": [Trial(100, 10.0, many)], "walk": [NOTHING]})
    assert "and 5 buckets more, in buckets.csv" in as_markdown(lots)
    assert "and 5 buckets more, in buckets.csv" in as_html(lots)
    assert len(as_csv(lots.buckets).splitlines()) == 1 + 2 * (MOST + 6)
