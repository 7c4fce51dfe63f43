"""What the README says to type works, and its detector finds what it says."""

import re
import shlex
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lmfuzz
from lmfuzz.cli import main as cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip().startswith("lmfuzz ")
]
SHORT, LONGER = "300x", "400x"  # instead of the README's: calibration, the seeds, a little more
FOUND = ["--objective", "regex:pattern=thou"]  # what even so short a campaign finds
SLOW, FEW = "50x", ["--count", "6", "--max-new", "8"]  # of a model of tokens


def briefly(arguments: list[str]) -> list[str]:
    """The same command with a budget that a test can wait for; resume needs more than was spent."""
    slow = "models:chat" in arguments
    small = LONGER if arguments[0] == "resume" else SLOW if slow else SHORT
    pairs = zip(["", *arguments], arguments, strict=False)
    brief = [small if before == "--budget" else word for before, word in pairs]
    if "--per-seed" in arguments:
        brief[arguments.index("--per-seed") + 1] = "50"
    if "--budget" not in arguments or arguments[0] == "resume":
        return brief
    return brief + (FEW if slow else ["--count", "16"]) + (FOUND if "runs/first" in arguments else [])


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["lmfuzz", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0), *capsys.readouterr()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout, with the README's detector in its file."""
    for name in ("lmfuzz", "corpora"):
        (tmp_path / name).symlink_to(ROOT / name)
    detector = re.search(r"```python\n# my\.py\n(.*?)```", README, re.DOTALL)
    assert detector is not None, "the README shows a detector"
    (tmp_path / "my.py").write_text(detector.group(1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works(checkout, monkeypatch, capsys):
    """In their order: show, replay and resume need the campaign that the first one made."""
    assert len(COMMANDS) >= 8
    for arguments in COMMANDS:
        if arguments[:1] == ["sweep"]:
            continue
        code, out, err = run(briefly(arguments), monkeypatch, capsys)
        assert code in (0, 1), f"lmfuzz {shlex.join(arguments)}: {err}"
        assert code == 1 or arguments[0] != "fuzz" or "runs/first" not in arguments, "nothing to go on with"
        assert out


@pytest.mark.parametrize("arguments", [one for one in COMMANDS if one[0] == "sweep"])
def test_every_sweep_works(checkout, monkeypatch, capsys, arguments):
    """A sweep has processes of its own, so it is a test beside that of the other commands."""
    file = next(word for word in arguments if word.endswith(".toml"))
    text = (ROOT / file).read_text(encoding="utf-8")
    for long, short in (
        ("2000x", SHORT),
        ("trials = 2", "trials = 1"),
        ("max_new = 30", "max_new = 8\ncount = 16"),
    ):
        assert long in text
        text = text.replace(long, short)
    Path("brief.toml").write_text(text, encoding="utf-8")
    brief = ["brief.toml" if word == file else word for word in arguments]
    code, out, err = run(brief, monkeypatch, capsys)
    assert code == 0, err
    assert out


def test_the_detector_finds_what_it_says(checkout, monkeypatch, capsys):
    """Loud text is written where the model thinks that a speaker's name comes next."""
    options = ["--objective", "my.py:Shouting:threshold=3", "--budget", "2000x", "-o", "runs/loud"]
    code, _, err = run(["fuzz", *options], monkeypatch, capsys)
    assert code == 1, err
    _, out, _ = run(["show", "runs/loud", "1"], monkeypatch, capsys)
    assert "shouts" in out
    assert re.search("[A-Z]{3}", out)


def test_no_command_is_only_talked_about():
    """All commands that there are stand in the README."""
    assert {arguments[0] for arguments in COMMANDS} == set(cli.COMMANDS)


class Letters(nn.Module):
    """Writes the last letter over and over."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Linear(size, size)
        nn.init.constant_(self.head.bias[-1], 9.0)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.one_hot(symbols, self.head.in_features).float())


def test_the_python_example_runs(checkout: Path) -> None:
    block = re.search(r"```python\n(import lmfuzz\n.*?)```", README, re.DOTALL)
    assert block is not None
    code = block[1].replace("20000x", "200x").replace("40000x", "400x")
    alphabet = " Gabcdefghijklmnopqrstuvwxyz"
    lmfuzz.fuzz("lmfuzz.targets.toy:toy", budget="200x", output="runs/first", progress=False)
    names = {"model": Letters(len(alphabet)), "alphabet": alphabet}
    quick = {"stop_after": 1, "max_new": 8, "progress": False}
    diff = lmfuzz.diff
    names["lmfuzz"] = SimpleNamespace(
        fuzz=partial(lmfuzz.fuzz, max_new=40, progress=False), open=lmfuzz.open,
        diff=lambda *args, **given: diff(*args, **given, seeds=["abc"], budget="200x", **quick),
    )  # fmt: skip
    exec(code.replace("import lmfuzz\n", ""), names)  # the README's own text
    assert names["result"].findings
    assert Path("out.html").exists()
