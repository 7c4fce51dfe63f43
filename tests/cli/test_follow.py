"""Looking on from outside: a campaign of another process, and the table of a sweep."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from helpers.shell import Shell
from lmfuzz.analysis.survival import Trial
from lmfuzz.analysis.sweep import Failure, Plan, Sweep, cells
from lmfuzz.cli.follow import LAST, SweepView, follow
from lmfuzz.cli.progress import console
from lmfuzz.storage.directory import PATIENCE, lock, running
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.serialize import decode, encode
from lmfuzz.storage.store import FORMAT


def test_a_campaign_that_runs_is_followed_to_its_end(sh: Shell) -> None:
    arguments = ["fuzz", "model.py:easy", "--seeds", "seeds.txt", "--budget", "20000x", "-o", "c"]
    command = [sys.executable, "-m", "lmfuzz", *arguments, "--objective", "repetition"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "finding 1" in line:
                break
        assert running(Path("c"))
        reading = threading.Thread(target=process.stdout.read)  # so that it is not kept waiting
        reading.start()
        before = Path("c/lock").stat().st_mtime_ns
        watched = sh("watch", "c")
        reading.join()
    assert (watched.code, watched.err) == (0, "")
    record = CampaignRecord.read(Path("c"))
    findings = len(record.findings)
    assert watched.out.count("lmfuzz: finding ") == findings
    assert "all executions are spent" in watched.out
    assert Path("c/lock").stat().st_mtime_ns == before, "nothing was locked"
    assert not running(Path("c"))


def test_one_that_has_ended_is_shown_at_once(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="6000x")
    files = {path: path.read_bytes() for path in Path("c").iterdir()}
    watched = sh("watch", "c")
    assert watched.code == 0
    assert 0 < watched.out.count("lmfuzz: finding ") <= LAST
    assert [line for line in watched.out.splitlines() if not line.startswith("lmfuzz: ")] == [
        line for line in sh("show", "c").out.splitlines() if not line.startswith("finding ")
    ]
    assert {path: path.read_bytes() for path in Path("c").iterdir()} == files
    assert "no directory" in sh.refused("watch", "missing")


@pytest.mark.parametrize("number", ["reused", "zombie", "gone", ""])
def test_a_process_that_was_killed_is_not_waited_for(sh: Shell, number: str) -> None:
    """Its lock is free, whoever has its number now."""
    sh.fuzz("-o", "c", budget="1500x")
    with subprocess.Popen(["sleep", "60"]) as process:
        if number in ("zombie", "gone"):
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if number == "gone":
            process.wait()
        Path("c/lock").write_text(f"{process.pid}\n" if number else "")
        Path("c/campaign.db-wal").touch()
        assert not running(Path("c"))
        done = sh("watch", "c")
        assert done.code == 0
        assert "no process" not in done.out + done.err, "it came to its end before"
        process.kill()


def test_of_a_campaign_that_was_killed_is_said_how_to_go_on(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1500x")
    with closing(sqlite3.connect("c/campaign.db")) as db, db:
        ((state,),) = db.execute("SELECT value FROM state").fetchall()
        db.execute("UPDATE state SET value = ?", (encode({**decode(state), "reason": ""}),))
    done = sh("watch", "c")
    assert done.code == 0
    assert "lmfuzz: no process works on it any more; go on with: lmfuzz resume c\n" in done.out + done.err


def test_while_the_lock_is_held_it_runs_and_the_lock_stays_as_it_is(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1500x")
    assert not running(Path("c"))
    held = lock(Path("c"))
    number = Path("c/lock").read_text()
    assert running(Path("c"))
    said = sh("resume", "c", "--budget", "9000x").err
    assert f"is in use by another lmfuzz (process {os.getpid()})" in said
    assert Path("c/lock").read_text() == number
    held.release()
    assert not running(Path("c"))


def test_who_looks_whether_a_campaign_runs_keeps_nobody_from_it(sh: Shell) -> None:
    """A look holds the lock for a moment, and who wants it waits for longer."""
    sh.fuzz("-o", "c", budget="1500x")
    looked = FileLock("c/lock", thread_local=False)
    looked.acquire()
    threading.Timer(0.2, looked.release).start()
    lock(Path("c")).release()


def test_where_a_lock_may_not_be_opened_one_left_alone_for_long_is_not_waited_for(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    sh.fuzz("-o", "c", budget="1500x")
    monkeypatch.setattr("filelock.FileLock.acquire", denied)
    assert not running(Path("c")), "it is closed"
    log = Path("c/campaign.db-wal")
    log.touch()
    assert running(Path("c"))
    then = log.stat().st_mtime - PATIENCE
    os.utime(log, (then, then))
    assert not running(Path("c"))


@pytest.mark.parametrize("command", ["report", "shrink", "distil", "watch"])
def test_a_campaign_of_another_format_is_refused_in_a_sentence(sh: Shell, command: str) -> None:
    sh.fuzz("-o", "c", budget="1500x")
    with closing(sqlite3.connect("c/campaign.db")) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(FORMAT + 1),))
    more = ["-o", "new"] if command == "distil" else []
    said = sh.refused(command, "c", *more)
    assert said.startswith("the campaign in c was made by another build of lmfuzz ")
    assert f"(format {FORMAT + 1})" in said
    assert "lmfuzz fuzz --config c/campaign.toml" in said


def test_at_a_terminal_there_is_a_picture(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    sh.fuzz("-o", "c", budget="3000x")

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    alive = iter([True, False])
    monkeypatch.setattr("lmfuzz.cli.follow.running", lambda _: next(alive))
    monkeypatch.setattr("lmfuzz.cli.follow.EVERY", 0)
    follow(Path("c"), out)
    text = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "of 3000x" in text
    assert "executions/s" in text
    assert re.search(r"[\r\n] +1 repetit", text)


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_table_of_a_sweep_shows_every_setting(tmp_path: Path, width: int) -> None:
    plan = Plan(grid={"search": ["random", "walk"], "seed": [0, 1]})
    out = StringIO()
    with Sweep(cells(plan, "x"), tmp_path) as sweep:
        console = Console(file=out, width=width, height=20, force_terminal=True, no_color=True)
        table = SweepView(sweep, console)
        first, second, *_ = sweep.cells
        sweep.done[first] = Trial(1000, 3.0, {"a": (1, 0.1)})
        sweep.running[second] = None
        console.print(table.picture())
        table.failed(Failure(second, 3, "no \x1b[2Jweights"))
    text = re.sub("\x1b\\[[0-9;?]*m", "", out.getvalue())
    assert re.search(r"search=random +1/2 +1\.0 ", text)
    assert ("1000" in text) == (width >= 90)
    assert re.search(r"search=walk +0/2 +1 ", text)
    assert text.index("search=walk") < text.index("search=random"), "what is under way comes first"
    assert "1 of 4 campaigns done, 1 running" in text
    assert "failed: search=walk seed=0: no \\x1b[2Jweights" in " ".join(text.split())


def test_the_table_of_a_sweep_that_runs(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmfuzz.cli.follow.EVERY", 0)
    plan = Plan(
        campaign={"model": "model.py:easy", "seeds": ["seeds.txt"], "objectives": ["repetition"]},
        grid={"budget": ["1500x", "3000x"], "seed": [0]},
    )
    out = StringIO()
    with Sweep(cells(plan, "x"), Path("s")) as sweep:
        console = Console(file=out, width=100, height=20, force_terminal=True, no_color=True)
        with SweepView(sweep, console) as table:
            sweep.run(1, table)
        first = sweep.cells[0]
        assert table._progress(first) == "0: 100%"
        for left in sweep.directory(first).glob("campaign.db-*"):  # by a look at the moment when it ended
            left.unlink()
        (sweep.directory(first) / "campaign.db").write_bytes(b"no database" * 999)
        assert table._progress(first) == "0: ?"
    text = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert not sweep.failures
    for said in (
        "begins: budget=1500x seed=0",
        "1 of 2 done: budget=1500x",
        "begins: budget=3000x",
        "2 of 2 done",
    ):
        assert text.count(f"lmfuzz: {said}") == 1, said
    assert re.search(r"budget=1500x +0/1 +1 +0: \d+%", text), "under way"
    assert re.search(r"budget=1500x +1/1 +\d+\.0 +\d+", text), "at its end"
    assert "1 of 2 campaigns done, 1 running" in text


def test_elsewhere_there_are_lines(tmp_path: Path) -> None:
    out = StringIO()
    with (
        Sweep(cells(Plan(grid={"seed": [0]}), "x"), tmp_path) as sweep,
        SweepView(sweep, console(out)) as view,
    ):
        view.begun(sweep.cells[0], again=True)
        view.tick()
    assert out.getvalue() == "lmfuzz: goes on: seed=0\n"
