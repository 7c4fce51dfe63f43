"""Findings as a file of tests for pytest, which needs lmfuzz and the model, and no campaign."""

import lmfuzz
from lmfuzz.exports.dossier import Dossier
from lmfuzz.exports.texts import plain

_FILE = '''"""What lmfuzz {version} found, a test for each; it fails as long as the model still misbehaves.

From {source}: {count}. Run it with pytest, in the folder that lmfuzz was
started in: the model, and files that the objectives need, are looked for from there.
LMFUZZ_MODEL=OTHER runs the tests on another version of the model. Where a model cannot be loaded they fail.
"""

import os

import pytest

from lmfuzz.errors import TargetError, UsageError, printable
from lmfuzz.replay import Recorded, Replay
from lmfuzz.show import verdict_line

CAMPAIGN = {campaign}

FINDINGS = [
{findings}]


@pytest.fixture(scope="module")
def replay():
    try:
        return Replay(Recorded.unpack(CAMPAIGN, FINDINGS), os.environ.get("LMFUZZ_MODEL"))
    except (TargetError, UsageError) as error:
        pytest.fail(f"the findings cannot be run again: {{printable(str(error))}}", pytrace=False)


{tests}'''
_TESTS = """@pytest.mark.parametrize("number", [finding["number"] for finding in FINDINGS])
def test_finding(replay, number):
    verdict = replay.judge(number)
    if not verdict.fixed:
        pytest.fail(verdict_line(verdict), pytrace=False)
"""
_NONE = '''def test_nothing_was_found():
    """There is nothing to run again."""
    assert FINDINGS == []
'''


def pytest_file(dossier: Dossier) -> str:
    """The source of the file, in ASCII: texts are literals, nothing of them is code."""
    campaign, findings = dossier.recorded.pack()
    lines = [f"    # finding {f['number']}\n    {plain(f)!a},\n" for f in findings]
    words = dossier.empty or f"{len(findings)} in all{'; ' + '; '.join(dossier.lost) if dossier.lost else ''}"
    return _FILE.format(
        version=lmfuzz.__version__, source=_inside(str(dossier.directory)), count=_inside(words),
        campaign=ascii(plain(campaign)), findings="".join(lines), tests=_TESTS if findings else _NONE,
    )  # fmt: skip


def _inside(text: str) -> str:
    """``text`` as it may stand in a docstring."""
    return ascii(text)[1:-1].replace("\\'", "'").replace("\\", "\\\\").replace('"', "'")
