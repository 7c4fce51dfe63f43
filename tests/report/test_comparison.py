"""Reports of several campaigns: what they are called, what differs, and what was not looked for."""

import html
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helpers.chromium import browser, needed
from helpers.shell import Shell
from lmfuzz.report import charts, comparison, page
from lmfuzz.report.campaign_view import Account
from lmfuzz.report.findings_view import Bucket
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.types import Finding


def words(text: str) -> str:
    """What a person reads of a report, its scripts and its style aside."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def table(text: str, caption: str) -> list[list[str]]:
    """The cells of the table whose caption begins so."""
    (body,) = re.findall(rf"<caption>{caption}.*?</table>", text, flags=re.DOTALL)
    rows = re.findall(r"<tr>.*?</tr>", body, flags=re.DOTALL)
    return [
        [words(cell) for cell in re.findall(r"<t[hd]\b.*?</t[hd]>", row, flags=re.DOTALL)] for row in rows
    ]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the campaigns of these tests are kept once they were run."""
    return tmp_path_factory.mktemp("kept") / "kept"


@pytest.fixture
def two(sh: Shell, kept: Path) -> list[Path]:
    """A campaign with findings, and one that looked for something else."""
    if not kept.exists():
        assert sh.fuzz("--objective", "repetition", "-o", "runs/c").code == 1
        assert sh.fuzz("--objective", 'phrases:words=["qqqq"]', "-o", "runs/other", budget="300x").code == 0
        Path("runs").rename(kept)
    shutil.copytree(kept, "runs")
    return [Path("runs/c"), Path("runs/other")]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x", "y"]),
        (["a", "a/b"], ["a", "a/b"]),
        ([".", "b"], [".", "b"]),
        (["/deep/x/1/c", "/deep/y/2/c"], ["x/1", "y/2"]),
        (
            ["s 3/campaigns/search=random-top=1-seed=0-7238f624f1",
             "s 3/campaigns/search=random-top=1-seed=1-7e6761617e"],
            ["seed=0", "seed=1"],
        ),
        (
            ["s/campaigns/search=directed-wanted=a-b-seed=0-7238f624f1",
             "s/campaigns/search=random-wanted=c-seed=0-7e6761617e"],
            ["search=directed, wanted=a-b", "search=random, wanted=c"],
        ),
        (["s/seed=0-7238f624f1", "s/seed=0-7e6761617e"], ["seed=0-7238f624f1", "seed=0-7e6761617e"]),
        (["s/seed=0-7238f624f1", "t/seed=0-7e6761617e"], ["s", "t"]),
        (["s/seed=0-7238f624f1", "s/other"], ["seed=0-7238f624f1", "other"]),
    ],
)  # fmt: skip
def test_campaigns_are_called_by_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert comparison.names([Path(path) for path in paths]) == names


def test_what_was_not_looked_for_is_not_said_to_be_missing(two: list[Path]) -> None:
    text = page.render(two)
    heads, *rows = table(text, "Hits of each bucket")
    assert heads == ["bucket", "c", "other"]
    assert rows
    assert all(row[0].startswith("repetition") and row[2] == "not looked for" for row in rows)
    assert all(int(row[1].replace(",", "")) > 0 for row in rows)
    about = table(text, "What is compared")[1:]
    assert [row[0] for row in about] == ["c", "other"]
    assert [row[-1] for row in about] == ["runs/c", "runs/other"]
    assert [row[4] for row in about] == ["repetition", 'phrases:words=["qqqq"]']
    assert all(row[1] and row[2:4] == ["none", "directed"] for row in about)
    said = words(text)
    assert "Settings that differ: objectives, budget." in said
    assert "The objectives differ" in said
    assert "The models" not in said


def told(buckets: Sequence[Bucket] = (), **record: Any) -> Account:
    """What a comparison asks an account for."""
    return cast("Account", SimpleNamespace(record=SimpleNamespace(**record), buckets=list(buckets)))


