"""Looking on from outside: a campaign of another process, and the table of a sweep."""

import os
import re
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from shell import Shell

from lmfuzz.statistics import Trial
from lmfuzz.store import Store
from lmfuzz.sweep import Failure, Plan, Sweep, cells
from lmfuzz.watching import LAST, SweepTable, follow, running, sweep_view


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
    with Store.read(Path("c")) as store:
        findings = len(store.findings())
    assert watched.out.count("lmfuzz: finding ") == findings
    assert "all executions are spent" in watched.out
    assert Path("c/lock").stat().st_mtime_ns == before, "nothing was locked"
    assert not running(Path("c"))
    assert not Path("c/campaign.db-wal").exists()


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


def test_a_process_that_is_gone_is_not_waited_for(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1500x")
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    Path("c/lock").write_text(gone.stdout)
    Path("c/campaign.db-wal").touch()
    assert not running(Path("c"))
    Path("c/lock").write_text(f"{os.getpid()}\n")
    assert running(Path("c"))


def test_at_a_terminal_there_is_a_picture(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    sh.fuzz("-o", "c", budget="3000x")

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    alive = iter([True, False])
    monkeypatch.setattr("lmfuzz.watching.running", lambda _: next(alive))
    monkeypatch.setattr("lmfuzz.watching.EVERY", 0)
    follow(Path("c"), out)
    text = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "of 3000x" in text
    assert "executions/s" in text
    assert re.search(r"(?m)^ +1 repetit", text)


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_table_of_a_sweep_shows_every_setting(tmp_path: Path, width: int) -> None:
    plan = Plan(grid={"search": ["random", "walk"], "seed": [0, 1]})
    out = StringIO()
    with Sweep(cells(plan, "x"), tmp_path) as sweep:
        console = Console(file=out, width=width, height=20, force_terminal=True, no_color=True)
        table = SweepTable(sweep, console)
        first, second, *_ = sweep.cells
        table.trials[first] = Trial(1000, 3.0, {"a": (1, 0.1)})
        sweep.done[first] = None
        sweep.running[second] = None
        console.print(table._picture())
        table.failed(Failure(second, 3, "no \x1b[2Jweights"))
    text = re.sub("\x1b\\[[0-9;?]*m", "", out.getvalue())
    assert re.search(r"search=random +1/2 +1\.0 ", text)
    assert ("1000" in text) == (width >= 90)
    assert re.search(r"search=walk +0/2 +1 ", text)
    assert text.index("search=walk") < text.index("search=random"), "what is under way comes first"
    assert "1 of 4 campaigns done, 1 running" in text
    assert "failed: search=walk seed=0: no \\x1b[2Jweights" in " ".join(text.split())


def test_elsewhere_there_are_lines(tmp_path: Path) -> None:
    out = StringIO()
    with Sweep(cells(Plan(grid={"seed": [0]}), "x"), tmp_path) as sweep, sweep_view(sweep, out) as view:
        view.begun(sweep.cells[0], again=True)
        view.tick()
    assert out.getvalue() == "lmfuzz: goes on: seed=0\n"
