"""The system prompt, which may be a secret: nothing that is shown or handed on holds it unless asked to."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers import small_lms
from helpers.shell import Shell
from lmfuzz.exports.formats import FORMATS
from lmfuzz.storage.secrets import concealed
from lmfuzz.types import Evidence, Finding, Minimal

SYSTEM = "Never say the word zounds."
STANDS = f"[system prompt, {len(SYSTEM)} characters]"
WRITES = {f"export {name}": ("export", "c", "--format", name) for name in FORMATS}
WRITES |= {
    "show": ("show", "c"), "show --json": ("show", "c", "--json"), "show 1": ("show", "c", "1"),
    "report": ("report", "c", "-o", "file"), "junit": ("replay", "c", "--junit", "file"),
    "sarif": ("replay", "c", "--sarif", "file"),
}  # fmt: skip


@pytest.fixture
def sh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A campaign in c that has the system prompt among its prompts, as if the model had given it away."""
    shell = Shell(tmp_path, monkeypatch, capsys)
    folder = small_lms.save(tmp_path / "model", chat=True)
    Path("any.py").write_text("def any(batch, trace):\n    return [True] * len(batch)\n")
    brief = ("--max-new", "4", "--batch", "8", "--objective", "any.py:any", "--keep", "2")
    Path("given.txt").write_text(SYSTEM)
    seeds = ("--seeds", "given.txt")
    done = shell("fuzz", str(folder), *seeds, "--system", SYSTEM, *brief, "--budget", "16x", "-o", "c")
    assert done.code == 1, done
    return shell


def test_only_the_length_of_a_system_prompt_is_written(sh: Shell) -> None:
    for name, arguments in WRITES.items():
        for more, hidden in (((), True), (("--with-secrets",), False)):
            done = sh(*arguments, *more)
            written = Path("file").read_text() if "file" in arguments else done.out
            assert SYSTEM not in written or not hidden, name
            assert STANDS not in written or hidden, name
            if "replay" not in arguments and name not in ("show 1", "export baseline"):
                assert (STANDS if hidden else SYSTEM) in written, name
    assert SYSTEM in Path("c/campaign.toml").read_text()


def test_variants_are_kept_and_hold_no_system_prompt():
    said = f"it said {SYSTEM}"
    finding = Finding("a", 1.0, Evidence(said, said, None, said), None, "", "", -1, -1, 0, 1, 1)
    shown = f"it said {STANDS}"
    assert concealed(finding, SYSTEM).evidence == Evidence(shown, shown, None, shown)
    assert concealed(finding, "something else").evidence == finding.evidence


def test_exported_tests_take_the_system_prompt_from_the_environment(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("test_c.py").write_text(sh("export", "c", "--format", "pytest").out)
    for system, words in (
        ("", "LMFUZZ_SYSTEM is not set; it must hold the campaign's system prompt of 26 characters"),
        ("zounds", "LMFUZZ_SYSTEM has 6 characters; it must hold"),
        (SYSTEM, "still fails"),
    ):
        monkeypatch.setenv("LMFUZZ_SYSTEM", system)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_c.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert words in done.stdout, done.stdout
    assert "LMFUZZ_SYSTEM" not in sh("export", "c", "--format", "pytest", "--with-secrets").out


def test_what_a_model_gives_away_is_concealed_in_a_finding() -> None:
    text = f"I was told: {SYSTEM}"
    small = Minimal((), text, text, (0, 3), 1, 2, 3, 4)
    shown = concealed(
        Finding("o", 1.0, Evidence("o", text, (0, 3)), (), text, text, -1, -1, 1, 3, 3, minimal=small), SYSTEM
    )
    assert SYSTEM not in repr(shown)
    assert shown.output == shown.prompt == shown.minimal.output == f"I was told: {STANDS}"
    assert shown.evidence.span is shown.minimal.span is None  # it would mark another place
    brief = Finding("o", 1.0, Evidence("o", "be brief", (0, 2)), (), "be", "be", -1, -1, 1, 3, 3)
    assert concealed(brief, "be") == brief
