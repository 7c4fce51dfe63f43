"""What all exports are made from: findings and seeds, and the state of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay, Verdict
from lmfuzz.analysis.summary import summary, summary_lines
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import bucket_title, escape, plural, quote_output, replay_command, shorten
from lmfuzz.types import SEED, Evidence, Finding

FAILS, PASSES, OPEN = "fails", "passes", "open"  # OPEN: could not be judged
BUNDLED = "the bundled model"

_MORE = {False: "newly failing", None: "failing, unknown since when", OPEN: "not judged"}


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a finding, or a seed as if it were one, and its state.

    Attributes:
        number: the number of the finding or of the seed.
        finding: the finding; in a replay with its present output and evidence. A seed that passes has no
            objective.
        state: FAILS, PASSES or OPEN.
        words: the state in words.
        seed: whether it is a seed.
        before: whether the seed failed on the campaign's model; None if that is not known.
        was: the bucket in which it was found, if it is in another one now.
    """

    number: int
    finding: Finding
    state: str
    words: str
    seed: bool = False
    before: bool | None = True
    was: str = ""

    @property
    def bucket(self) -> str:
        """The bucket in which it was found, which names it in every replay."""
        return self.was or self.finding.bucket

    @property
    def name(self) -> str:
        """``finding 3: BUCKET``, or ``seed 12``; on one line."""
        bucket = f": {bucket_title(self.bucket)}" if self.finding.objective else ""
        return f"{'seed' if self.seed else 'finding'} {self.number}{bucket}"

    @property
    def line(self) -> str:
        """Its state, prompt and output, on one line."""
        now = f", now {bucket_title(self.finding.bucket)}" if self.was else ""
        output = quote_output(self.finding, 60)
        return f"{escape(self.words)}{now}: {shorten(self.finding.prompt)} -> {output}"


@dataclass(frozen=True, slots=True)
class Dossier:
    """Hold a campaign, or a replay of one, as it is exported; ``about`` are lines for a person."""

    directory: Path
    recorded: Recorded
    model: str
    identity: str
    cases: Sequence[Case]
    about: Sequence[str]
    replayed: bool = False

    @property
    def empty(self) -> str:
        """A sentence that there are no findings, or ''."""
        return "" if self.cases else f"{escape(str(self.directory))} has no findings"

    def details(self, case: Case) -> list[str]:
        """Return everything about a case that fails, line by line."""
        finding = case.finding
        lines = [f"bucket    {bucket_title(finding.bucket)}"] if case.was else []
        lines += [f'prompt    "{escape(finding.prompt)}"', f"output    {quote_output(finding)}"]
        if finding.evidence.words:
            lines.append(f"evidence  {escape(finding.evidence.words)}")
        if finding.minimal and self.identity == self.recorded.identity:
            lines.append(f'minimal   "{escape(finding.minimal.prompt)}"')
        again = [] if case.seed else [f"replay    {escape(replay_command(self.directory, case.number))}"]
        return [*lines, f"label     {escape(case.words)}", *again]


def campaign(directory: Path) -> Dossier:
    """Return the campaign in a directory; raises UsageError as CampaignRecord.read does."""
    record = CampaignRecord.read(directory)
    recorded = Recorded.of(record)
    cases = [Case(n, finding, FAILS, finding.label) for n, finding in recorded.findings.items()]
    about = list(summary_lines(summary(record)))
    return Dossier(directory, recorded, recorded.spec.model or BUNDLED, recorded.identity, cases, about)


def judged(directory: Path, replay: Replay, verdicts: Sequence[Verdict], with_seeds: bool) -> Dossier:
    """Return what a replay came to; ``with_seeds``: seeds that have no verdict and are no findings pass."""
    cases = [_case(verdict) for verdict in verdicts]
    bad = {verdict.number for verdict in verdicts if verdict.seed}
    found = {finding.row.tobytes() for finding in replay.recorded.findings.values()}
    for i, (row, text) in enumerate(replay.recorded.seeds if with_seeds else ()):
        if i not in bad and row.tobytes() not in found:
            seed = Finding("", 0.0, Evidence("", ""), row, text, "", SEED, SEED, 0, 0, 0)
            cases.append(Case(i, seed, PASSES, "passes", seed=True))
    about, model = [_summary(cases)], replay.spec.model or BUNDLED
    return Dossier(directory, replay.recorded, model, replay.identity, cases, about, replayed=True)


def _summary(everything: Sequence[Case]) -> str:
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


def _case(verdict: Verdict) -> Case:
    again = verdict.again
    state = FAILS if again.failed else OPEN if again.unscored else PASSES
    was = verdict.finding.bucket if verdict.moved else ""
    return Case(verdict.number, verdict.now, state, verdict.words, verdict.seed, verdict.before, was)
