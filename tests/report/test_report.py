"""Reports: what they say, and that nothing of what a model wrote acts in them."""

import errno
import html
import json
import os
import re
import shutil
import sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from helpers.chromium import browser, needed
from helpers.shell import Shell
from lmfuzz import files
from lmfuzz.analysis.survival import Trial
from lmfuzz.analysis.sweep import Plan, Sweep, cells
from lmfuzz.analysis.sweep_results import results
from lmfuzz.errors import DiskError, printable
from lmfuzz.report import comparison, page
from lmfuzz.report import findings_view as entries
from lmfuzz.report.campaign_view import Account
from lmfuzz.report.residual_risk import lately, observed, unseen
from lmfuzz.report.sweep_page import as_html
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.serialize import encode
from lmfuzz.text import escape, shorten


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
    record = CampaignRecord.read(campaign)
    account = Account(record)
    for bucket in account.buckets:
        assert bucket.title in said
        for entry in bucket.entries:
            assert f'id="c1-finding-{entry.number}"' in text
            assert " ".join(entries.FILTERS["text"](entry.finding.prompt).split()) in said
    shown = [entry for bucket in account.buckets for entry in bucket.entries]
    marked = [entries.FILTERS["output"](entry.finding)[1] for entry in shown]
    assert any(marked)
    assert all(f"</span>{html.escape(bad)}<span" in text.replace("&#39;", "&#x27;") for bad in marked if bad)
    assert f"{len(account.findings)} finding" in said
    assert f"{account.numbers['executions']:,} executions" in said
    assert all(name in said for name, *_ in account.operators)
    last = {trace["name"]: trace["y"][-1] for trace in charts(text)["growth-1"]["data"]}
    assert last == {
        "inputs in the corpus": account.numbers["corpus_size"],
        "states in the archive": account.numbers["archive_size"],
        "findings": len(account.findings), "buckets": len(account.buckets),
    }  # fmt: skip


def test_a_lineage_leads_from_a_seed_to_the_finding(campaign: Path) -> None:
    record = CampaignRecord.read(campaign)
    account = Account(record)
    for bucket in account.buckets:
        for entry in bucket.entries:
            whole = record.lineage(account.findings[entry.number - 1])
            texts = [shorten(record.space.decode(record.rows.row(row)), entries.ROW) for row in whole]
            shown = [text for _, text in entry.lineage]
            assert len(shown) + entry.left_out == len(whole)
            assert shown[:1] == texts[:1]
            assert shown[1:] == texts[1:][len(whole) - len(shown) :]
            assert not shown or entry.lineage[0][0] == "seed"


def test_findings_are_on_the_map_at_a_state_of_an_ancestor(campaign: Path) -> None:
    record = CampaignRecord.read(campaign)
    account = Account(record)
    known = account.map(10_000)
    assert known is not None
    states = record.states
    assert len(known.places) == len(states.rows) == len(states.births)
    rows = {row.tobytes(): i for i, row in enumerate(states.rows)}
    assert known.findings
    for number, place in known.findings.items():
        finding = account.findings[number - 1]
        line = [record.rows.row(row) for row in record.lineage(finding)][::-1]
        nearest = next(rows[row.tobytes()] for row in [*line, finding.row] if row.tobytes() in rows)
        assert place == pytest.approx(known.places[nearest])
    points = record.states.points.astype(float)
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
    record = CampaignRecord.read(campaign)
    smallest = [finding.minimal for finding in record.findings]
    said = words(page.render([campaign]))
    assert all(small is not None and f"{small.size} instead of {small.before}" in said for small in smallest)
    assert "not shrunk" not in said


def test_findings_that_are_images_are_pictures(sh: Shell) -> None:
    pytest.importorskip("torch")
    found = sh("image", "diff", "models:mnist/lenet1", "--twin", "prune:0.5", "--count", "4", "-o", "c")
    assert found.code == 1, found
    text = page.render([Path("c")])
    record = CampaignRecord.read(Path("c"))
    assert text.count('<img src="data:image/png;base64,') == len(record.findings) > 0
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
    late = lately(np.array([10, 950, 960, 1000]), 1000)
    assert (late.count, late.rows, late.unit) == (3, 100, "executions")


def test_good_turing_counts_rows_where_one_shows_several_kinds() -> None:
    assert unseen(np.ones(12, int), 8, 6).value == 6 / 8
    most = unseen(np.ones(12, int), 8)
    assert (most.value, most.high) == (1, 1)


