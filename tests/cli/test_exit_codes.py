"""Exit codes of whole processes: what a shell and CI see."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lmfuzz.storage.record import CampaignRecord


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("list > /dev/full", 4, "lmfuzz: cannot read or write: No space left on device\n"),
        ("list | (read -r first)", 0, ""),
        ("--help | true", 0, ""),
    ],
)
def test_a_list_into_a_full_device_or_a_closed_pipe(command: str, code: int, said: str) -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m lmfuzz {command}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_terminal_that_lacks_a_character_gets_an_escape() -> None:
    line = f"PYTHONIOENCODING=latin-1 {shlex.quote(sys.executable)} -m lmfuzz list 'snow\u2603'"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is no list of 'snow\\u2603'" in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("show c >&-", 0, ""),
        ("replay c >&-", 0, ""),
        ("show none >&-", 2, "lmfuzz: there is no directory none\n"),
        ("show none 2> /dev/full", 2, ""),
        ("fuzz lmfuzz.targets.toy:toy --seeds text:hello --budget 1000x -o d >&- <&-", 0, ""),
        ("fuzz lmfuzz.targets.toy:toy --seeds text:hello --budget 1000x -o e >&- 2>&-", 0, ""),
        ("resume c --budget 2000x >&-", 0, ""),
        ("fuzz lmfuzz.targets.toy:toy --seeds - --budget 1000x -o f <&-", 2, "lmfuzz: standard input"),
    ],
)
def test_a_closed_stream_changes_nothing_but_what_is_seen(
    tmp_path: Path, command: str, code: int, said: str
) -> None:
    begin = "fuzz lmfuzz.targets.toy:toy --seeds text:hello --budget 1000x -o c"
    python = f"{shlex.quote(sys.executable)} -m lmfuzz"
    line = f"{python} {begin} > /dev/null && {python} {command}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert said or not done.stderr
    for campaign in tmp_path.iterdir():
        assert CampaignRecord.read(campaign).at_end
