"""What all exports are made from: a campaign, or a replay, and the state of each finding and seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay
from lmfuzz.analysis.summary import known_lines, summary, summary_lines
from lmfuzz.analysis.verdict import FAILS, OPEN, Verdict
from lmfuzz.storage.known import Buckets, Known, buckets_of, known_to
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import bucket_title, escape, plural, quote_output, replay_command
from lmfuzz.types import SEED, Evidence, Finding, Reruns

BUNDLED = "the bundled model"
_MORE = {False: "newly failing", None: "failing, unknown since when", OPEN: "not judged"}


@dataclass(frozen=True, slots=True)
class Dossier:
    """Hold a campaign, or a replay of one, as it is exported.

    Attributes:
        directory: the directory of the campaign.
        recorded: the campaign, with the findings that are exported.
        model: what is tested.
        identity: the identity of that.
        cases: the findings, and the seeds that were run, except those in known buckets.
        about: lines for a person.
        replayed: whether they were run again.
        known: how often each known bucket was hit.
        buckets: all buckets of the campaign, as a baseline has them.
    """

    directory: Path
    recorded: Recorded
    model: str
    identity: str
    cases: Sequence[Verdict]
    about: Sequence[str]
    replayed: bool = False
    known: Mapping[str, int] = field(default_factory=dict)
    buckets: Buckets = field(default_factory=dict)

    @property
    def empty(self) -> str:
        """A sentence that there are no findings, or ''."""
        new = "new " if self.known else ""
        return "" if self.cases else f"{escape(str(self.directory))} has no {new}findings"

    def details(self, case: Verdict) -> list[str]:
        """Return everything about a case that fails, line by line."""
        finding = case.now
        lines = [f"bucket    {bucket_title(case.moved)}"] if case.moved else []
        lines += [f'prompt    "{escape(finding.prompt)}"', f"output    {quote_output(finding)}"]
        if finding.evidence.words:
            lines.append(f"evidence  {escape(finding.evidence.words)}")
        if finding.minimal and self.identity == self.recorded.identity:
            lines.append(f'minimal   "{escape(finding.minimal.prompt)}"')
        again = [] if case.seed else [f"replay    {escape(replay_command(self.directory, case.number))}"]
        return [*lines, f"label     {escape(case.words)}", *again]


def campaign(
    directory: Path, with_secrets: bool = False, baseline: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Dossier:
    """Return the campaign in a directory, without what is known; raises UsageError as CampaignRecord.read.

    Args:
        directory: the directory.
        with_secrets: whether to show the system prompt.
        baseline: as in a spec, but instead of the campaign's own.
        ignore: likewise.
    """
    record = CampaignRecord.read(directory, with_secrets)
    known, recorded = known_to(record, baseline, ignore), Recorded.of(record)
    hits = {**record.known, **{name: count for name, count in record.hits.items() if name in known}}
    found = recorded.findings.items()
    new = {n: one for n, one in found if not known.covers(one.bucket, one.evidence.variant)}
    recorded = replace(recorded, findings=new)
    cases = [recorded_case(n, finding) for n, finding in recorded.findings.items()]
    about, model = list(summary_lines(summary(record))), recorded.spec.model or BUNDLED
    if baseline or ignore:
        about += known_lines(hits, len({finding.bucket for finding in new.values()}))
    buckets, identity = buckets_of(record), recorded.identity
    return Dossier(directory, recorded, model, identity, cases, about, known=hits, buckets=buckets)


def judged(
    directory: Path,
    replay: Replay,
    verdicts: Sequence[Verdict],
    with_seeds: bool,
    known: Known,
    with_secrets: bool = False,
) -> Dossier:
    """Return what a replay came to; ``with_seeds``: seeds that have no verdict and are no findings pass."""
    everything = list(verdicts)
    hits = Counter(verdict.now.bucket for verdict in verdicts if verdict.in_any(known))
    bad = {verdict.number for verdict in verdicts if verdict.seed}
    found = {finding.row.tobytes() for finding in replay.recorded.findings.values()}
    for i, (row, text) in enumerate(replay.recorded.seeds if with_seeds else ()):
        if i not in bad and row.tobytes() not in found:
            seed = Finding("", 0.0, Evidence("", ""), row, text, "", SEED, SEED, 0, 0, 0)
            everything.append(Verdict(i, seed, Reruns(0, 1, 0), "", seed=True))
    cases = [case for case in everything if not case.in_any(known)]
    if not with_secrets:
        cases = [case.concealed(replay.spec.system) for case in cases]
    new = {case.now.bucket for case in cases if case.state == FAILS}
    about = [_summary(everything), *(known_lines(hits, len(new)) if known else [])]
    model = replay.spec.model or BUNDLED
    return Dossier(directory, replay.recorded, model, replay.identity, cases, about, True, hits)


def _summary(everything: Sequence[Verdict]) -> str:
    """What a replay came to, on one line."""
    parts = []
    for seed, what in ((False, "finding"), (True, "seed")):
        cases = [case for case in everything if case.seed is seed]
        counts = Counter(case.before if case.state == FAILS else case.state for case in cases)
        shown = [f"{counts[True]} still failing"]
        shown += [f"{counts[key]} {word}" for key, word in _MORE.items() if counts[key]]
        if cases:
            parts.append(f"{plural(len(cases), what)}: {', '.join(shown)}")
    return "; ".join(parts) or "there was nothing to run again"


def recorded_case(number: int, finding: Finding) -> Verdict:
    """Return a finding as the campaign recorded it."""
    again = Reruns(finding.failed, finding.runs - finding.failed - finding.unscored, finding.unscored)
    return Verdict(number, finding, again, finding.output, evidence=finding.evidence, recorded=True)
