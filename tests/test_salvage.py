"""Damaged databases, and those of other versions: what can be read is exported, what is lost is said."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell import Shell

import lmfuzz
from lmfuzz.analysis.salvage import opened
from lmfuzz.storage.store import FORMAT

PAGE = 4096
DB = Path("c/campaign.db")


@pytest.fixture
def lines(sh: Shell) -> list[str]:
    """A campaign in c with findings on several pages of its database; them as JSON lines."""
    Path("says.py").write_text("def says(batch, trace):\n    return [len(text) for text in trace['text']]\n")
    sh.fuzz("--keep", "60", "-o", "c", "--objective", "says.py:says", budget="1000x")
    found = sh("export", "c", "--format", "jsonl").out.splitlines()
    assert len(found) > 40, len(found)
    return found


def pages(table: str) -> list[int]:
    """The numbers of the pages that hold rows of a table, from 1."""
    root = (
        sqlite3.connect(DB)
        .execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,))
        .fetchone()[0]
    )
    data = DB.read_bytes()
    page = data[(root - 1) * PAGE : root * PAGE]
    if page[0] == 13:
        return [root]
    cells = [
        int.from_bytes(page[12 + 2 * i : 14 + 2 * i], "big") for i in range(int.from_bytes(page[3:5], "big"))
    ]
    return [int.from_bytes(page[c : c + 4], "big") for c in cells] + [int.from_bytes(page[8:12], "big")]


def overwrite(page: int, content: bytes = b"\xa5" * PAGE) -> None:
    data = bytearray(DB.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = content
    DB.write_bytes(data)


def exported(sh: Shell) -> tuple[list[str], str]:
    done = sh("export", "c", "--format", "jsonl")
    assert done.code == 2, done
    assert done.err.startswith("lmfuzz: the database is damaged: ")
    return done.out.splitlines(), done.err


@pytest.mark.parametrize("content", [b"\0" * PAGE, b"\xa5" * PAGE])
def test_findings_on_other_pages_are_read(sh: Shell, lines: list[str], content: bytes) -> None:
    leaves = pages("findings")
    assert len(leaves) > 3
    overwrite(leaves[1], content)
    left, said = exported(sh)
    assert len(lines) // 2 < len(left) < len(lines)
    assert left == [line for line in lines if line in left], "they are whole, in order, with their numbers"
    gone = [json.loads(line)["number"] for line in lines if line not in left]
    assert f"{len(gone)} of {len(lines)} findings cannot be read: {gone[0]}, {gone[1]}, " in said
    for name, word in {
        "junit": "damaged",
        "sarif": "cannot be read",
        "markdown": "**Lost**",
        "pytest": "cannot be",
    }.items():
        assert word in sh("export", "c", "--format", name).out


def test_a_file_that_is_too_short_is_read_as_far_as_it_goes(sh: Shell, lines: list[str]) -> None:
    DB.write_bytes(DB.read_bytes()[: (pages("findings")[-2] - 1) * PAGE + 100])
    assert "is damaged, or is no campaign" in sh("show", "c").err
    left, said = exported(sh)
    assert 0 < len(left) < len(lines)
    assert set(left) < set(lines)
    assert "cannot be read" in said


def test_a_file_without_its_beginning_is_read(sh: Shell, lines: list[str]) -> None:
    overwrite(1)
    left, said = exported(sh)
    assert left == lines
    assert said == "lmfuzz: the database is damaged: DatabaseError: file is not a database\n"


def test_without_its_meta_the_texts_are_left(sh: Shell, lines: list[str]) -> None:
    overwrite(pages("meta")[0])
    left, said = exported(sh)
    assert [json.loads(line)["prompt"] for line in left] == [json.loads(line)["prompt"] for line in lines]
    assert {json.loads(line)["model"] for line in left} == {"model.py:easy"}, "campaign.toml says it"
    assert "as in its campaign.toml: identity, " in said
    Path("c/campaign.toml").unlink()
    assert len(exported(sh)[0]) == len(lines)


def test_without_its_state_nobody_knows_how_many_there_were(sh: Shell, lines: list[str]) -> None:
    overwrite(pages("state")[0])
    left, said = exported(sh)
    assert left == lines
    assert "more may be lost than is said here" in said


@pytest.mark.parametrize("content", [b"", b"no database at all", b"\xa5" * 5 * PAGE, b"SQLite format 3\0"])
def test_what_is_no_database_is_refused_in_a_sentence(sh: Shell, content: bytes) -> None:
    Path("c").mkdir()
    DB.write_bytes(content)
    assert sh.refused("export", "c", "--format", "csv").startswith(
        "nothing can be read of c/campaign.db any more: "
    )
    assert "what can be read: lmfuzz export c --format jsonl" in sh.refused("show", "c")


@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_is_damaged_no_finding_is_invented(sh: Shell, lines: list[str], data: st.DataObject) -> None:
    whole = DB.read_bytes()
    many = len(whole) // PAGE
    for page in data.draw(st.lists(st.integers(1, many), min_size=1, max_size=3)):
        overwrite(page, data.draw(st.sampled_from([b"\0", b"\xff", b"\x0d", b"\x05"])) * PAGE)
    try:
        done = sh("export", "c", "--format", "jsonl")
        assert done.code in (0, 2), done
        assert "bug in lmfuzz" not in done.err
        known = {json.loads(line)["prompt"] for line in lines}
        assert {json.loads(line)["prompt"] for line in done.out.splitlines()} <= known
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
            f"(format {FORMAT}): read it with that version, or run it anew with this one: "
            "lmfuzz fuzz --config c/campaign.toml"
        )
    toml.unlink()
    assert "was made by another lmfuzz (format 3)" in sh.refused("show", "c")


def test_a_whole_campaign_has_lost_nothing(sh: Shell, lines: list[str]) -> None:
    found = opened(Path("c"))
    assert (found.lost, len(found.findings)) == ((), len(lines))
    assert found.numbers is not None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE findings SET row = x'0102' WHERE id = 2",
        "UPDATE findings SET row = x'ffffff7f' WHERE id = 2",
        "UPDATE findings SET span = 'garbage'",
        "UPDATE findings SET operator = 'none such'",
        "UPDATE findings SET origin = -905268954",
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
    for command in (("show", "c"), ("show", "c", "1"), ("replay", "c", "1"), ("report", "c", "-o", "r.html")):
        done = sh(*command)
        assert done.code in (0, 1, 2), (command, done)
        if done.code == 2:
            assert "campaign.db is damaged, or is no campaign of lmfuzz: " in done.err, command
            assert done.err.rstrip().endswith("lmfuzz export c --format jsonl")
    refused = [
        sh(*words) for words in (("resume", "c", "--budget", "5000x"), ("report", "c", "-o", "r.html"))
    ]
    assert all(done.code == 2 and "is damaged" in done.err for done in refused), refused
    assert sh("export", "c", "--format", "jsonl").err.startswith("lmfuzz: the database is damaged: ")