def test_rows_of_several_buckets_are_reported(campaign: Path, sh: Shell) -> None:
    """Every signature is its row's own, and two objectives hit the same row."""
    change(campaign, "UPDATE findings SET signature = id, bucket = objective || ': ' || id")
    for column in ("execution", "row"):
        change(
            campaign,
            f"UPDATE findings SET {column} = (SELECT {column} FROM findings WHERE id = 1) WHERE id = 2",
        )
    record = CampaignRecord.read(campaign)
    state, found = record.state, record.findings
    state["findings"]["hits"] = {one.bucket: 1 for one in found}
    for rows in (len(found) - 1, 100):
        state["tally"]["rows"] = rows
        change(campaign, "UPDATE state SET value = ?", encode({**state, "visits": state["visits"] + 1}))
        assert sh("report", "c").code == 0
        said = words(Path("c/report.html").read_text(encoding="utf-8"))
        assert (
            f"{len(found) - 1} of {rows} inputs new state, as counted in the last tenth of executions" in said
        )


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


def test_the_interval_holds_where_rows_show_several_kinds() -> None:
    """Every row shows some six of three hundred kinds: how probable is a row with one that none showed?"""
    rng, inside, more = np.random.default_rng(0), 0, 0
    shares = 1 / np.arange(1, 301)
    for _ in range(200):
        shown = rng.random((300, 300)) < shares
        times = shown.sum(axis=0)
        left = unseen(times, 300, int((shown & (times == 1)).any(axis=1).sum()))
        truth = 1 - np.prod(1 - shares[times == 0])
        inside += left.low <= truth <= left.high
        more += unseen(times, 300).value >= left.value
    assert inside >= 190
    assert more == 200


@pytest.mark.parametrize("text", ["the quick brown fox's den " * 60, "<'\"&" * 1250])
def test_every_text_is_cut_where_it_is_to_be_seen(campaign: Path, sh: Shell, text: str) -> None:
    assert sh("shrink", "c").code in (0, 1)
    columns = "prompt = ?1, output = ?1, words = ?1, signature = ?1 || id, span = '[400, 440]'"
    change(campaign, f"UPDATE findings SET {columns}", text)
    change(campaign, "UPDATE findings SET bucket = objective || ': ' || signature")
    change(campaign, "UPDATE minimals SET prompt = ?1, output = ?1, span = '[400, 440]'", text)
    account = Account(CampaignRecord.read(campaign))
    for bucket in account.buckets:
        assert len(bucket.title) <= entries.TITLE
        assert "..." in bucket.title
        for entry in bucket.entries:
            assert entry.finding.minimal is not None
            shown = [entry.finding, entry.finding.reduced]
            texts = [entry.about[0][1], *(entries.FILTERS["text"](one.prompt) for one in shown)]
            texts += ["".join(entries.FILTERS["output"](one)) for one in shown]
            assert all("..." in one and len(one) <= entries.TEXT + len("......") for one in texts)
            prompt, output = entries.brief(entry.finding)
            assert len(prompt) <= entries.PROMPT + len('""')
            assert len("".join(output)) <= entries.OUTPUT + len("......")


def test_many_long_hostile_findings_do_not_make_a_report_long(campaign: Path) -> None:
    """A thousand, each in a bucket of its own, all shrunk: below 6 MB, and what is left out is said."""
    text, many = "<'\"&" * 1250, 1000
    state = {**CampaignRecord.read(campaign).state, "tally": Tally.of(1).state()}
    with sqlite3.connect(campaign / "campaign.db") as db:
        (first,) = db.execute("SELECT * FROM findings WHERE id = 1").fetchall()
        names = [name for _, name, *_ in db.execute("PRAGMA table_info(findings)")]
        db.execute("DELETE FROM findings")
        for n in range(1, many + 1):
            signature = f"{n}{text}"
            one = dict(zip(names, first, strict=True)) | {"id": n, "signature": signature}
            one |= {"bucket": f"{one['objective']}: {signature}", "prompt": text, "output": text}
            one |= {"words": text, "span": "[400, 440]"}
            db.execute(f"INSERT INTO findings VALUES ({', '.join('?' * len(names))})", list(one.values()))
        db.execute("UPDATE rows SET operator = ? WHERE operator != ''", [text])
        db.execute("UPDATE findings SET operator = ?", [text])
        db.execute("UPDATE meta SET value = ? WHERE key = 'operators'", [json.dumps([text])])
        db.execute("UPDATE state SET value = ?", [encode(state)])
        columns = "id, row, ?1, ?1, span, 9, 99, 3, 100, NULL"
        db.execute(f"INSERT OR REPLACE INTO minimals SELECT {columns} FROM findings", [text])
    db.close()
    written = page.render([campaign])
    assert len(written.encode()) < 6_000_000
    assert written.count('<details class="finding"') == entries.MOST
    more = many - entries.MOST
    assert f"Not shown: {more} findings and {more} buckets. All are listed by lmfuzz show c" in words(written)


