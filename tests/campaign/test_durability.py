"""Whatever happens to a campaign, what was shown is on disk, and going on gives what would have been."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.begun import begun, restored
from lmfuzz.campaign.campaign import Campaign, spec_for_resume
from lmfuzz.spec import Spec
from lmfuzz.storage import store as stores
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import Store
from lmfuzz.types import Finding, Step

SEEDS = "the quick brown fox\nonce upon a time\na door in the wall\nsay the word, friend.\n"
EASY = "from lmfuzz.targets.toy import Toy\n\ndef easy():\n    return Toy(phrase_key='xyz', loop_key='vk')\n"
FRAIL = """def frail(batch, trace):
    '''An objective that cannot score every batch.'''
    if trace["text"][0][0] < "k":
        raise ValueError("starts too early in the alphabet")
    return [None if text[0] == "z" else text.startswith("qu") for text in trace["text"]]
"""
TABLES = ("rows", "states", "findings", "minimals")

# One life of a campaign: it is killed by SIGKILL in the middle of step LIFE, wherever that falls.
LIFE = """
import os, signal, sys
from pathlib import Path
from lmfuzz.storage import store as stores
from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign, spec_for_resume
from lmfuzz.storage.store import Store

directory, steps = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "often":
    stores.QUIET = stores.SHARE = 0


class Killer:
    left = steps

    def note(self, line): ...

    def found(self, number, finding):
        print(number, flush=True)

    def step(self, step):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


with Store.resume(directory) as store:
    campaign = Campaign.restore(build(spec_for_resume(directory), record=store.record()), store)
    campaign.run(store, Killer())
"""


class Stopper:
    """Asks the campaign to stop after some steps."""

    def __init__(self, campaign: Campaign, steps: int = -1) -> None:
        self.campaign, self.left, self.shown = campaign, steps, 0

    def note(self, line: str) -> None: ...

    def found(self, number: int, finding: Finding) -> None:
        self.shown = number

    def step(self, step: Step) -> None:
        self.left -= 1
        if self.left == 0:
            self.campaign.stop()


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    (tmp_path / "seeds.txt").write_text(SEEDS)
    (tmp_path / "easy.py").write_text(EASY)
    (tmp_path / "frail.py").write_text(FRAIL)
    return Spec(
        model=f"{tmp_path}/easy.py:easy",
        seeds=[str(tmp_path / "seeds.txt")],
        objectives=["repetition", 'phrases:words=["sesame"]', f"{tmp_path}/frail.py:frail"],
        search="tensorfuzz",
        budget="9000x",
    )


def begin(spec: Spec, directory: Path) -> None:
    """A new campaign that has not taken a step."""
    campaign = begun(spec)
    campaign.create(directory).close()


def go_on(directory: Path, steps: int = -1) -> str:
    """Resume it for some steps, or to its end; why it ended."""
    with Store.resume(directory) as store:
        campaign = restored(spec_for_resume(directory), store)
        campaign.run(store, Stopper(campaign, steps))
        return campaign.reason


def tables(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    db = sqlite3.connect(directory / stores.DATABASE)
    try:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES}
    finally:
        db.close()


def counts(directory: Path) -> dict[str, Any]:
    """What of the state must be the same however often a campaign was interrupted."""
    record = CampaignRecord.read(directory)
    state = record.state
    del state["seconds"], state["time_in_target"], state["reason"]
    state["tally"].pop("last_novel")
    return json.loads(stores.encode(state))


@pytest.mark.parametrize("search", ["tensorfuzz", "walk", "random", "directed", "tensorfuzz:sampler=uniform"])
def test_interrupted_and_resumed_equals_unbroken(spec: Spec, tmp_path: Path, search: str) -> None:
    spec = spec.model_copy(update={"search": search})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    campaign = begun(spec)
    with campaign.create(whole) as store:
        campaign.run(store, Stopper(campaign))
    assert campaign.reason == "executions"

    begin(spec, broken)
    for steps in (1, 2, 5, 13):
        assert go_on(broken, steps) == "interrupted"
    assert go_on(broken) == "executions"

    assert tables(broken) == tables(whole)
    assert counts(broken) == counts(whole)
    assert tables(whole)["states"]
    assert tables(whole)["findings"]
    assert counts(whole)["panel"]["unscored"]["frail"] > 0


def test_killed_in_any_step_and_resumed_equals_unbroken(spec: Spec, tmp_path: Path) -> None:
    spec = spec.model_copy(update={"search": "directed", "shrink": True})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin(spec, whole)
    go_on(whole)
    begin(spec, killed)
    for steps, commits in ((1, "often"), (11, "often"), (9, "seldom"), (17, "often")):
        life = subprocess.run(
            [sys.executable, "-c", LIFE, str(killed), str(steps), commits], capture_output=True, text=True
        )
        assert life.returncode == -signal.SIGKILL, life.stderr
        shown = [int(number) for number in life.stdout.split()]
        record = CampaignRecord.read(killed)
        assert len(record.findings) >= max(shown, default=0)
    assert go_on(killed) == "executions"
    assert tables(killed) == tables(whole)
    assert counts(killed) == counts(whole)
    assert len(tables(whole)["minimals"]) == len(tables(whole)["findings"]) > 0


def lmfuzz(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lmfuzz", *map(str, arguments)]


def options(spec: Spec) -> list[str]:
    given = [spec.model, "--seeds", spec.seeds[0], "--search", "directed"]
    return given + [word for text in spec.objectives for word in ("--objective", text)]


def test_no_shown_finding_is_lost_to_kill_9(spec: Spec, tmp_path: Path) -> None:
    directory, shown = tmp_path / "c", []
    first = lmfuzz("fuzz", *options(spec), "--budget", "1h", "--keep", "3", "-o", directory)
    for command in (first, lmfuzz("resume", directory)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("lmfuzz: finding"):
                shown.append(line)
                break
        os.kill(process.pid, signal.SIGKILL)
        shown += [line for line in process.stdout if line.startswith("lmfuzz: finding")]
        process.wait()
        process.stdout.close()
        record = CampaignRecord.read(directory)
        prompts = [finding.prompt for finding in record.findings]
        numbers = [int(line.removeprefix("lmfuzz: finding ").partition(",")[0]) for line in shown]
        assert len(prompts) >= max(numbers)  # some may be on disk and not shown yet
        for number, line in zip(numbers, shown, strict=True):
            assert f'"{prompts[number - 1]}" -> ' in line.replace("\\n", "\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_campaign_cleanly(spec: Spec, tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "c"
    process = subprocess.Popen(
        lmfuzz("fuzz", *options(spec), "--budget", "1h", "--json", "-o", directory),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("lmfuzz: finding"):
            break
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert err == ""
    summary = json.loads(out.splitlines()[-1])
    assert summary["exit_reason"] == "interrupted"
    assert f"lmfuzz resume {directory}" in out
    assert sorted(path.name for path in directory.iterdir()) == ["campaign.db", "campaign.toml", "lock"]
    record = CampaignRecord.read(directory)
    assert record.executions == summary["executions"]


HANGS = """
import time
from lmfuzz.targets.toy import Toy

