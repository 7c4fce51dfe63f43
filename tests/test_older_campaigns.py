"""Campaigns of earlier versions go on: each is resumed, shown, shrunk, replayed, exported and reported."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from helpers.shell import Shell

OLD = Path(__file__).parent / "campaigns"
CAMPAIGNS = sorted(path.parent.relative_to(OLD).as_posix() for path in OLD.rglob("campaign.db"))
MORE = {"lstm": "2200x", "chat": "450x", "image": "90x"}  # budgets to go on with
FORMATS = ("jsonl", "csv", "pytest", "junit", "sarif", "markdown", "baseline")


@pytest.fixture(params=CAMPAIGNS)
def old(request: pytest.FixtureRequest, sh: Shell) -> Path:
    """A copy of an old campaign in the working directory."""
    return Path(shutil.copytree(OLD / request.param, Path(request.param).name))


def findings(sh: Shell, directory: Path) -> list[dict]:
    return json.loads(sh("show", str(directory), "--json").out)["records"]


def edit_spec(directory: Path, **keys: object) -> None:
    """Change settings of a stored spec; None takes one away."""
    with closing(sqlite3.connect(directory / "campaign.db")) as db, db:
        (value,) = db.execute("SELECT value FROM meta WHERE key = 'spec'").fetchone()
        spec = {**json.loads(value), **keys}
        spec = {key: value for key, value in spec.items() if key not in keys or value is not None}
        db.execute("UPDATE meta SET value = ? WHERE key = 'spec'", (json.dumps(spec),))


def test_an_old_campaign_goes_on_from_what_it_found(sh: Shell, old: Path) -> None:
    before = findings(sh, old)
    done = sh("resume", str(old), "--budget", MORE[old.name], "--json")
    assert done.code == 1, done.err
    after = findings(sh, old)
    assert after[: len(before)] == before
    assert json.loads(done.out.splitlines()[-1])["exit_reason"] in ("executions", "done")


def test_the_findings_of_an_old_campaign_still_fail(sh: Shell, old: Path) -> None:
    done = sh("replay", str(old), "--json")
    told = json.loads(done.out)
    assert done.code == 1
    assert not told["changed"]  # the target's identity is what it was
    assert not told["respelled"]
    assert {verdict["verdict"] for verdict in told["verdicts"]} == {"still fails"}


def test_the_findings_of_an_old_campaign_can_be_made_minimal(sh: Shell, old: Path) -> None:
    done = sh("shrink", str(old), "1", "--json")
    assert done.code == 0, done.err
    small = json.loads(done.out)["findings"][0]["minimal"]
    assert small["size"] <= small["before"]
    assert findings(sh, old)[0]["minimal"] == small


def test_an_old_campaign_can_be_shown_exported_reported_and_distilled(sh: Shell, old: Path) -> None:
    assert "finding 1" in sh("show", str(old), "1").out
    for name in FORMATS:
        done = sh("export", str(old), "--format", name, "-o", f"out.{name}")
        assert done.code == 0, done.err
        assert Path(f"out.{name}").stat().st_size
    assert sh("report", str(old)).code == 0
    assert (old / "report.html").stat().st_size
    seeds = "seeds.npy" if old.name == "image" else "seeds.jsonl"
    assert sh("distil", str(old), "-o", seeds).code == 0


def test_tests_that_an_earlier_version_exported_still_run() -> None:
    exported = sorted(map(str, OLD.rglob("exported.py")))
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, *exported]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert " passed" not in done.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    assert done.stdout.count("still fails") >= len(failed)
    for path in exported:
        assert any(Path(path).parent.name in line for line in failed), path


def test_a_setting_that_there_was_not_yet_has_its_default(sh: Shell) -> None:
    old = Path(shutil.copytree(OLD / "0.3.0" / "lstm", "lstm"))
    edit_spec(old, shrink=None, edits=None)
    text = (old / "campaign.toml").read_text().replace("shrink = false\n", "")
    (old / "campaign.toml").write_text(text)
    assert sh("resume", str(old), "--budget", "2100x").code == 1
    assert sh("replay", str(old), "1").code == 1
    assert sh("shrink", str(old), "1").code == 0
    assert sh("report", str(old)).code == 0


@pytest.mark.parametrize("command", [["resume"], ["replay"], ["shrink"], ["report"], ["show"]])
def test_a_setting_of_a_later_version_is_named_in_one_sentence(sh: Shell, command: list[str]) -> None:
    old = Path(shutil.copytree(OLD / "0.3.0" / "lstm", "lstm"))
    edit_spec(old, telepathy=True)
    said = sh.refused(*command, str(old))
    assert "telepathy" in said
    assert "newer version" in said
