"""Findings as a file of tests for pytest, which needs lmfuzz and the model but no campaign."""

from pathlib import Path

import lmfuzz
from lmfuzz.exports.export_model import Dossier
from lmfuzz.storage.secrets import stands_for
from lmfuzz.text import json_value

_FILE = Path(__file__).with_suffix(".txt")  # the template
_TESTS = """@pytest.mark.parametrize("number", [finding["number"] for finding in FINDINGS])
def test_finding(recorded, number):
    recorded.check(number)
"""
_SYSTEM = """LMFUZZ_SYSTEM must hold the system prompt, which may be a secret and is not in this file.
"""
_NONE = '''def test_nothing_was_found():
    """There is nothing to run again."""
    assert FINDINGS == []
'''


def pytest_file(dossier: Dossier) -> str:
    """Return the source of the file, in ASCII: texts are literals, and none of them is code."""
    campaign, findings = dossier.recorded.pack()
    lines = [f"    # finding {f['number']}\n    {json_value(f)!a},\n" for f in findings]
    return _FILE.read_text(encoding="utf-8").format(
        version=lmfuzz.__version__,
        source=_inside(str(dossier.directory)),
        count=_inside(dossier.empty or f"{len(findings)} in all"),
        system=_SYSTEM if stands_for(dossier.recorded.spec.system) else "",
        campaign=ascii(json_value(campaign)),
        findings="".join(lines),
        tests=_TESTS if findings else _NONE,
    )


def _inside(text: str) -> str:
    """``text`` as it may stand in a docstring."""
    return ascii(text)[1:-1].replace("\\'", "'").replace("\\", "\\\\").replace('"', "'")
