"""Findings as SARIF 2.1.0, the format of code scanners: a rule per objective, a result per finding."""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lmfuzz
from lmfuzz.analysis.verdict import FAILS, PASSES, Verdict
from lmfuzz.exports.export_model import Dossier
from lmfuzz.files import CAMPAIGN
from lmfuzz.text import as_utf8, escape, strict_json

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# No links and placeholders in messages (SARIF 2.1.0, 3.11.5 and 3.11.6).
_HARMLESS = {ord("["): r"\[", ord("]"): r"\]", ord("{"): "{{", ord("}"): "}}"}


def sarif(dossier: Dossier) -> str:
    """Return one run; what passes is left out, what could not be judged is open."""
    cases = [case for case in dossier.cases if case.state != PASSES]
    rules = list(dict.fromkeys(_rule(case) for case in cases))
    about = [{"id": rule, "shortDescription": {"text": f"the model misbehaves: {rule}"}} for rule in rules]
    notes = [*dossier.about, *([dossier.empty] if dossier.empty else [])]
    run = {
        "tool": {"driver": {
            "name": "lmfuzz", "version": lmfuzz.__version__, "rules": about,
        }},
        "invocations": [{
            "executionSuccessful": True,
            "toolExecutionNotifications": [
                {"level": "note", "message": {"text": line.translate(_HARMLESS)}} for line in notes
            ],
        }],
        "columnKind": "unicodeCodePoints",
        "properties": {"model": dossier.model, "identity": dossier.identity},
        "results": [_result(dossier, case, rules.index(_rule(case))) for case in cases],
    }  # fmt: skip
    return strict_json({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rule(case: Verdict) -> str:
    return escape(case.finding.objective) or "input"


def _result(dossier: Dossier, case: Verdict, rule: int) -> dict[str, Any]:
    finding, fails = case.now, case.state == FAILS
    place = {"artifactLocation": {"uri": _uri(dossier.directory / CAMPAIGN)}, "region": {"startLine": 1}}
    same = as_utf8(f"{case.finding.bucket}\0{finding.prompt}").encode()
    return {
        "ruleId": _rule(case), "ruleIndex": rule,
        "kind": "fail" if fails else "open", "level": "error" if fails else "none",
        "message": {"text": f"{case.title}: {case.line()}".translate(_HARMLESS)},
        "locations": [{
            "physicalLocation": place,
            "logicalLocations": [{"name": case.name}],
        }],
        "baselineState": "new" if not (case.before and dossier.replayed) else "unchanged",
        "partialFingerprints": {"bucketAndPrompt/v1": hashlib.sha256(same).hexdigest()},
        "properties": {
            "bucket": finding.bucket, "label": case.words, "prompt": finding.prompt,
            "output": finding.output, "evidence": finding.evidence.words,
        },
    }  # fmt: skip


def _uri(path: Path) -> str:
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))
