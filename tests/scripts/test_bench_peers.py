"""The comparison with other programs: what it says when one is not there, and how it talks to them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

from benchmarks import peers, races  # noqa: E402
from benchmarks.figures import Options, Wrong  # noqa: E402
from lmfuzz.errors import UsageError  # noqa: E402


def bench_peers(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "bench_peers"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def an_environment(folder: Path, key: str, module: bool) -> Path:
    """An interpreter, this one, and a package of the right name."""
    python = folder / key / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    if module:
        package = folder / key / "lib" / "python3" / "site-packages" / peers.PEERS[key].module / "__init__.py"
        package.parent.mkdir(parents=True)
        package.touch()
    return python


def test_a_program_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    an_environment(tmp_path, "garak", module=False)
    done = bench_peers("--quick", "--envs", str(tmp_path), "--only", "causal_vs_garak")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"bench_peers: there is no garak in {tmp_path / 'garak'}; make the environments with --setup\n"
    )


def test_every_program_is_looked_for_before_anything_is_measured(tmp_path: Path) -> None:
    python = an_environment(tmp_path, "garak", module=True)
    assert peers.python_of(tmp_path, "garak") == python
    with pytest.raises(UsageError, match=r"there is no TextAttack in .*textattack; make"):
        peers.python_of(tmp_path, "textattack")


def a_loop(folder: Path, code: str) -> peers.Peer:
    """A program whose loop is ``code``, which has ``answers`` to print to."""
    file = folder / "loop.py"
    head = "import json, os, sys\ndef say(**answer):\n    print(json.dumps(answer), flush=True)\n"
    file.write_text(head + code)
    return peers.Peer("Other", "garak", (), str(file), 3, "a loop of its own")


def test_a_loop_answers_offline_and_without_the_checkout_on_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = (
        "say(ready=True)\nfor line in sys.stdin:\n    texts = [text.upper() for text in json.loads(line)]\n"
        "    own = [os.environ['HF_HUB_OFFLINE'], os.environ.get('PYTHONPATH', ''), *sys.argv[1:]]\n"
        "    say(seconds=2.0, inside=1.5, texts=texts + own)\n"
    )
    with peers.running(Path(sys.executable), a_loop(tmp_path, code), tmp_path, 3) as loop:
        assert loop.run(["a\nb"])["texts"] == ["A\nB", "1", "", str(tmp_path), "3"]
        assert loop.run([])["seconds"] == 2.0
        assert loop.inside == [0.75, 0.75]


def test_a_loop_that_ends_says_why(tmp_path: Path) -> None:
    code = "import missing_module_of_its_own\n"
    with (
        pytest.raises(Wrong, match="Other ended: ModuleNotFoundError: No module named 'missing_module_of"),
        peers.running(Path(sys.executable), a_loop(tmp_path, code), tmp_path, 3),
    ):
        pass
    code = "say(ready=True)\nsys.stdin.readline()\nraise ValueError('no such prompt')\n"
    with (
        peers.running(Path(sys.executable), a_loop(tmp_path, code), tmp_path, 3) as loop,
        pytest.raises(Wrong, match="Other ended: ValueError: no such prompt"),
    ):
        loop.run(["a"])


def test_last_words_are_the_errors() -> None:
    log = "Traceback\n  File x\nLookupError: \n****\n  Resource 'stopwords' not found.\n  Please\n\n  more\n"
    assert peers.last_words(log) == "LookupError: Resource 'stopwords' not found."
    assert peers.last_words("killed\n") == "killed"
    assert peers.last_words("\n") == "it said nothing"


def test_wrong_usage(tmp_path: Path) -> None:
    done = bench_peers("--only", "causal_vs_garck")
    assert done.returncode == 2
    assert "did you mean 'causal_vs_garak'?" in done.stderr
    done = bench_peers("--model", str(tmp_path))
    assert done.returncode == 2
    assert "is no folder with a config.json" in done.stderr


def test_a_race_with_a_loop_that_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic: a loop that says that it took 1000 s for two rows of four took 2000 s for all."""
    python = an_environment(tmp_path, "garak", module=True)
    code = "say(ready=True)\nfor line in sys.stdin:\n    say(seconds=1000.0, inside=500.0, texts=[])\n"
    monkeypatch.setitem(peers.PEERS, "garak", a_loop(tmp_path, code))
    monkeypatch.setattr(races, "QUICK", races.Race((4,), 4, 2, 0, (3, 8), 2))
    assert python.exists()
    made = races.measure("garak", tmp_path, Options(quick=True))
    assert made.value is not None
    assert made.value > 1000
    assert sum("is 50.00 % of its time in the model" in line for line in made.lines) == 2
    assert any("against 0.002 prompts/s" in line for line in made.lines), made.lines
