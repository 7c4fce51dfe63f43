"""Models and detectors that never return, with --row-timeout."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import lmfuzz
from helpers.shell import Shell
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.plugins.timeout import Timeout, within
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.types import Batch

MODELS = """
import ctypes
import re
import time
from lmfuzz.targets.toy import Toy

libc = ctypes.PyDLL(None)  # does not let other threads run


def loops():
    while True:
        pass


def catches():
    while True:
        try:
            time.sleep(99)
        except Exception:
            pass


def in_c():
    lock = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)


class Hangs(Toy):
    ran = 0

    def run(self, batch, wants):
        shown = super().run(batch, wants)
        self.ran += len(batch)
        if self.ran > 1500 and any(sum(map(ord, t)) % 199 == 0 for t in self.space.texts(batch)):
            self.hang()
        return shown


def model(hang):
    made = Hangs(phrase_key="xyz", loop_key="vk")
    made.hang = hang
    return made


def python():
    return model(loops)


def sleeps():
    return model(catches)


def c():
    return model(in_c)


def every():
    made = model(loops)
    made.ran = 9999
    made.run = lambda batch, wants: loops()
    return made


def judge(text):
    '''The output has an e.'''
    if "a" in text:
        re.match(r"(a+)+$", "a" * 40 + "b")
    return "e" in text
"""


class Slow:
    """Is slow on rows of the symbol 9, and needs a little for each row."""

    space = TextSpace(tuple("abcdefghij"))
    channels = frozenset({"text"})
    identity = "slow"

    def run(self, batch, wants):
        time.sleep(0.01 * len(batch))
        while (batch.data == 9).any():
            pass
        return {"text": np.array(self.space.texts(batch), object)}


def rows(*bad: int) -> Batch:
    return Batch.of([np.array([9 if row in bad else row % 9], np.int32) for row in range(32)])


def test_exactly_the_rows_that_take_too_long_are_crashes() -> None:
    crashes = LocalExecutor(Slow(), timeout=0.2).run(rows(3, 17), frozenset({"text"}))["crash"]
    assert {i: crash for i, crash in enumerate(crashes) if crash} == {
        3: "Timeout: no answer within 0.2 s", 17: "Timeout: no answer within 0.2 s"
    }  # fmt: skip


def test_an_objective_scores_all_rows_but_those_that_take_too_long() -> None:
    def judge(text: str) -> bool:
        time.sleep(0.01)
        while text == "d":
            pass
        return text == "e"

    trace, batch = LocalExecutor(Slow()).run(rows(), frozenset({"text"})), rows()
    judges = ObjectiveSet({"judge": judge}, timeout=0.2)
    margins = judges(batch, trace)[:, 0]
    expected = [np.nan if row % 9 == 3 else 1 if row % 9 == 4 else -np.inf for row in range(32)]
    np.testing.assert_array_equal(margins, np.array(expected, np.float32))
    assert judges.unscored == {"judge": 4}
    (text,) = judges.errors["judge"]
    assert "while text ==" in text or "pass" in text
    assert text.endswith("Timeout: no answer within 0.2 s\n")


def test_code_that_catches_an_interrupt_gets_another() -> None:
    def stubborn() -> None:
        try:
            time.sleep(99)
        except BaseException:
            time.sleep(99)

    with pytest.raises(Timeout, match=r"no answer within 0\.1 s"), within(0.1):
        stubborn()
    time.sleep(1.1)  # nothing rings afterwards
    with pytest.raises(SystemExit), within(9):
        raise SystemExit(3)


def test_only_the_main_thread_can_have_a_limit() -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            LocalExecutor(Slow(), timeout=1).run(rows(), frozenset({"text"}))
        except UsageError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert str(raised[0]) == "row_timeout works in the main thread only; leave it out in others"


def _buckets(sh: Shell) -> list[str]:
    findings = json.loads(sh("show", "c", "--json").out)["findings"]
    return [bucket for of in findings.values() for bucket in of]


@pytest.mark.parametrize("model", ["python", "sleeps"])
def test_inputs_on_which_a_model_never_returns_are_findings(sh: Shell, model: str) -> None:
    Path("hangs.py").write_text(MODELS)
    more = (
        "-o",
        "c",
        "--row-timeout",
        "0.2",
        "--confirm",
        "1",
        "--stop-after",
        "1",
        "--objective",
        "own.py:quits",
    )
    result = sh.fuzz(*more, model=f"hangs.py:{model}", budget="9000x")
    assert (result.code, result.err) == (1, "")
    assert "crash: Timeout: no answer within N.N s" in _buckets(sh)
    assert CampaignRecord.read(Path("c")).spec.row_timeout == 0.2


def test_inputs_on_which_a_detector_never_returns_are_unscored(sh: Shell) -> None:
    Path("hangs.py").write_text(MODELS)
    more = "--objective", "hangs.py:judge", "--allow-unscored", "--row-timeout", "0.1", "-o", "c"
    result = sh.fuzz(*more, "--stop-after", "1", model="model.py:easy", budget="500x")
    assert result.code in (0, 1), result
    assert "not scored by judge: " in result.out


def test_a_model_that_never_returns_is_refused(sh: Shell) -> None:
    Path("hangs.py").write_text(MODELS)
    said = sh.refused(
        "fuzz", "hangs.py:every", "--seeds", "seeds.txt", "--row-timeout", "0.1", "-o", "c", code=3
    )
    assert said == "the target raises on every row, first with Timeout: no answer within 0.1 s"


def test_code_in_c_that_never_returns_is_killed_and_findings_are_kept(sh: Shell) -> None:
    Path("hangs.py").write_text(MODELS)
    found = subprocess.run(
        [sys.executable, "-m", "lmfuzz", "fuzz", "hangs.py:c", "--seeds", "seeds.txt", "-o", "c",
         "--row-timeout", "0.2", "--objective", "repetition", "--budget", "9000x"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert found.returncode == -9, "137 to a shell"
    assert found.stderr == (
        "lmfuzz: what ran ignored --row-timeout, so it is killed; what was found is in c\n"
    )
    assert CampaignRecord.read(Path("c")).executions > 0
    assert sh("show", "c").code == 0


def test_python_takes_the_limit_too() -> None:
    with pytest.raises(TargetError, match=r"no answer within 0\.1 s"):
        lmfuzz.fuzz(model=_Never(), budget="100x", row_timeout=0.1, progress=False)
    with pytest.raises(UsageError, match=r"row_timeout .*must be greater than 0"):
        lmfuzz.fuzz(budget="100x", row_timeout=0)


class _Never(Slow):
    channels = frozenset({"text", "hidden_last"})

    def run(self, batch, wants):
        while True:
            pass
