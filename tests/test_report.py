"""Reports: what they say, and that nothing of what a model wrote acts in them."""

import html
import json
import re
import shutil
import sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from chromium import browser, needed
from shell import Shell

from lmfuzz.coding import encode
from lmfuzz.report import page
from lmfuzz.report.account import Account
from lmfuzz.report.remaining import lately, observed, unseen
from lmfuzz.store import Store


def charts(text: str) -> dict[str, dict]:
    """The charts of a report, as its script reads them."""
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


def words(text: str) -> str:
    """What a person reads of a report, its scripts and its style aside."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", bare)).split())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the campaign of these tests is kept once it was run."""
    return tmp_path_factory.mktemp("kept") / "c"


@pytest.fixture
def campaign(sh: Shell, kept: Path) -> Path:
    """A short campaign with findings of two objectives."""
    if not kept.exists():
        assert sh.fuzz("--objective", "repetition", "--objective", "own.py:quits", "-o", "c").code == 1
        Path("c").rename(kept)
    return Path(shutil.copytree(kept, "c"))


def change(directory: Path, statement: str, *values: object) -> None:
    """Write into a campaign's database what a model, or a detector, could have."""
    with sqlite3.connect(directory / "campaign.db") as db:
        db.execute(statement, values)
    db.close()


def test_a_report_says_what_was_found(campaign: Path, sh: Shell) -> None:
    result = sh("report", "c")
    assert (result.code, result.out) == (0, "lmfuzz: the report is in c/report.html\n")
    text = Path("c/report.html").read_text(encoding="utf-8")
    said = words(text)
    with Store.read(campaign) as store:
        account = Account(store)
        for bucket in account.buckets:
            assert bucket.title in said
            for entry in bucket.entries:
                assert f'id="c1-finding-{entry.number}"' in text
                assert " ".join(entry.prompt.split()) in said
        marked = [entry.output[1] for bucket in account.buckets for entry in bucket.entries]
        assert any(marked)
        assert all(
            f"</span>{html.escape(bad)}<span" in text.replace("&#39;", "&#x27;") for bad in marked if bad
        )
        assert f"{len(account.findings)} finding" in said
        assert f"{account.numbers['executions']:,} executions" in said
        assert all(one.name in said for one in account.operators)
        last = {trace["name"]: trace["y"][-1] for trace in charts(text)["growth-1"]["data"]}
        assert last == {
            "rows of the corpus": account.numbers["corpus_size"],
            "states in the archive": account.numbers["archive_size"],
            "findings": len(account.findings), "buckets": len(account.buckets),
        }  # fmt: skip


def test_a_lineage_leads_from_a_seed_to_the_finding(campaign: Path) -> None:
    with Store.read(campaign) as store:
        account = Account(store)
        for bucket in account.buckets:
            for entry in bucket.entries:
                whole = store.lineage(account.findings[entry.number - 1].parent)
                shown = [row.id for row in entry.lineage]
                assert len(shown) + entry.left_out == len(whole)
                assert shown[:1] == [row.id for row in whole[:1]]
                assert shown[1:] == [row.id for row in whole[1:]][len(whole) - len(shown) :]
                assert not shown or entry.lineage[0].operator == "seed"


def test_findings_are_on_the_map_at_a_state_of_an_ancestor(campaign: Path) -> None:
    with Store.read(campaign) as store:
        account = Account(store)
        known = account.map(10_000)
        assert known is not None
        states = store.states()
        assert len(known.places) == len(states) == len(account.births)
        rows = {row.tobytes(): i for i, (row, _) in enumerate(states)}
        assert known.findings
        for number, place in known.findings.items():
            finding = account.findings[number - 1]
            line = [ancestor.row for ancestor in store.lineage(finding.parent)][::-1]
            nearest = next(rows[row.tobytes()] for row in [*line, finding.row] if row.tobytes() in rows)
            assert place == pytest.approx(known.places[nearest])
        points = np.stack([point for _, point in states]).astype(float)
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        assert known.places.var(axis=0) == pytest.approx(spread[:2] ** 2 / len(points), rel=1e-3)
        few = account.map(10)
        assert few is not None
        assert len(few.places) <= 11


