"""Fixtures of several files."""

import os
from pathlib import Path

import pytest

from helpers.shell import Shell

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a hub; set before its client is imported


@pytest.fixture
def sh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn must not depend on the terminal that the tests are started from."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