def test_buckets_that_begin_alike_are_told_apart(campaign: Path, sh: Shell) -> None:
    shutil.copytree("c", "d")
    for directory, last in ((campaign, "one"), (Path("d"), "two")):
        change(directory, "UPDATE findings SET signature = ?", f"{'a' * 500}{last}{'z' * 500}")
    accounts = []
    for directory in (campaign, Path("d")):
        record = CampaignRecord.read(directory)
        accounts.append(Account(record))
        assert accounts[-1].buckets
    rows = comparison.hits(accounts)
    assert len(rows) == sum(len(account.buckets) for account in accounts)
    assert len({title for title, _ in rows}) == len(rows)


def test_a_report_is_written_whole_or_not_at_all(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("r.html")
    file.write_text("as it was")

    def full(self: Path, place: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(DiskError, match=r"^cannot write r\.html: No space left on device$"):
            page.write([campaign], file)
    assert file.read_text() == "as it was"
    assert not list(Path().glob("*.part"))
    page.write([campaign], file)
    assert "</html>" in file.read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, which there are none of here")
def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    files.write("all of it", pipe)
    reader.join()
    assert got == ["all of it"]
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


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
            tab.screenshot(picture := tmp_path / f"{width}.png")
            with Image.open(picture) as seen:
                assert width - 20 <= seen.width <= width  # a scrollbar aside
                assert seen.height > 2000
                some = seen.convert("RGB").reduce(4)
                kinds = some.quantize(8).getcolors()
                assert kinds is not None
                assert len(kinds) == 8
                assert max(count for count, _ in kinds) < 0.95 * some.width * some.height
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


@needed
def test_all_findings_are_printed(campaign: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    page.write([campaign], file)
    shown = "[...document.querySelectorAll('details dl')].map(one => one.checkVisibility())"
    widths = "[...document.querySelectorAll('.chart .main-svg')].map(one => +one.getAttribute('width'))"
    with browser(tmp_path / "profile") as tab:
        tab.resize(1280)
        tab.open(file)
        before, wide = tab.ask(shown), tab.ask(widths)
        assert True in before
        assert False in before
        tab.ask(f"addEventListener('beforeprint', () => {{ window.printed = [{shown}, {widths}]; }})")
        assert tab.print().startswith(b"%PDF")
        printed, narrow = tab.ask("window.printed")
        assert printed == [True] * len(before)
        assert max(narrow) <= 700  # what A4 and Letter have room for
        tab.ask("new Promise(done => setTimeout(done, 300))")
        assert (tab.ask(shown), tab.ask(widths)) == (before, wide)
        assert tab.errors == []


@needed
def test_nothing_of_a_strangers_name_acts_in_the_results_of_a_sweep(away: HTTPServer, tmp_path: Path) -> None:
    text = HOSTILE.format(away=f"http://127.0.0.1:{away.server_port}")
    bare = text.replace("\0", "")
    plan = Plan(grid={"model": [bare, "other"], "seed": [0]}, baseline={"model": bare})
    trial = Trial(100, 10.0, {f"{bare}: {bare}": (5, 0.5)})
    with Sweep(cells(plan, "x.toml"), tmp_path / "s<script>alert(5)<\N{FRACTION SLASH}script>") as sweep:
        found = results(sweep, plan, [((("model", name),), trial) for name in (bare, "other")])
    file = tmp_path / "results.html"
    file.write_text(as_html(found), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(file)
        assert '<script>alert("acted")</script>' in tab.ask("document.querySelector('td').textContent")
        assert tab.ask("document.querySelectorAll('script, img, svg, a, main style').length") == 0
        assert tab.dialogs == []
        assert tab.requests == [file.as_uri()]
        assert tab.errors == []
    assert away.asked == []


def test_a_campaign_that_counted_no_visits_says_that_it_cannot_say(campaign: Path) -> None:
    record = CampaignRecord.read(campaign)
    state = record.state
    assert "unknown: this campaign" not in words(page.render([campaign]))
    change(campaign, "UPDATE state SET value = ?", encode({**state, "visits": 0 * state["visits"]}))
    assert "new state unknown: this campaign" in words(page.render([campaign]))


def test_lines_that_print_are_not_escaped_character_by_character(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'plain "quoted" words\n\\back\nbell\a\r\n\n\ud800 \u2028\n' + "".join(map(chr, range(0x3000)))
    assert escape(text) == printable(text.replace("\\", "\\\\"))
    looked_at: list[str] = []
    monkeypatch.setattr("lmfuzz.text.printable", lambda line: looked_at.append(line) or printable(line))
    assert escape("plain words\n" * 9 + "bell\a\n\\") == "plain words\\n" * 9 + "bell\\x07\\n\\\\"
    assert looked_at == ["bell\a"]
