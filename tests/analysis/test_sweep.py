"""A sweep: its file, its campaigns, and that none is lost or run twice, whatever is killed."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from helpers.shell import Shell
from lmfuzz.analysis.sweep import Cell, Failure, Plan, Sweep, cells, read
from lmfuzz.errors import UsageError
from lmfuzz.storage.record import CampaignRecord

FILE = """
trials = 2
[campaign]
model = "model.py:easy"
seeds = ["seeds.txt"]
objectives = ["repetition"]
budget = "1500x"
[grid]
search = ["random", "walk"]
[baseline]
search = "random"
"""


@pytest.fixture
def folder(tmp_path: Path, sh: Shell) -> Path:
    (tmp_path / "sweep.toml").write_text(FILE)
    return tmp_path


def planned(text: str) -> list[str]:
    Path("sweep.toml").write_text(text)
    return [cell.name for cell in cells(read(Path("sweep.toml")), "sweep.toml")]


def test_every_setting_can_be_an_axis(folder: Path) -> None:
    names = planned(
        'trials = 2\n[grid]\nsearch = ["walk", "random"]\ntemperature = [0.0, 0.5]\n'
        'objectives = ["repetition", ["entropy:low=0.1", "nonfinite"]]\n'
    )
    assert len(names) == 16
    assert names[0] == "search=walk temperature=0.0 objectives=repetition seed=0"
    assert names[-1] == "search=random temperature=0.5 objectives=entropy:low=0.1 + nonfinite seed=1"
    found = cells(read(folder / "sweep.toml"), "sweep.toml")
    assert {cell.spec.seed for cell in found[:8]} == {0}, "the first trial of everything comes first"
    assert found[-1].spec.objectives == ["entropy:low=0.1", "nonfinite"]
    assert {cell.spec.threads for cell in found} == {1}


def test_tables_set_several_things_at_once_and_several_of_a_name_are_trials(folder: Path) -> None:
    names = planned(
        '[grid]\nseed = [7]\n[grid.fault.loop]\nmodel = "a"\n[[grid.fault.word]]\nmodel = "b"\n'
        '[[grid.fault.word]]\nmodel = "c"\nobjectives = ["repetition"]\n'
    )
    assert names == ["fault=loop seed=7", "fault=word.0 seed=7", "fault=word.1 seed=7"]
    found = cells(read(folder / "sweep.toml"), "sweep.toml")
    assert [cell.labels for cell in found] == [(("fault", "loop"),)] + 2 * [(("fault", "word"),)]
    assert [cell.spec.model for cell in found] == ["a", "b", "c"]


def test_a_campaign_is_known_by_its_settings(folder: Path) -> None:
    def digests(text: str) -> set[str]:
        planned(text)
        return {cell.digest for cell in cells(read(folder / "sweep.toml"), "sweep.toml")}

    before = digests('trials = 1\n[grid]\nsearch = ["walk"]\n')
    assert before < digests('trials = 2\n[grid]\nbatch = [64, 32]\nsearch = ["random", "walk"]\n')
    assert not before & digests('trials = 1\n[campaign]\nbudget = "2m"\n[grid]\nsearch = ["walk"]\n')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gird]\n", "unknown key 'gird' in sweep.toml; did you mean 'grid'?"),
        ('search = "walk"\n', "search in sweep.toml stands outside any table; put it below"),
        ('[grid]\nserch = ["walk"]\n', "unknown key 'serch' in sweep.toml; did you mean 'search'?"),
        ("[campaign]\nbugdet = '1m'\n", "unknown key 'bugdet' in sweep.toml; did you mean 'budget'?"),
        ("[grid]\nsearch = ['wlak']\n", "unknown search 'wlak'; did you mean 'walk'?"),
        ("[grid]\nsearch = ['directed:exlpore=0.1']\n", "no parameter 'exlpore'; directed takes"),
        ("[grid]\nobjectives = ['walk', 'x']\n", "unknown objective 'walk'"),
        ("[campaign]\nobjectives = ['repetition:tmes=3']\n", "no parameter 'tmes'; repetition takes"),
        ("[campaign]\nobjectives = ['all(repetition:tmes=3, entropy)']\n", "has no parameter 'tmes'"),
        ("[campaign]\nobjectives = ['repetition:times=few']\n", "times must be a whole number, not \"few\""),
        ("[grid]\noperators = ['insert:3']\n", "insert has no parameter '3'"),
        ("[campaign]\nfeature = 'trajectory:stpes=3'\n", "trajectory has no parameter 'stpes'"),
        ("[grid]\ntwin = ['int8', 'int8:ouput=float']\n", "int8 has no parameter 'ouput'"),
        ("trials = 1\n[[grid.a.x]]\nsearch = 'walk:a=1'\n[[grid.a.x]]\nbatch = 2\n", "walk has no parameter"),
        ("[grid]\nsearch = 'walk'\n", "search in [grid] must be a list of values, or tables of settings"),
        ("[grid]\nsearch = []\n", "search in [grid] of sweep.toml has no values"),
        ("[grid]\nsearch = ['walk', 'walk']\n", "search in [grid] of sweep.toml names walk twice"),
        ("[grid]\nbatch = [64, 'x']\n", "batch in sweep.toml must be a whole number, not \"x\""),
        ("", "sweep.toml is empty, so there is nothing to compare"),
        ("trials = 0\n", "trials in sweep.toml must be greater than or equal to 1, not 0"),
        ("grid = 3\n", "grid in sweep.toml must be a table, not 3"),
        ("trials = 3\n[grid]\nseed = [1]\n", "sweep.toml gives the seeds in two ways"),
        ("[campaign]\nseed = 3\n", "sweep.toml gives the seeds in two ways"),
        ("[grid]\nsearch = ['walk']\n[baseline]\nserch = 'walk'\n", "is not an axis; did you mean 'search'?"),
        ("[grid]\nsearch = ['walk']\n[baseline]\nsearch = 'wlak'\n", "that axis; did you mean 'walk'?"),
        ("[grid.a.x]\nbatch = 1\n[grid.b.x]\nbatch = 2\n", "batch in sweep.toml is set by two axes, a and b"),
        ("[grid.a]\nx = {}\ny = {}\n", "two campaigns of sweep.toml are the same: a=x seed=0, and"),
        ("[grid]\nbatch = [64,\n", "sweep.toml is not TOML:"),
        ("trials = 60000\n[grid]\nbatch = [1, 2]\n", "asks for 120000 campaigns; the limit is 100000"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_one_sentence(folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_campaign_takes_a_sweep_takes(folder: Path) -> None:
    texts = [
        "disagreement:gap=2.0",
        "repetition:3",
        'any(regex:"a", phrases:words=["b"])',
        "own.py:Odd:least=2",
    ]
    (folder / "own.py").write_text(
        "class Odd:\n    def __init__(self, least: int): raise ValueError('late')\n"
    )
    names = planned(
        f"trials = 1\n[campaign]\nsearch = 'directed:explore=0.1'\n[grid]\nobjectives = {texts}\n"
    )
    assert len(names) == len(texts)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lmfuzz", "sweep", "sweep.toml", *arguments]


def state(directory: Path) -> tuple[str, int]:
    record = CampaignRecord.read(directory)
    return record.reason, record.executions


def test_a_sweep_runs_every_campaign_once_and_compares(folder: Path, sh: Shell) -> None:
    done = sh("sweep", "sweep.toml", "--jobs", "2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("lmfuzz: begins: ") == 4
    assert "4 of 4 done: " in done.out
    assert "warning: 2 trials per setting; below 20" in done.out
    directories = list((folder / "runs/sweep/campaigns").iterdir())
    assert [state(directory)[0] for directory in directories] == ["executions"] * 4
    for name in ("results.csv", "buckets.csv", "results.md", "results.html"):
        assert "random" in (folder / "runs/sweep" / name).read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/sweep/campaigns/*/*")}
    again = sh("sweep", "sweep.toml")
    assert again.code == 0
    assert "lmfuzz: begins" not in again.out
    assert "lmfuzz: goes on" not in again.out
    assert "4 campaigns, 4 of them done" in again.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def waited_for(process: subprocess.Popen[str], *words: str) -> None:
    """Read lines until one holds one of these."""
    assert process.stdout is not None
    for line in process.stdout:
        if any(what in line for what in words):
            return
    raise AssertionError(f"it ended without {words}")


def contents(directories: list[Path]) -> dict[Path, str]:
    return {d: hashlib.sha256((d / "campaign.db").read_bytes()).hexdigest() for d in directories}


def committed(directory: Path) -> int:
    """Executions at the last commit; 0 before the first."""
    try:
        return state(directory)[1]
    except UsageError:
        return 0


def test_killed_in_the_middle_none_is_lost_and_none_runs_twice(folder: Path, sh: Shell) -> None:
    """First the sweep alone is killed, and its campaign goes on; then the sweep and its campaign."""
    (folder / "sweep.toml").write_text(FILE.replace("1500x", "15000x").replace("trials = 2", "trials = 1"))
    campaigns, logs = folder / "runs/sweep/campaigns", folder / "runs/sweep/logs"
    with subprocess.Popen(command("--jobs", "1"), stdout=subprocess.PIPE, text=True) as first:
        waited_for(first, "begins: search=random")
        (one,) = wait_for(lambda: [d for d in campaigns.iterdir() if committed(d)])
        first.kill()
    with subprocess.Popen(command("--jobs", "1"), stdout=subprocess.PIPE, text=True) as second:
        # It waited for the process that the first had begun, unless that was at its end already.
        waited_for(second, "1 of 2 done: search=random", "2 campaigns, 1 of them done")
        before = contents([one])
        waited_for(second, "begins: search=walk")
        (two,) = wait_for(lambda: [d for d in campaigns.iterdir() if d != one and committed(d)])
        second.kill()
        os.kill(int((two / "lock").read_text()), signal.SIGKILL)
    so_far = committed(two)
    third = sh("sweep", "sweep.toml", "--jobs", "2")
    assert (third.code, third.err) == (0, "")
    assert "2 campaigns, 1 of them done" in third.out
    assert "goes on: search=walk" in third.out
    assert contents([one]) == before
    assert committed(two) >= max(so_far, 15000)
    assert len(list(campaigns.iterdir())) == 2
    for log in logs.glob("*.log"):
        assert log.read_text().count("lmfuzz: model model.py:easy") == 1, "each began once"


def wait_for(look):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came")


def test_a_campaign_that_a_process_still_has_is_waited_for(folder: Path) -> None:
    (folder / "sweep.toml").write_text(FILE.replace("trials = 2", "trials = 1"))
    found = cells(read(Path("sweep.toml")), "sweep.toml")
    with Sweep(found, Path("runs/sweep")) as sweep:
        held = FileLock(sweep.log(found[0]).with_suffix(".lock"), thread_local=False)
        directory, log = sweep.directory(found[0]), sweep.log(found[0])
    held.acquire()
    with subprocess.Popen(command("--jobs", "2"), stdout=subprocess.PIPE, text=True) as process:
        waited_for(process, "1 of 2 done: search=walk")
        assert not directory.exists()
        assert log.read_text() == ""
        held.release()
        waited_for(process, "2 of 2 done: search=random")
    assert state(directory)[0] == "executions"


def test_a_campaign_is_no_place_for_a_sweep(folder: Path) -> None:
    Path("c").mkdir()
    Path("c/campaign.db").touch()
    with pytest.raises(UsageError, match="c is a campaign, not a sweep; give another"):
        Sweep(cells(read(Path("sweep.toml")), "sweep.toml"), Path("c"))
    assert [path.name for path in Path("c").iterdir()] == ["campaign.db"]


def test_what_was_killed_before_its_first_commit_begins_anew(folder: Path, sh: Shell) -> None:
    (cell,) = cells(Plan(campaign={"model": "model.py:easy", "budget": "1500x"}, grid={"seed": [0]}), "x")
    with Sweep([cell], folder / "runs/sweep") as sweep:
        directory = sweep.directory(cell)
    directory.mkdir()
    (directory / "campaign.db").write_bytes(b"")
    (directory / "campaign.toml.part").write_text("mod")
    (folder / "sweep.toml").write_text(
        '[campaign]\nmodel = "model.py:easy"\nbudget = "1500x"\n[grid]\nseed = [0]\n'
    )
    assert sh("sweep", "sweep.toml").code == 0
    assert state(directory)[0] == "executions"


def test_an_interrupted_sweep_ends_its_campaigns_in_order(folder: Path, sh: Shell) -> None:
    (folder / "sweep.toml").write_text(FILE.replace("1500x", "5m"))
    with subprocess.Popen(
        command("--jobs", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        waited_for(one, "begins")
        (directory,) = wait_for(lambda: [*folder.glob("runs/sweep/campaigns/*/campaign.db")])
        wait_for(lambda: committed(directory.parent))
        refused = sh("sweep", "sweep.toml")
        assert (refused.code, refused.err) == (
            2,
            f"lmfuzz: runs/sweep is in use by another lmfuzz (process {one.pid})\n",
        )
        time.sleep(0.5)  # the campaign heeds signals from its first step on
        one.send_signal(signal.SIGINT)
        assert one.wait() == 130
        assert one.stderr is not None
        assert one.stderr.read() == "lmfuzz: interrupted; the same command goes on\n"
    assert state(directory.parent)[0] == "interrupted"


def test_campaigns_that_fail_are_all_named_and_the_others_run(folder: Path, sh: Shell) -> None:
    text = '[campaign]\nseeds = ["seeds.txt"]\nbudget = "1500x"\nobjectives = ["repetition"]\n'
    (folder / "sweep.toml").write_text(
        text + '[grid]\nseed = [0]\nmodel = ["model.py:fails", "model.py:nothing", "model.py:easy"]\n'
    )
    done = sh("sweep", "sweep.toml", "--jobs", "1")
    assert done.code == 3
    failed, other = done.err.splitlines()
    assert failed.startswith("lmfuzz: model=model.py:fails seed=0: ")
    assert "no weights here" in failed
    assert other.startswith("lmfuzz: model=model.py:nothing seed=0: ")
    assert "1 of 3 done: model=model.py:easy seed=0" in done.out
    assert "2 of 3 campaigns are not at their end" in done.out
    assert "warning: 2 campaigns failed: model=model.py:fails seed=0, model=model.py:nothing" in done.out


def test_a_campaign_that_cannot_be_read_stops_no_other(folder: Path, sh: Shell) -> None:
    (folder / "sweep.toml").write_text(FILE.replace("trials = 2", "trials = 1"))
    found = cells(read(Path("sweep.toml")), "sweep.toml")
    with Sweep(found, Path("runs/sweep")) as sweep:
        one, other = (sweep.directory(cell) / "campaign.db" for cell in found)
    one.parent.mkdir()
    one.write_bytes(b"no database" * 999)
    done = sh("sweep", "sweep.toml", "--jobs", "2")
    assert done.code == 2
    assert done.err.startswith(f"lmfuzz: search=random seed=0: {one} is damaged, or is not a campaign")
    assert done.err.count("\n") == 1
    assert done.out.count("lmfuzz: failed: search=random seed=0: ") == 1
    assert "1 of 2 done: search=walk seed=0" in done.out
    assert "1 of 2 campaigns are not at their end, and not in here" in done.out
    assert "warning: 1 campaign failed: search=random seed=0" in done.out
    assert "1 campaign failed: ` search=random seed=0 `" in Path("runs/sweep/results.md").read_text()
    assert one.read_bytes() == b"no database" * 999
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("UPDATE state SET value = x'00'")  # it opens, and says nothing of how it stands
    with Sweep(found, Path("runs/sweep")) as sweep:
        assert {cell: failure.code for cell, failure in sweep.failures.items()} == dict.fromkeys(found, 2)
    assert sweep.failures[found[1]].words.startswith(f"{other} is damaged")


class Spoiler:
    """Damages a campaign's database while it is under way."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.said = sweep, list[str]()

    def begun(self, cell: Cell, again: bool) -> None:
        self.sweep.directory(cell).mkdir(exist_ok=True)
        (self.sweep.directory(cell) / "campaign.db").write_bytes(b"no database" * 999)

    def ended(self, cell: Cell) -> None:
        self.said.append(f"ended {cell.name}")

    def failed(self, failure: Failure) -> None:
        self.said.append(f"failed {failure.cell.name}, {failure.code}")

    def tick(self) -> None: ...


def test_one_that_is_damaged_while_it_runs_is_named_too(folder: Path) -> None:
    plan = Plan(campaign={"model": "model.py:easy", "budget": "1500x"}, grid={"seed": [0, 1]})
    with Sweep(cells(plan, "x"), folder / "s") as sweep:
        view = Spoiler(sweep)
        sweep.run(2, view)
    assert sorted(view.said) == ["failed seed=0, 2", "failed seed=1, 2"]
    assert not sweep.done
