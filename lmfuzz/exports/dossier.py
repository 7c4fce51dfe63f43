"""What all exports are made of: findings and seeds, how each stands, and what could not be read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmfuzz.findings import Finding
from lmfuzz.replay import Recorded, Replay, Verdict
from lmfuzz.salvage import opened
from lmfuzz.show import counted, escaped, output, replay_command, shortened, summary_lines, title
from lmfuzz.types import SEED, Evidence

FAILS, PASSES, OPEN = "fails", "passes", "open"  # OPEN: could not be judged


@dataclass(frozen=True, slots=True)
class Case:
    """A finding, or a seed as if it were one, and how it stands.

    state: FAILS, PASSES or OPEN; ``words`` say it for a person. A seed that passes has no objective.
    """

    number: int
    finding: Finding
    state: str
    words: str
    seed: bool = False
    before: bool | None = True  # of a seed, whether it failed on the campaign's model; None: not known

    @property
    def name(self) -> str:
        """``finding 3: BUCKET``, or ``seed 12``; on one line."""
        bucket = f": {title(self.finding.bucket)}" if self.finding.objective else ""
        return f"{'seed' if self.seed else 'finding'} {self.number}{bucket}"

    @property
    def line(self) -> str:
        """How it stands, its prompt and its output, on one line."""
        return f"{escaped(self.words)}: {shortened(self.finding.prompt)} -> {output(self.finding, 60)}"


@dataclass(frozen=True, slots=True)
class Dossier:
    """A campaign, or a replay of it, to be written down; ``lost`` says what of it could not be read."""

    directory: Path
    recorded: Recorded
    model: str
    identity: str
    cases: Sequence[Case]
    about: Sequence[str]  # lines for a person
    lost: Sequence[str] = ()
    replayed: bool = False

    @property
    def empty(self) -> str:
        """That there are no findings, or ''."""
        return "" if self.cases or self.lost else f"{escaped(str(self.directory))} has no findings"

    def details(self, case: Case) -> list[str]:
        """All about a case that fails, line by line."""
        finding = case.finding
        lines = [f'prompt    "{escaped(finding.prompt)}"', f"output    {output(finding)}"]
        if finding.evidence.words:
            lines.append(f"evidence  {escaped(finding.evidence.words)}")
        if finding.minimal:
            lines.append(f'minimal   "{escaped(finding.minimal.prompt)}"')
        again = [] if case.seed else [f"replay    {escaped(replay_command(self.directory, case.number))}"]
        return [*lines, f"label     {escaped(case.words)}", *again]


def campaign(directory: Path) -> Dossier:
    """The campaign in a directory; of a damaged one what can be read. UsageError when nothing can be."""
    found = opened(directory)
    recorded = Recorded.of(found.meta, found.noise, found.findings, found.seeds)
    cases = [Case(n, finding, FAILS, finding.label) for n, finding in found.findings.items()]
    about = tuple(summary_lines(found.numbers)) if found.numbers else ()
    return Dossier(
        directory, recorded, _model(recorded.spec.model), recorded.identity, cases, about, found.lost
    )


def judged(directory: Path, replay: Replay, verdicts: Sequence[Verdict], with_seeds: bool) -> Dossier:
    """What a replay came to; ``with_seeds``: seeds without a verdict pass."""
    recorded = replay.recorded
    cases = [_case(verdict) for verdict in verdicts]
    if with_seeds:
        bad = {verdict.number for verdict in verdicts if verdict.seed}
        cases += [
            Case(
                i,
                Finding("", 0.0, Evidence("", ""), row, text, "", SEED, SEED, 0, 0, 0),
                PASSES,
                "passes",
                True,
            )
            for i, (row, text) in enumerate(recorded.seeds)
            if i not in bad
        ]
    return Dossier(
        directory,
        recorded,
        _model(replay.spec.model),
        replay.identity,
        cases,
        [_summary(cases)],
        replayed=True,
    )


def _summary(everything: Sequence[Case]) -> str:
    """What a replay came to, in one sentence."""
    parts = []
    for seed, what in ((False, "finding"), (True, "seed")):
        cases = [case for case in everything if case.seed is seed]
        fail = Counter(case.before for case in cases if case.state == FAILS)
        unjudged = sum(case.state == OPEN for case in cases)
        words = [
            f"{fail[True]} still {_fail(fail[True])}",
            *([f"{fail[False]} newly {_fail(fail[False])}"] if seed else []),
            *([f"{fail[None]} {_fail(fail[None])}, whether anew is not known"] if fail[None] else []),
            *([f"{unjudged} could not be judged"] if unjudged else []),
        ]
        if cases:
            parts.append(f"of {counted(len(cases), what)} {', '.join(words)}")
    return "; ".join(parts) or "there was nothing to run again"


def _fail(many: int) -> str:
    return "fails" if many == 1 else "fail"


def _case(verdict: Verdict) -> Case:
    again = verdict.again
    state = FAILS if again.failed else OPEN if again.unscored else PASSES
    return Case(verdict.number, verdict.finding, state, verdict.words, verdict.seed, verdict.before)


def _model(name: str) -> str:
    return name or "the bundled model"
