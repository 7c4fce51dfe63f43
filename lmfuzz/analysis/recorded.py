"""What is kept of a campaign so that its findings can be run again without its directory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmfuzz import spec as specs
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.spec import Spec
from lmfuzz.storage import serialize as coding
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.secrets import conceal
from lmfuzz.text import as_utf8
from lmfuzz.types import SEED, Array, Evidence, Finding

FEW = 8  # seeds that a target is tried on
_KEPT = ("objective", "margin", "prompt", "output", "failed", "runs", "by_text")  # of a finding, when packed


@dataclass(frozen=True)
class Recorded:
    """Hold what is needed of a campaign to run its findings again: plain data, apart from its directory.

    Attributes:
        spec: the settings of the campaign.
        identity: the identity of the target that the findings were found on.
        spelling: a hash of what must be equal for a row to mean the same.
        noise: the noise floor of each objective.
        findings: the findings by number.
        texts: the exact texts of the findings, for models that tokenize them differently.
        seeds: the rows of the seeds with their texts.
    """

    spec: Spec
    identity: str
    spelling: str
    noise: Mapping[str, float]
    findings: Mapping[int, Finding]
    texts: Mapping[int, str]
    seeds: Sequence[tuple[Array, str]]

    @classmethod
    def of(cls, record: CampaignRecord, number: int | None = None) -> "Recorded":
        """Return the findings of a campaign, or one, and its seeds; UsageError if there is none such."""
        space, seeds = record.space, record.seeds
        numbers = range(1, len(record.findings) + 1) if number is None else [number]
        rows = [seeds.row(i) for i in range(len(seeds))]
        return cls(
            spec=record.spec,
            identity=record.identity,
            spelling=spelling(space),
            noise=record.noise,
            findings={n: record.finding(n) for n in numbers},
            texts={n: record.text(record.finding(n).row) for n in numbers},
            seeds=[(row, conceal(space.name(row, i, 0.0), record.secret)) for i, row in enumerate(rows)],
        )

    @property
    def inputs(self) -> list[tuple[Array, str]]:
        """The rows of the findings, then those of the seeds, with their texts."""
        return [*((finding.row, self.texts[n]) for n, finding in self.findings.items()), *self.seeds]

    def pack(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the campaign, with a few of its seeds, and its findings, as plain JSON."""
        campaign = {
            # without its states, a spec is one of before there were any
            "spec": {**self.spec.model_dump(exclude_defaults=True), "states": self.spec.states},
            "identity": self.identity,
            "spelling": self.spelling, "noise": dict(self.noise),
            "seeds": [[_numbers(row), text] for row, text in self.seeds[:FEW]],
        }  # fmt: skip
        findings = [
            {"number": n, **{name: getattr(f, name) for name in _KEPT}, "evidence": asdict(f.evidence),
             "text": self.texts[n], "row": _numbers(f.row)}
            for n, f in self.findings.items()
        ]  # fmt: skip
        packed = json.loads(coding.encode({"campaign": campaign, "findings": findings}))
        return packed["campaign"], packed["findings"]

    @classmethod
    def unpack(cls, campaign: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> "Recorded":
        """Return what ``pack`` was called on."""
        campaign, findings = coding.decode(json.dumps([campaign, findings]))
        return cls(
            spec=specs.stored(campaign["spec"], "the exported campaign"),
            identity=campaign["identity"],
            spelling=campaign["spelling"],
            noise=campaign["noise"],
            findings={f["number"]: _finding(f) for f in findings},
            texts={f["number"]: f["text"] for f in findings},
            seeds=[(_row(row), text) for row, text in campaign["seeds"]],
        )


def spelling(space: Space) -> str:
    """Return a hash of what must be equal for a row to mean the same."""
    same = space.shape if isinstance(space, BoxSpace) else (space.symbols, space.tokens)
    return hashlib.sha256(as_utf8(repr(same)).encode()).hexdigest()[:16]


def _finding(packed: Mapping[str, Any]) -> Finding:
    kept = {name: packed[name] for name in _KEPT}
    span, row = packed["evidence"]["span"], _row(packed["row"])
    evidence = Evidence(**{**packed["evidence"], "span": span and tuple(span)})
    return Finding(**kept, evidence=evidence, row=row, parent=SEED, operator=SEED, execution=0)


def _numbers(row: Array) -> Any:
    """Symbols as a list, which a person can read; the values of an image or of numbers as an array."""
    return row if row.dtype.kind == "f" else row.tolist()


def _row(numbers: Any) -> Array:
    return numbers if isinstance(numbers, np.ndarray) else np.array(numbers, np.int32)
