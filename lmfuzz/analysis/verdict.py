"""What became of a finding, or of a seed, when it was run again."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lmfuzz.analysis.summary import finding_record
from lmfuzz.storage.known import Known
from lmfuzz.storage.secrets import conceal, concealed
from lmfuzz.text import WIDTH, as_utf8, bucket_title, escape, quote_output, shorten
from lmfuzz.types import Evidence, Finding, Reruns

FAILS, PASSES, OPEN = "fails", "passes", "open"  # OPEN: could not be judged


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold what became of a finding, or of a seed, when it was run again.

    Attributes:
        number: the number of the finding, or of the seed.
        finding: what the campaign recorded; of a seed, what it would be as a finding, without an objective if
            it passes or could not be run.
        again: how many runs failed, passed and could not be judged.
        output: the text of the last run.
        why: why it could not be judged, or ''.
        seed: whether it is a seed.
        before: whether the seed failed on the campaign's model; None if that is not known.
        evidence: the evidence of the last run, if that one failed.
        recorded: whether nothing was run again: this is what the campaign itself saw.
    """

    number: int
    finding: Finding
    again: Reruns
    output: str
    why: str = ""
    seed: bool = False
    before: bool | None = True
    evidence: Evidence | None = None
    recorded: bool = False

    @property
    def now(self) -> Finding:
        """The finding as the last run shows it; without a bad part and words if these may have changed."""
        same, old = self.output == self.finding.output, self.finding.evidence
        evidence = self.evidence or (old if same else Evidence(old.signature, "", variant=old.variant))
        return replace(self.finding, output=self.output, evidence=evidence)

    def concealed(self, secret: str) -> "Verdict":
        """Return it as it may be shown: without the system prompt, ``secret``."""
        now = concealed(self.now, secret)
        return replace(
            self,
            finding=concealed(self.finding, secret),
            output=now.output,
            why=conceal(self.why, secret),
            evidence=now.evidence if self.evidence else None,
        )

    @property
    def moved(self) -> str:
        """The bucket that the finding is in now, if it is in another one, or ''."""
        same = self.now.evidence.same(self.finding.evidence)
        return "" if same or as_utf8(self.now.bucket) == as_utf8(self.finding.bucket) else self.now.bucket

    @property
    def state(self) -> str:
        """FAILS if any run failed, OPEN if others could not be judged, or PASSES."""
        if self.again.failed or self.recorded:
            return FAILS
        return OPEN if self.again.unscored else PASSES

    def in_any(self, known: Known) -> bool:
        """Return whether it fails in one of these buckets."""
        now = self.now
        return self.state == FAILS and known.covers(now.bucket, now.evidence.variant)

    @property
    def fixed(self) -> bool:
        """Whether every run was judged and passed."""
        return self.state == PASSES

    @property
    def words(self) -> str:
        """``still fails``, ``flaky k of n``, ``newly fails``, ``fixed`` and the like."""
        failed, others = self.again.failed, self.again.passed + self.again.unscored
        if self.recorded:
            return self.finding.label
        if failed and not self.before:
            part = f", {failed} of {failed + others} times" if others else ""
            unknown = f", unknown since when ({self.why})"
            return f"newly fails{part}" if self.before is False else f"fails{part}{unknown}"
        if failed:
            return f"flaky {failed} of {failed + others}" if others else "still fails"
        if self.again.unscored:
            return f"could not be judged ({self.why})"
        if self.seed:
            return "passes"
        return "fixed" if self.finding.failed else "passes alone, as it did when it was found"

    @property
    def name(self) -> str:
        """``finding 3``, or ``seed 12``."""
        return f"{'seed' if self.seed else 'finding'} {self.number}"

    @property
    def bucket(self) -> str:
        """The bucket in which it was found, as a person reads it; '' without an objective."""
        return bucket_title(self.finding.bucket) if self.finding.objective else ""

    @property
    def title(self) -> str:
        """``finding 3: BUCKET``, or ``seed 12``."""
        return ": ".join(filter(None, (self.name, self.bucket)))

    def line(self, bucket: str = "") -> str:
        """Return its state, its bucket if it is given, its prompt and its output, on one line."""
        moved = f"now {bucket_title(self.moved)}" if self.moved else ""
        head = ", ".join(filter(None, (escape(self.words), bucket, moved)))
        return f"{head}: {shorten(self.finding.prompt)} -> {quote_output(self.now, WIDTH)}"


def verdict_line(verdict: Verdict) -> str:
    """Return what a finding does now, on one line; the bad part is marked if the last run showed one."""
    return f"{verdict.name}: {verdict.line(verdict.bucket)}"


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Return what a finding does now, for machines: how many runs failed, passed and were not judged.

    ``finding`` is what the campaign recorded; bucket, output and evidence are those of the last run
    (evidence is null if that one did not fail).
    """
    return {
        "verdict": verdict.words,
        "seed": verdict.seed,
        **asdict(verdict.again),
        "bucket": verdict.now.bucket,
        "output": verdict.output,
        "evidence": verdict.evidence and asdict(verdict.evidence),
        "finding": finding_record(verdict.finding, verdict.number),
    }