def test_nothing_found_is_a_report_that_says_so(sh: Shell) -> None:
    assert sh.fuzz("--objective", "own.py:quits", "-o", "c", budget="400x", model="model.py:other").code == 0
    assert sh("report", "c", "-o", "new/r.html").code == 0
    text = Path("new/r.html").read_text(encoding="utf-8")
    assert "Nothing was found in " in words(text)
    assert [
        trace["y"][-1] for trace in charts(text)["growth-1"]["data"] if "y2" in trace.get("yaxis", "")
    ] == [0, 0]
    assert len(charts(text)["map-1"]["data"]) == 1


def test_campaigns_are_compared(campaign: Path, sh: Shell) -> None:
    sh.fuzz("--search", "random", "-o", "d", budget="1000x")
    assert sh("report", "c", "d").code == 0
    text = Path("comparison.html").read_text(encoding="utf-8")
    assert "2 campaigns side by side" in words(text)
    assert set(charts(text)) == {f"{name}-{i}" for name in ("growth", "map", "yield") for i in (1, 2)} | {
        "comparison"
    }
    ids = re.findall(r'\bid="([^"]*)"', re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


def test_a_minimal_prompt_is_shown_beside_the_prompt(campaign: Path, sh: Shell) -> None:
    assert sh("shrink", "c").code in (0, 1)
    with Store.read(campaign) as store:
        smallest = [finding.minimal for finding in store.findings()]
    said = words(page.render([campaign]))
    assert all(small is not None and f"{small.size} instead of {small.before}" in said for small in smallest)
    assert "not shrunk" not in said


def test_findings_that_are_images_are_pictures(sh: Shell) -> None:
    pytest.importorskip("torch")
    found = sh("image", "diff", "models:mnist/lenet1", "--twin", "prune:0.5", "--count", "4", "-o", "c")
    assert found.code == 1, found
    text = page.render([Path("c")])
    with Store.read(Path("c")) as store:
        assert text.count('<img src="data:image/png;base64,') == len(store.findings()) > 0
    assert "Minimal input" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no directory nowhere"),
        (["c", "c"], "a campaign is given twice; name each directory once"),
        (["c", "-o", "seeds.txt/r.html"], "cannot write seeds.txt/r.html: "),
    ],
)
def test_what_cannot_be_reported_gets_a_sentence(
    campaign: Path, sh: Shell, arguments: list[str], sentence: str
) -> None:
    assert sh.refused("report", *arguments).startswith(sentence)


def test_good_turing_counts_what_was_seen_once() -> None:
    share = unseen(np.array([1, 1, 2, 7, 1]), 100)
    assert (share.value, share.count) == (0.03, 3)
    width = 1.959964 * (3 * 0.97 + 2) ** 0.5 / 100
    assert share.high == pytest.approx(max(0.03 + width, observed(3, 100).high))
    none = unseen(np.array([5, 9]), 1000)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 1000))  # Clopper & Pearson
    assert lately(np.array([10, 950, 960, 1000]), 1000).count == 3


def test_the_interval_holds_what_is_left_nineteen_times_of_twenty() -> None:
    """Rows drawn from a thousand kinds, few common and many rare: how much was never drawn?"""
    rng, inside = np.random.default_rng(0), 0
    shares = 1 / np.arange(1, 1001)
    shares /= shares.sum()
    for _ in range(200):
        times = np.bincount(rng.choice(1000, 2000, p=shares), minlength=1000)
        left = unseen(times[times > 0], 2000)
        inside += left.low <= shares[times == 0].sum() <= left.high
    assert inside >= 190


HOSTILE = (
    '<script>alert("acted")</script><img src="{away}/img" onerror="alert(1)"></script>'
    '<script>fetch("{away}/f")</script><style>@import "{away}/css";</style>'
    '<a href="javascript:alert(2)">x</a>'
    '"><svg onload=alert(3)>{{{{7*7}}}}<!--<script>\\u003cscript>alert(4)</script>\x1b[2J\u202e\u2028\0'
    "%{{x}} $\\href{{{away}}}{{y}}$ ]]>&lt;b&gt;"
)


