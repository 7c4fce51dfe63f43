"""Exit codes of whole processes: what a shell and CI see."""

import shlex
import subprocess
import sys

import pytest


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