class Hangs(Toy):
    def run(self, batch, wants):
        try:
            self.ran = getattr(self, "ran", 0) + len(batch)
            if self.ran > 1000:
                print("hangs", flush=True)
                time.sleep(600)
        except ValueError:
            pass
        return super().run(batch, wants)
"""


@pytest.mark.parametrize("numbers", ["TERM INT", "INT TERM", "INT INT", "HUP INT"])
def test_any_second_signal_ends_a_run_that_hangs(tmp_path: Path, numbers: str) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    command = "fuzz", f"{tmp_path}/hangs.py:Hangs", "--seeds", "text:abc", "-o", tmp_path / "c"
    first, second = (signal.Signals[f"SIG{name}"] for name in numbers.split())
    with subprocess.Popen(
        lmfuzz(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "hangs\n":
            assert process.poll() is None
        process.send_signal(first)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(second)
        assert process.wait(10) == (130 if second == signal.SIGINT else -second)
    assert CampaignRecord.read(tmp_path / "c").reason == ""


def test_a_reader_that_goes_away_interrupts(spec: Spec, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    process = subprocess.Popen(
        lmfuzz("fuzz", *options(spec), "--budget", "1h", "-o", directory),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    while not process.stdout.readline().startswith("lmfuzz: finding"):
        pass
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 130
    assert go_on(directory, 1) == "interrupted"


def test_a_file_size_limit_ends_the_campaign_with_one_sentence(spec: Spec, tmp_path: Path) -> None:
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2);"
        "from lmfuzz.cli.main import main; sys.argv[0] = 'lmfuzz'; main()"
    )
    arguments = [*options(spec), "--keep", "1000", "--budget", "1h", "-o", str(tmp_path / "c")]
    done = subprocess.run([sys.executable, "-c", limit, "fuzz", *arguments], capture_output=True, text=True)
    assert done.returncode == 4
    *rows, sentence = done.stderr.splitlines()
    assert sentence.startswith(f"lmfuzz: cannot write {tmp_path / 'c'}: ")
    record = CampaignRecord.read(tmp_path / "c")
    written = len(record.findings)
    assert record.corpus_size == len(record.rows)
    shown = [line for line in done.stdout.splitlines() if line.startswith("lmfuzz: finding")]
    assert len(shown) == written
    for row in map(json.loads, rows):
        assert row["bucket"].startswith(row["objective"])
        assert len(row["row"]) == len(row["prompt"])
