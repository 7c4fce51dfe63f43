"""Findings as a file of tests for pytest, which needs lmfuzz and the model, and no campaign."""

import lmfuzz
from lmfuzz.exports.export_model import Dossier
from lmfuzz.text import json_value

_FILE = '''"""What lmfuzz {version} found, a test for each; it fails as long as the model still misbehaves.

From {source}: {count}. Run it with pytest, in the folder that lmfuzz was
started in: the model, and files that the objectives need, are looked for from there.
LMFUZZ_MODEL=OTHER runs the tests on another version of the model. Where a model cannot be loaded they fail.
"""

import pytest

from lmfuzz.testing import RecordedFindings

CAMPAIGN = {campaign}

FINDINGS = [
{findings}]


@pytest.fixture(scope="module")
def recorded():
    return RecordedFindings(CAMPAIGN, FINDINGS)


{tests}'''
_TESTS = """@pytest.mark.parametrize("number", [finding["number"] for finding in FINDINGS])
def test_finding(recorded, number):
    recorded.check(number)
"""
_NONE = '''def test_nothing_was_found():
    """There is nothing to run again."""
    assert FINDINGS == []
'''


def pytest_file(dossier: Dossier) -> str:
    """The source of the file, in ASCII: texts are literals, nothing of them is code."""
    campaign, findings = dossier.recorded.pack()
    lines = [f"    # finding {f['number']}\n    {json_value(f)!a},\n" for f in findings]
    words = dossier.empty or f"{len(findings)} in all"
    return _FILE.format(
        version=lmfuzz.__version__, source=_inside(str(dossier.directory)), count=_inside(words),
        campaign=ascii(json_value(campaign)), findings="".join(lines), tests=_TESTS if findings else _NONE,
    )  # fmt: skip


def _inside(text: str) -> str:
    """``text`` as it may stand in a docstring."""
    return ascii(text)[1:-1].replace("\\'", "'").replace("\\", "\\\\").replace('"', "'")
