"""The command line, run in the process of a test, in a directory with seeds, models and detectors."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from lmfuzz.cli import main as cli

SEEDS = "the quick brown fox\nonce upon a time\na door in the wall\nsay the word, friend.\n"
MODEL = """
from lmfuzz.targets.toy import Toy

def easy():
    return Toy(phrase_key="xyz", loop_key="vk")

def other():
    return Toy()

def dead():
    class Dead(Toy):
        def run(self, batch, wants):
            raise RuntimeError("dead")
    return Dead()

def fails():
    raise ValueError("no weights here")
"""
DETECTOR = """
def quits(batch, trace):
    '''The output says quit.'''
    return ["quit" in text for text in trace["text"]]

def flat(batch, trace):
    return [1.0]
"""


def forget_files() -> None:
    """Files with plug-ins are read once per process; a new process would read them again."""
    for name in [name for name in sys.modules if name.startswith("lmfuzz_file_")]:
        del sys.modules[name]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs the command line in this process, in a directory of its own."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.chdir(folder)
        (folder / "seeds.txt").write_text(SEEDS)
        (folder / "model.py").write_text(MODEL)
        (folder / "own.py").write_text(DETECTOR)

    def __call__(self, *arguments: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["lmfuzz", *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        out, err = self._capsys.readouterr()
        return Result(int(done.value.code or 0), out, err)

    def fuzz(self, *arguments: str, model: str = "model.py:easy", budget: str = "3000x") -> Result:
        objectives = [] if "--objective" in arguments else ["--objective", "repetition"]
        return self("fuzz", model, "--seeds", "seeds.txt", "--budget", budget, *objectives, *arguments)

    def refused(self, *arguments: str, code: int = 2) -> str:
        """The sentence with which a command is refused, before anything is written."""
        before = set(Path().rglob("*"))
        result = self(*arguments)
        assert result.code == code, result
        assert result.err.count("\n") == 1, result.err
        assert result.err.startswith("lmfuzz: ")
        assert {path for path in set(Path().rglob("*")) - before if "__pycache__" not in str(path)} == set()
        return result.err.removeprefix("lmfuzz: ").rstrip("\n")