class Away(BaseHTTPRequestHandler):
    """Counts who asks."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def away():
    """A server that no page may ask; ``asked`` are the paths that one did ask for."""
    with HTTPServer(("127.0.0.1", 0), Away) as server:
        server.asked = []
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@needed
def test_nothing_of_a_hostile_model_acts_in_a_browser(
    campaign: Path, away: HTTPServer, tmp_path: Path
) -> None:
    text = HOSTILE.format(away=f"http://127.0.0.1:{away.server_port}")
    bare = text.replace("\0", "")
    lone = text + "\\ud800"  # as the store writes a lone surrogate
    columns = "prompt = ?, output = ?, words = ?, objective = ?, signature = ?, span = '[3, 60]'"
    change(campaign, f"UPDATE findings SET {columns}", text, lone, bare, bare, bare)
    change(campaign, "UPDATE findings SET objective = 'own.py:quits' WHERE id > 1")
    operators = "UPDATE meta SET value = replace(value, 'insert', ?) WHERE key = 'operators'"
    change(campaign, operators, json.dumps(bare)[1:-1])
    for table in ("rows", "findings"):
        change(campaign, f"UPDATE {table} SET operator = ? WHERE operator = 'insert'", bare)
    name = bare.replace("/", "\N{FRACTION SLASH}")[:80]
    other = campaign.rename(f"d{name}")
    file, plain = tmp_path / "report.html", tmp_path / "plain.html"
    page.write([other], file)
    plain.write_text(f"<!doctype html><p>{text}</p>", encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(plain)  # so that this test would see it
        assert tab.dialogs
        assert away.asked
        away.asked.clear()
        tab.open(file)
        for chart, trace in (("map-1", 1), ("map-1", 0), ("growth-1", 0)):
            tab.ask(f"Plotly.Fx.hover('{chart}', [{{curveNumber: {trace}, pointNumber: 0}}])")
            if trace:
                assert '"<script>al' in tab.ask("document.querySelector('#map-1 .hoverlayer').textContent")
        tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
        tab.ask("new Promise(done => setTimeout(done, 500))")
        assert tab.dialogs == []
        assert [url for url in tab.requests if not url.startswith("data:")] == [file.as_uri()]
        assert (
            tab.ask("document.querySelectorAll('main script, main svg[onload], main img, main style').length")
            == 0
        )
        assert tab.ask(
            "[...document.querySelectorAll('main a')].every(a => a.getAttribute('href')[0] == '#')"
        )
        assert tab.ask("document.querySelectorAll('#map-1 .hoverlayer a').length") == 0
        assert tab.ask("document.querySelector('details dd pre').textContent").startswith("<script>alert")
        assert "\u202e" not in tab.ask("document.documentElement.textContent")
        assert tab.errors == []
    assert away.asked == []


@needed
def test_a_report_fits_its_window_and_draws_its_charts(campaign: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    page.write([campaign], file)
    with browser(tmp_path / "profile") as tab:
        for width in (1280, 420):
            tab.resize(width)
            tab.open(file)
            assert tab.errors == []
            assert tab.ask("document.documentElement.scrollWidth") <= width
        drawn = "[...document.querySelectorAll('.chart')].map(one => one.querySelectorAll('svg').length > 0)"
        assert tab.ask(drawn) == [True] * 3
        light = tab.ask("getComputedStyle(document.body).backgroundColor")
        tab.theme("dark")
        assert tab.ask("getComputedStyle(document.body).backgroundColor") != light
        assert tab.ask(
            "[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th'))"
        )
        levels = tab.ask("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => +one.tagName[1])")
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert tab.print().startswith(b"%PDF")


def test_a_campaign_that_counted_no_visits_says_that_it_cannot_say(campaign: Path) -> None:
    with Store.read(campaign) as store:
        state = store.state()
    assert "cannot be said" not in words(page.render([campaign]))
    change(campaign, "UPDATE state SET value = ?", encode({**state, "visits": 0 * state["visits"]}))
    assert "new state cannot be said" in words(page.render([campaign]))