def test_a_bucket_that_was_looked_for_in_vain_is_told_from_one_that_was_not() -> None:
    finding = cast("Finding", SimpleNamespace(objective="crash"))
    found = Bucket("crash: x", 3, [finding], [])
    some = [told([found], targets=["crash"]), told(targets=["crash", "y"]), told(targets=["y"])]
    assert comparison.hits(some) == [("crash: x", [3, 0, None])]


def test_models_that_differ_are_said_to() -> None:
    one, same = told(identity="1", spec=Spec()), told(identity="1", spec=Spec())
    other = told(identity="2", spec=Spec(model="m"))
    assert comparison.differences([one, same]) == ["All settings are the same."]
    differ, models = comparison.differences([one, other])
    assert differ == "Settings that differ: model."
    assert models.startswith("The models or their decoding differ")


def test_a_report_says_which_model_ran_and_from_which_seeds(two: list[Path]) -> None:
    record = CampaignRecord.read(two[0])
    settings = dict(Account(record).settings)
    assert settings["model"] == record.spec.model != ""
    assert settings["max new"] == str(record.spec.max_new)
    unfit = {"resolution", "layer", "trust remote code", "dtype", "device", "template"}
    assert not unfit & set(settings)
    spec = record.spec.model_copy(update={"model": "", "seeds": [], "layer": 2})
    account = Account(replace(record, spec=spec))
    settings = dict(account.settings)
    assert (settings["model"], settings["seeds"], settings["layer"]) == (
        "the bundled model",
        "bundled",
        "2",
    )
    head = words(page._page([account]).partition("<main")[0])
    assert "the bundled model (identity " in head
    assert f"seeds: bundled, {record.seed_count} of them" in head


def test_a_map_promises_the_stars_that_it_has(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    record = CampaignRecord.read(two[0])
    account = Account(record)
    many, place = len(account.findings), Account._state_of
    first = account.findings[0]
    stars = charts.stars(charts.states(account))
    assert 0 < stars <= many
    assert ("no star" in words(page._page([account]))) == (stars < many)
    monkeypatch.setattr(Account, "_state_of", lambda one, f, at: place(one, f, at) if f is first else None)
    said = words(page._page([account]))
    assert "Stars are findings" in said
    assert f"{many - 1} of the {many} findings have no star" in said
    monkeypatch.setattr(Account, "_state_of", lambda *_: None)
    said = words(page._page([account]))
    assert "Stars are" not in said
    assert f"None of the {many} findings has a star: no ancestor's state is in the archive" in said


@needed
def test_captions_and_heads_are_read_without_scrolling(two: list[Path], tmp_path: Path) -> None:
    cells = Path("runs/campaigns")
    cells.mkdir()
    for i in range(3):
        name = f"search=random-wanted=the-loops-that-were-seen-{i}-seed=0-{i:010x}"
        shutil.copytree(two[0], cells / name)
    page.write(sorted(cells.iterdir()), file := tmp_path / "three.html")
    scrolled = "Math.max(...[...document.querySelectorAll('.wide')].map(one => one.scrollWidth))"
    right = "[...document.querySelectorAll('caption')].map(one => one.getBoundingClientRect().right)"
    with browser(tmp_path / "profile") as tab:
        tab.resize(420)
        tab.open(file)
        assert tab.ask(scrolled) > 420
        assert max(tab.ask(right)) <= 420
        tab.resize(1280)
        tables = "document.querySelectorAll('#comparison-section .wide')"
        assert tab.ask(f"[...{tables}].map(one => one.scrollWidth - one.clientWidth)") == [0, 0, 0]
        assert "wanted=the-loops-that-were-seen-2" in tab.ask(
            "document.querySelector('.hits thead').textContent"
        )


def test_a_campaign_whose_operators_made_nothing_has_no_chart_of_them(two: list[Path]) -> None:
    record = CampaignRecord.read(two[0])
    account = Account(record)
    account.record.tally.mutants[:] = 0
    assert charts.yields(account) is None
    assert "No operator made an input" in words(page._page([account]))
