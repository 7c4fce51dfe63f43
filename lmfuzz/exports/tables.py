"""Findings as JSON lines and as CSV, and their buckets as a baseline."""

import csv
import io

import lmfuzz
from lmfuzz.analysis.summary import finding_record
from lmfuzz.exports.export_model import Dossier
from lmfuzz.storage.known import FORMAT
from lmfuzz.text import replay_command, spreadsheet_cell, strict_json

COLUMNS = (
    "number", "bucket", "label", "failed", "runs", "unscored", "objective", "signature", "words", "margin",
    "prompt", "minimal", "output", "bad", "execution", "origin", "distance", "model", "identity", "replay",
    "variant",
)  # fmt: skip


def jsonl(dossier: Dossier) -> str:
    """Return an object per finding, as ``lmfuzz show --json`` has it; --seeds reads it as prompts too."""
    about = {"model": dossier.model, "identity": dossier.identity}
    records = (finding_record(case.now, case.number) for case in dossier.cases)
    return "".join(f"{strict_json({**record, **about})}\n" for record in records)


def csv_table(dossier: Dossier) -> str:
    r"""Return a table with a head; texts are escaped (a new line is \n), and formulas begin with '."""
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_ALL)
    table.writerow(COLUMNS)
    for case in dossier.cases:
        finding, evidence = case.now, case.now.evidence
        row = {
            **finding_record(finding, case.number), "signature": evidence.signature, "words": evidence.words,
            "variant": evidence.variant,
            "bad": finding.output[slice(*evidence.span)] if evidence.span else "",
            "minimal": finding.minimal.prompt if finding.minimal else "",
            "model": dossier.model, "identity": dossier.identity,
            "replay": replay_command(dossier.directory, case.number),
        }  # fmt: skip
        table.writerow([spreadsheet_cell(row[name]) for name in COLUMNS])
    return out.getvalue()


def baseline(dossier: Dossier) -> str:
    """Return the buckets of the campaign as JSON, which --baseline reads."""
    about = {"lmfuzz": lmfuzz.__version__, "model": dossier.model, "identity": dossier.identity}
    return strict_json({"baseline": FORMAT, **about, "buckets": dossier.buckets}, indent=1) + "\n"
