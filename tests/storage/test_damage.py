"""Damaged databases, and those of other versions: one sentence in every command, never a traceback."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmfuzz
from helpers.shell import Result, Shell
from lmfuzz.storage.directory import FORMAT

PAGE = 4096
DB = Path("c/campaign.db")
RECOVER = "sqlite3 c/campaign.db .recover | sqlite3 recovered.db"
EVERY = {
    "show": ("c",),
    "replay": ("c",),
    "export": ("c", "--format", "jsonl"),
    "report": ("c", "-o", "r.html"),
    "resume": ("c", "--budget", "9000x"),
    "distil": ("c", "-o", "seeds.jsonl"),
    "shrink": ("c",),
    "watch": ("c",),
}


@pytest.fixture
def lines(sh: Shell) -> list[str]:
    """A campaign in c with findings on several pages of its database; them as JSON lines."""
    Path("says.py").write_text("def says(batch, trace):\n    return [len(text) for text in trace['text']]\n")
    sh.fuzz("--keep", "60", "-o", "c", "--objective", "says.py:says", budget="1000x")
    found = sh("export", "c", "--format", "jsonl").out.splitlines()
    assert len(found) > 40, len(found)
    return found


def overwrite(page: int, content: bytes) -> None:
    data = bytearray(DB.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = content
    DB.write_bytes(data)


def said(result: Result) -> str:
    """The sentence that says that the campaign is damaged, and how SQLite recovers it."""
    assert result.code == 2, result
    *_, sentence = result.err.splitlines()
    if sentence.endswith("is empty: there is nothing to distil"):  # it holds none of what is damaged
        return sentence
    assert sentence.startswith("lmfuzz: c/campaign.db is damaged, or is not a campaign of lmfuzz: "), sentence
    assert sentence.endswith(RECOVER)
    return sentence


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize(
    "content", [b"", b"no database at all", b"\xa5" * 5 * PAGE, b"SQLite format 3\0", None]
)
def test_every_command_says_it_in_one_sentence(sh: Shell, command: str, content: bytes | None) -> None:
    """None: the file is a database, and one of its pages is not what was written."""
    if content is None:
        sh.fuzz("-o", "c", budget="1500x")
        with closing(sqlite3.connect(DB)) as db, db:
            db.execute("UPDATE state SET value = substr(value, 1, length(value) / 2)")
    else:
        Path("c").mkdir()
        DB.write_bytes(content)
    said(sh(command, *EVERY[command]))


@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_is_damaged_there_is_no_traceback_and_no_finding_is_invented(
    sh: Shell, lines: list[str], data: st.DataObject
) -> None:
    whole = DB.read_bytes()
    many = len(whole) // PAGE
    for page in data.draw(st.lists(st.integers(1, many), min_size=1, max_size=3)):
        overwrite(page, data.draw(st.sampled_from([b"\0", b"\xff", b"\x0d", b"\x05"])) * PAGE)
    try:
        for command, arguments in EVERY.items():
            shutil.copytree("c", "kept")
            done = sh(command, *arguments)
            if done.code == 2:
                said(done)
            assert done.code in (0, 1, 2), (command, done)
            if command == "export":
                known = {json.loads(line)["prompt"] for line in lines}
                assert {json.loads(line)["prompt"] for line in done.out.splitlines()} <= known
            shutil.rmtree("c")
            Path("kept").rename("c")
    finally:
        DB.write_bytes(whole)


def test_a_campaign_of_another_version_is_refused_with_both_versions(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="300x")
    with sqlite3.connect(DB) as db:
        db.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
    db.close()
    assert "made by another build of lmfuzz" in sh.refused("show", "c")
    toml = Path("c/campaign.toml")
    toml.write_text(toml.read_text().replace(f'lmfuzz = "{lmfuzz.__version__}"', 'lmfuzz = "0.2.0"'))
    for command in (("show", "c"), ("replay", "c"), ("resume", "c"), ("export", "c", "--format", "csv")):
        assert sh.refused(*command) == (
            f"the campaign in c was made by lmfuzz 0.2.0 (format 3), and this is lmfuzz {lmfuzz.__version__} "
            f"(format {FORMAT}): read it with that version, or run it again with this one: "
            "lmfuzz fuzz --config c/campaign.toml"
        )
    toml.unlink()
    assert "was made by another lmfuzz (format 3)" in sh.refused("show", "c")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE findings SET row = x'0102' WHERE id = 2",
        "UPDATE findings SET row = x'ffffff7f' WHERE id = 2",
        "UPDATE findings SET span = 'garbage'",
        "UPDATE findings SET operator = 'none such'",
        "UPDATE findings SET origin = -905268954",
        "UPDATE findings SET parent = 905268954",
        "UPDATE rows SET parent = 905268954 WHERE id = 3",
        "UPDATE rows SET row = x'01'",
        "UPDATE state SET value = '{'",
        "UPDATE meta SET value = '{' WHERE key = 'format'",
        "DROP TABLE findings",
    ],
)
def test_what_a_whole_database_says_wrongly_is_one_sentence(sh: Shell, lines: list[str], damage: str) -> None:
    with closing(sqlite3.connect(DB)) as db:
        db.execute(damage)
        db.commit()
    for command, arguments in {**EVERY, "show": ("c", "1")}.items():
        shutil.copytree("c", "kept")
        done = sh(command, *arguments)
        assert done.code in (0, 1, 2), (command, done)
        if done.code == 2 or command in ("resume", "report"):
            said(done)
        shutil.rmtree("c")
        Path("kept").rename("c")
