"""Other programs: environments of their own, and processes in these that answer lists of prompts."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from benchmarks.figures import Wrong
from lmfuzz.errors import UsageError

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to measure: what is installed for it, and the file beside this one that runs it.

    module: that shows whether it is there. new: tokens that a campaign writes per prompt beside it.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    loop: str
    new: int
    ran: str


PEERS = {
    "garak": Peer(
        "garak", "garak", ("garak",), "garak_loop.py", 50,
        "its base harness with a probe of the same prompts, huggingface.Model, always.Pass and its threshold"
        " evaluator, one generation per prompt, greedy, no end of text",
    ),
    "textattack": Peer(
        "TextAttack", "textattack", ("textattack", "flair>=0.15", "datasets>=3"), "textattack_scores.py", 1,
        "its HuggingFaceModelWrapper, 32 prompts at a time as its attacks give them: for a causal LM it gives"
        " scores, no text, so the campaign writes one token; a list of one word stands in for NLTK's stop"
        " words where those are not there, which TextAttack reads as it starts",
    ),
}  # fmt: skip


def python_of(envs: Path, key: str) -> Path:
    """The interpreter of a peer's environment; UsageError where the peer is not there."""
    peer, folder = PEERS[key], envs / key
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = list(folder.glob(f"[Ll]ib*/**/site-packages/{peer.module}/__init__.py"))
    if not python.exists() or not found:
        raise UsageError(f"there is no {peer.name} in {folder}; make the environments with --setup")
    return python


def set_up(envs: Path, keys: Sequence[str]) -> None:
    """Make the environments that are missing: needs the network, and 3 GB of disk for both.

    torch comes first, of the release that lmfuzz runs on, and nothing may ask for another one. uv resolves
    the rest, for which pip takes longer than half an hour. UsageError where a command fails.
    """
    envs.mkdir(parents=True, exist_ok=True)
    torch = f"torch=={version('torch').partition('+')[0]}"
    held = envs / "constraints.txt"
    held.write_text(torch + "\n", encoding="utf-8")
    for key in keys:
        try:
            python_of(envs, key)
            continue
        except UsageError:
            print(f"making {envs / key} ...", file=sys.stderr, flush=True)
        folder, uv = envs / key, envs / "uv" / "bin"
        if not uv.exists():
            _do(sys.executable, "-m", "venv", str(uv.parent))
            _do(str(uv / "python"), "-m", "pip", "install", "-q", "uv")
        _do(sys.executable, "-m", "venv", "--clear", str(folder))
        _do(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", torch)
        to = ["--python", str(folder / "bin" / "python"), "--constraint", str(held)]
        _do(str(uv / "uv"), "pip", "install", "-q", *to, *PEERS[key].packages)


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UsageError(f"`{' '.join(command[:5])} ...` failed: {said}")


class Loop:
    """A peer's process, which answers lists of prompts; Wrong, with its last words, when it ends."""

    def __init__(self, process: "subprocess.Popen[str]", log: TextIO, name: str) -> None:
        self._process, self._log, self._name = process, log, name
        self.inside: list[float] = []  # shares of the time that it spent in its model
        self._answer()

    def run(self, texts: Sequence[str]) -> dict[str, Any]:
        """Seconds for the prompts, those inside, and the texts that were written."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: the answer says why
            print(json.dumps(list(texts)), file=self._process.stdin, flush=True)
        answer = self._answer()
        self.inside.append(answer["inside"] / answer["seconds"])
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise Wrong(f"{self._name} ended: {last_words(self._log.read())}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def last_words(log: str) -> str:
    """What a program said before it ended: the error's line where Python shows one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.partition(":")[0].endswith(("Error", "Exception"))]
    if not errors:
        return lines[-1] if lines else "it said nothing"
    return " ".join(part for part in lines[errors[-1] : errors[-1] + 3] if part.strip("*"))[:300]


@contextmanager
def running(python: Path, peer: Peer, folder: Path, new: int) -> Iterator[Loop]:
    """The peer's loop on a model folder, offline, one thread; it ends with the block."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), str(Path(__file__).parent / peer.loop), str(folder.resolve()), str(new)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=own | OFFLINE, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        try:
            yield Loop(process, log, peer.name)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]
