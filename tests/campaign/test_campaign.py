"""A campaign put together: what it takes from its spec, what it refuses, and what it keeps count of."""

import io
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers.begun import MODEL, begun, own, parts, restored
from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay
from lmfuzz.analysis.summary import detail_lines, summary, summary_lines
from lmfuzz.api.running import default_directory
from lmfuzz.campaign.campaign import Campaign, spec_for_resume
from lmfuzz.cli.progress import CampaignView, progress_of, watch
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.corpus import lineage
from lmfuzz.operators import OPERATORS
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import Store
from lmfuzz.targets.toy import Toy
from lmfuzz.text import escape, quote_output, shorten
from lmfuzz.types import Batch, Evidence, Finding, Step, Trace

SEEDS = "the quick brown fox\nonce upon a time\na door in the wall\nsay the word, friend.\n"
OBJECTIVES = ["repetition", 'phrases:words=["sesame"]']


class Ear:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.findings: list[tuple[int, Finding]] = []
        self.steps: list[Step] = []

    def note(self, line: str) -> None: ...

    def found(self, number: int, finding: Finding) -> None:
        self.findings.append((number, finding))

    def step(self, step: Step) -> None:
        self.steps.append(step)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    (tmp_path / "seeds.txt").write_text(SEEDS)
    return Spec(
        model=MODEL, seeds=[str(tmp_path / "seeds.txt")], objectives=OBJECTIVES,
        search="directed", budget="12000x",
    )  # fmt: skip


def easy() -> Toy:
    return Toy(phrase_key="xyz", loop_key="vk")


def ran(spec: Spec, directory: Path, target: Any = None) -> tuple[Campaign, Ear]:
    campaign, ear = begun(spec, target or easy()), Ear()
    with campaign.create(directory) as store:
        campaign.run(store, ear)
    return campaign, ear


def said(spec: Spec, target: Any = None) -> str:
    with pytest.raises(UsageError) as error:
        begun(spec, target or easy())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_campaign_finds_what_is_planted_and_shows_it_when_it_is_on_disk(spec: Spec, tmp_path: Path) -> None:
    class Reader(Ear):
        def found(self, number: int, finding: Finding) -> None:
            super().found(number, finding)
            record = CampaignRecord.read(tmp_path / "c")
            assert record.finding(number).prompt == finding.prompt

    campaign, ear = begun(spec, easy()), Reader()
    with campaign.create(tmp_path / "c") as store:
        campaign.run(store, ear)
        numbers = summary(store.record())
    assert [number for number, _ in ear.findings] == list(range(1, len(campaign.kept) + 1))
    assert {finding.objective for _, finding in ear.findings} == {"repetition", "phrases/sesame"}
    assert numbers["executions"] == campaign.executor.executions >= 4000
    assert numbers["exit_reason"] == campaign.reason == "executions"
    assert 0 < numbers["time_in_target"] < numbers["seconds"]
    assert (numbers["corpus_size"], numbers["archive_size"]) == (len(campaign.corpus), len(campaign.archive))
    rows = sum(len(step.batch) for step in ear.steps)
    assert numbers["novelty_rate"] == pytest.approx(len(campaign.archive) / rows, abs=1e-5)
    bucket = numbers["findings"]["phrases/sesame"]["phrases/sesame: sesame"]
    assert bucket["kept"] == 3 == len(bucket["labels"])
    assert bucket["hits"] == sum(int((step.margins[:, 1] > 0).sum()) for step in ear.steps)


def test_operators_are_credited_with_novel_rows_and_hits(spec: Spec, tmp_path: Path) -> None:
    campaign, ear = ran(spec, tmp_path / "c")
    made = [0] * len(campaign.operators)
    worth = [0] * len(campaign.operators)
    for step in ear.steps:
        for row, operator in enumerate(step.batch.operator.tolist()):
            if operator >= 0:
                made[operator] += 1
                worth[operator] += bool(step.novel[row] or (step.margins[row] > 0).any())
    assert campaign.tally.mutants.tolist() == made
    assert campaign.tally.fruitful.tolist() == worth
    assert sum(worth) > 0


def test_operators_are_all_but_what_the_target_or_the_spec_has_nothing_for(
    spec: Spec, tmp_path: Path
) -> None:
    assert {"havoc", "splice", "insert"} < set(parts(spec, easy()).context.operators)
    assert not {"dictionary", "tail"} & set(parts(spec, easy()).context.operators)
    words = tmp_path / "words.dict"
    words.write_text('"sesame"\n')
    also = parts(spec.model_copy(update={"dictionary": str(words)}), easy())
    assert list(also.context.operators)[-1] == "dictionary"
    some = spec.model_copy(update={"operators": ["insert", "havoc:depth=1", "havoc:depth=3"]})
    assert list(parts(some, easy()).context.operators) == ["insert", "havoc:depth=1", "havoc:depth=3"]
    bundled = parts(Spec(search="random"))
    assert "tail" in bundled.context.operators
    assert bundled.context.sampler is bundled.evaluator.executor


def test_objectives_go_by_short_names(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def shout(batch, trace):\n    return [t.isupper() for t in trace['text']]\n"
    )
    both = [f"{tmp_path}/own.py:shout", "repetition", "repetition:times=9"]
    names = parts(spec.model_copy(update={"objectives": both}), easy()).objectives.targets
    assert names == ("shout", "repetition", "repetition#2", "crash")


def test_a_missing_channel_is_an_error_that_lists_what_there_is(spec: Spec) -> None:
    sentence = said(spec.model_copy(update={"objectives": ["entropy"]}))
    assert sentence == (
        "the objectives need entropy, which the target does not show; it shows hidden_last, phrase_gap/, "
        "text, tokens"
    )
    assert said(spec.model_copy(update={"feature": "trajectory"})).startswith(
        "the feature needs hidden_steps"
    )


def test_what_a_target_cannot_grade_is_judged_all_the_same(spec: Spec, tmp_path: Path) -> None:
    class Blunt(Toy):
        channels = frozenset({"text", "tokens", "hidden_last"})

        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            assert wants <= self.channels
            return super().run(batch, wants)

    campaign, ear = ran(spec, tmp_path / "c", Blunt(phrase_key="xy", loop_key="v"))
    (note,) = campaign.parts.notes
    assert note.startswith("the search is blind for 1 of the 3 things looked for. It sees only whether")
    assert "A model that shows its logits is graded: a torch module or a Hugging Face folder" in note
    assert {finding.objective for _, finding in ear.findings} >= {"repetition", "phrases/sesame"}
    assert not campaign.objectives.errors


def test_what_no_model_can_grade_is_refused_before_anything_is_written(spec: Spec) -> None:
    class Plain(Toy):
        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            for name in wants:
                if name.startswith("phrase_gap/"):
                    self.space.encode(name.rpartition("/")[2])
            return super().run(batch, wants)

    odd = spec.model_copy(update={"objectives": ['phrases:words=["sesame","\u00e9"]']})
    assert said(odd, Plain()) == "character '\u00e9' is not in the model's alphabet"


def test_lengths_are_those_of_target_and_spec_together(spec: Spec) -> None:
    assert parts(spec.model_copy(update={"max_length": 30}), easy()).context.space.max_length == 30
    assert parts(spec, easy()).context.space.max_length == 32
    assert "change min_length or max_length" in said(spec.model_copy(update={"min_length": 40}))


def test_the_radius_is_measured_or_given(spec: Spec) -> None:
    campaign = begun(spec, easy())
    assert campaign.archive.radius == campaign.calibration.radius > 0
    given = begun(spec.model_copy(update={"radius": 7.5}), easy())
    assert given.archive.radius == given.calibration.radius == 7.5


def test_an_objective_of_a_wrong_shape_is_refused_and_one_that_raises_is_not(
    spec: Spec, tmp_path: Path
) -> None:
    (tmp_path / "odd.py").write_text(
        "def flat(batch, trace):\n    return [1.0, 2.0, 3.0]\n"
        "def raises(batch, trace):\n    return [1 / (len(batch) == 1) - 2] * len(batch)\n"
    )
    assert "returned shape (3,)" in said(spec.model_copy(update={"objectives": [f"{tmp_path}/odd.py:flat"]}))
    frail = spec.model_copy(update={"objectives": [f"{tmp_path}/odd.py:raises", *OBJECTIVES]})
    campaign, ear = ran(frail, tmp_path / "c")
    rows = sum(len(step.batch) for step in ear.steps)
    assert campaign.objectives.unscored["raises"] >= rows
    assert ear.findings
    record = CampaignRecord.read(tmp_path / "c")
    text = "\n".join(summary_lines(summary(record)))
    assert "not scored by raises: " in text
    assert "ZeroDivisionError: division by zero" in text


def test_nothing_found_says_nothing_where_an_objective_never_scored_a_row(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "calls = []\ndef raises(batch, trace):\n    calls.append(0)\n    if len(calls) > 2:\n"
        "        raise ValueError('no')\n    return [float('nan')] * len(batch)\n"
        "def nans(batch, trace):\n    return [float('nan')] * len(batch)\n"
        "def safe(batch, trace):\n    return [-1.0] * len(batch)\n"
    )
    odd = {name: f"{tmp_path}/odd.py:{name}" for name in ("raises", "nans", "safe")}
    short = spec.model_copy(update={"budget": "200x", "search": "random"})
    both, _ = ran(short.model_copy(update={"objectives": list(odd.values())}), tmp_path / "both")
    assert both.unjudged == (
        "nothing was found, but raises never scored a row (ValueError: no) and nans never scored a row (NaN):"
        " fix it and run again"
    )
    safe, _ = ran(short.model_copy(update={"objectives": [odd["safe"]]}), tmp_path / "safe")
    assert not safe.unjudged
    both.kept.append(FINDING)
    assert not both.unjudged


def test_a_row_on_which_the_target_raises_is_a_finding_and_the_rest_goes_on(
    spec: Spec, tmp_path: Path
) -> None:
    class Fragile(Toy):
        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            for row in range(len(batch)):
                if self.space.encode("q")[0] in batch.row(row)[-2:]:
                    raise RuntimeError(f"row {row} is too much")
            return super().run(batch, wants)

    campaign, ear = ran(spec, tmp_path / "c", Fragile(phrase_key="xyz", loop_key="vk"))
    crashes = [finding for _, finding in ear.findings if finding.objective == "crash"]
    assert len(crashes) == 3
    assert all(
        f.bucket == "crash: RuntimeError: row N is too much" and f.label == "confirmed" for f in crashes
    )
    assert all("q" in f.prompt[-2:] for f in crashes)
    assert {finding.objective for _, finding in ear.findings} > {"crash"}
    record = CampaignRecord.read(tmp_path / "c")
    assert "RuntimeError" in "\n".join(detail_lines(record, campaign.kept.index(crashes[0]) + 1))


def test_a_target_that_always_raises_is_no_target(spec: Spec) -> None:
    class Dead(Toy):
        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            raise RuntimeError("dead")

    with pytest.raises(TargetError, match="raises on every row, first with RuntimeError: dead"):
        begun(spec, Dead())


def test_resuming_something_else_is_refused(spec: Spec, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    ran(spec, directory)
    with pytest.raises(UsageError, match=r"resume it with a larger budget: lmfuzz resume .*c --budget \d+"):
        spec_for_resume(directory)
    more = spec_for_resume(directory, "13000x")
    assert more == spec.model_copy(update={"budget": "13000x"})
    with pytest.raises(UsageError, match=r"has reached \d+ findings"):
        spec_for_resume(directory, "13000x", stop_after=1)
    with Store.resume(directory) as store:
        with pytest.raises(UsageError, match="with another model: that one was toy-40-xyz-vk"):
            restored(more, store, Toy())
        other = more.model_copy(update={"objectives": ["repetition"]})
        with pytest.raises(UsageError, match="begun with other targets; what differs: phrases/sesame"):
            restored(other, store, easy())
        fewer = more.model_copy(update={"operators": ["insert"]})
        with pytest.raises(UsageError, match="begun with other operators"):
            restored(fewer, store, easy())
    toml = directory / "campaign.toml"
    toml.write_text(toml.read_text().replace("\nseed = 0", "\nseed = 1"))
    with pytest.raises(UsageError, match=r"was changed since the campaign began \(seed\)"):
        spec_for_resume(directory, "13000x")


def test_a_larger_budget_goes_on_and_is_written_down(spec: Spec, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    before, _ = ran(spec, directory)
    (tmp_path / "seeds.txt").unlink()  # the campaign has them
    with Store.resume(directory) as store:
        campaign = restored(spec_for_resume(directory, "14000x"), store, easy())
        assert campaign.executor.executions == before.executor.executions
        campaign.run(store, Ear())
    assert campaign.executor.executions >= 14000
    assert campaign.budget.elapsed() > before.budget.seconds_before
    assert 'budget = "14000x"' in (directory / "campaign.toml").read_text()
    with pytest.raises(UsageError, match="spent 14000x or more"):
        spec_for_resume(directory)


def test_operators_that_are_new_do_not_keep_an_old_campaign_from_going_on(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = ran(spec, tmp_path / "c")
    more = {"renamed": OPERATORS.table["swap"], **OPERATORS.table, "new": OPERATORS.table["insert"]}
    monkeypatch.setattr("lmfuzz.campaign.choose.OPERATORS", replace(OPERATORS, table=more))
    assert {"renamed", "new"} < parts(spec, easy()).context.operators.keys()
    with Store.resume(tmp_path / "c") as store:
        campaign = restored(spec_for_resume(tmp_path / "c", "12500x"), store, easy())
    assert campaign.operators == before.operators


def test_a_small_budget_is_for_the_search_alone(spec: Spec, tmp_path: Path) -> None:
    small = spec.model_copy(update={"budget": "300x", "search": "random"})
    campaign, ear = ran(small, tmp_path / "c")
    assert sum(len(step.batch) for step in ear.steps) >= 300
    assert 300 <= campaign.executor.executions - campaign.budget.calibration < 300 + spec.batch
    with pytest.raises(UsageError, match="spent 300x or more"):
        spec_for_resume(tmp_path / "c")
    with Store.resume(tmp_path / "c") as store:
        more = restored(spec_for_resume(tmp_path / "c", "400x"), store, easy())
        assert more.budget.calibration == campaign.budget.calibration
        assert 0.7 < more.budget.share() < 1


def test_replay_says_what_still_fails(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(Toy):
        """Fixed for the phrase; fails every other time with the loop."""

        turns = 0

        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            self.turns += 1
            trace = dict(super().run(batch, wants))
            quiet = ["quiet"] * len(batch)
            if self.turns % 2 or "sesame" in trace["text"][0]:
                trace["text"] = np.array(quiet, dtype=object)
            return trace

    directory = tmp_path / "c"
    campaign, _ = ran(spec, directory)
    same = Replay(Recorded.of(CampaignRecord.read(directory)), own=own(easy()))
    assert not same.changed
    assert [verdict.words for verdict in same] == ["still fails"] * len(campaign.kept)
    moody = Moody(phrase_key="xyz", loop_key="vk")
    moody.identity = "another"
    other = Replay(Recorded.of(CampaignRecord.read(directory)), own=own(moody))
    assert other.changed
    for verdict in other:
        fixed = verdict.finding.objective == "phrases/sesame"
        assert verdict.words in (["fixed"] if fixed else ["flaky 1 of 3", "flaky 2 of 3"])
        if fixed:  # one that failed in its batch only is not fixed when it passes again
            never = replace(verdict, finding=replace(verdict.finding, failed=0))
            assert never.words == "passes alone, as it did when it was found"
    with pytest.raises(UsageError, match=f"has no finding 99; its findings are 1 to {len(campaign.kept)}"):
        Recorded.of(CampaignRecord.read(directory), 99)


def test_replay_says_what_could_not_be_judged(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(Toy):
        """Raises on whatever held the phrase."""

        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            trace = super().run(batch, wants)
            if any("sesame" in text for text in trace["text"]):
                raise RuntimeError("no more")
            return trace

    def loses(batch: Batch, trace: Trace) -> Any:
        raise ValueError(1)

    directory = tmp_path / "c"
    ran(spec, directory)
    breaks = Breaks(phrase_key="xyz", loop_key="vk")
    monkeypatch.setattr("lmfuzz.objectives.repetition.Repetition.__call__", lambda self, b, t: loses(b, t))
    again = Replay(Recorded.of(CampaignRecord.read(directory)), own=own(breaks))
    verdicts = {verdict.finding.objective: verdict for verdict in again}
    assert not any(verdict.fixed for verdict in verdicts.values())
    assert verdicts["phrases/sesame"].words == "could not be judged (RuntimeError: no more)"
    assert verdicts["repetition"].words == "could not be judged (ValueError: 1)"


def test_a_finding_is_shown_with_its_lineage(spec: Spec, tmp_path: Path) -> None:
    campaign, _ = ran(spec, tmp_path / "c")
    number = max(
        range(len(campaign.kept)),
        key=lambda i: len(lineage(campaign.corpus[:].parent, campaign.kept[i].parent)),
    )
    finding = campaign.kept[number]
    record = CampaignRecord.read(tmp_path / "c")
    lines = list(detail_lines(record, number + 1))
    start = lines.index("lineage")
    shown = lines[start + 1 : -1]
    ids = lineage(campaign.corpus[:].parent, finding.parent)
    assert [line.split()[0] for line in shown] == [*(f"#{i}" for i in ids), "this"]
    assert shown[0].split()[1] == "seed"
    assert any(seed in shown[0] for seed in SEEDS.splitlines())
    assert shown[-1].split()[1] == campaign.operators[finding.operator]
    assert lines[-1] == f"replay it with: lmfuzz replay {tmp_path}/c {number + 1}"
    assert any(line.startswith("output") and ">>>" in line and "<<<" in line for line in lines)


FINDING = Finding(
    "repetition", 1.0, Evidence("loop 'x'", "it loops", (2, 4)), np.zeros(1, np.int32), "p\n\x1b[31m",
    "abXX\x07c", -1, -1, 1, 3, 3,
)  # fmt: skip


def test_nothing_reaches_the_terminal_as_a_control_character() -> None:
    assert escape("a\x1b[31m\n\u202e\\\ud800é") == "a\\x1b[31m\\n\\u202e\\\\\\ud800é"
    assert quote_output(FINDING) == '"ab>>>XX<<<\\x07c"'
    assert quote_output(replace(FINDING, evidence=Evidence("x", "y"))) == '"abXX\\x07c"'
    assert shorten("x" * 100, 11) == '"xxxx...xxxx"'


def test_a_pipe_gets_lines_and_a_terminal_a_picture(spec: Spec, tmp_path: Path) -> None:
    campaign, ear = ran(spec, tmp_path / "c")
    out = io.StringIO()
    lines = watch(campaign, out)
    lines.found(7, FINDING)
    assert out.getvalue() == (
        'lmfuzz: finding 7, repetition: loop \'x\' (confirmed): "p\\n\\x1b[31m" -> "ab>>>XX<<<\\x07c"\n'
    )
    lines._last -= 60
    lines.step(ear.steps[-1])
    lines.step(ear.steps[-1])  # too soon for another
    assert out.getvalue().count("\n") == 2
    assert f", {campaign.executor.executions} executions, " in out.getvalue()
    assert f"corpus {len(campaign.corpus)}, archive {len(campaign.archive)}, novel " in out.getvalue()

    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, markup=False)
    with CampaignView(lambda: progress_of(campaign), console) as screen:
        screen.step(ear.steps[-1])
        screen.found(7, replace(FINDING, failed=2, prompt="[bold]not markup[/bold]"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("executions/s", "last new state", "stability", "yield per 1 000", "of 12000x"):
        assert word in shown
    assert "flaky 2/3" in shown
    assert "[bold]not markup[/bold]" in shown
    assert "\x07" not in shown


class Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Noon":
        return cls(2026, 11, 28, 12)


def test_directories_are_named_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lmfuzz.api.running.datetime", Noon)
    assert default_directory() == Path("runs/20261128-120000")
    (tmp_path / "runs" / "20261128-120000").mkdir(parents=True)
    (tmp_path / "runs" / "20261128-120000-2").mkdir()
    assert default_directory() == Path("runs/20261128-120000-3")


def test_what_a_row_descends_from_is_where_its_lineage_begins(spec: Spec, tmp_path: Path) -> None:
    """Also of chains that started again from other seeds."""
    more = {"search": "directed:patience=2", "budget": "4000x", "objectives": ["repetition"]}
    ran(spec.model_copy(update=more), tmp_path / "c")
    record = CampaignRecord.read(tmp_path / "c")
    rows, findings = record.rows, record.findings
    lineages = [record.lineage(finding) for finding in findings]
    begins = np.arange(len(rows))
    for row in np.flatnonzero(rows.parent >= 0).tolist():
        begins[row] = begins[rows.parent[row]]
    assert begins.tolist() == rows.origin.tolist()
    assert len(set(rows.origin.tolist())) > 1
    assert all(path[0] == one.origin for path, one in zip(lineages, findings, strict=True) if path)


class Cyrillic(Toy):
    """A toy that can be graded, with another alphabet."""

    def __init__(self, letters: str) -> None:
        super().__init__()
        self.space = replace(self.space, symbols=tuple(letters))


def test_default_words_that_an_alphabet_cannot_write_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "seeds").write_text("fag\nag\n")
    letters = "fag" + "\u0436\u0437\u0438\u0439\u043a\u043b\u043c\u043d\u043e\u043f" + " ,.\n"
    spec = Spec(model=MODEL, seeds=[str(tmp_path / "seeds")], budget="50x")
    made = parts(spec, Cyrillic(letters))
    left = [target for target in made.objectives.targets if target.startswith("phrases/")]
    words = [word for word in parts(spec, Toy()).objectives.targets if word.startswith("phrases/")]
    assert left == [word for word in words if set(word.partition("/")[2]) <= set(letters)]
    assert len(left) < len(words)
    (note,) = [note for note in made.notes if "default list" in note]
    assert note.startswith(f"left out {len(words) - len(left)} words of the default list")
    chosen = parts(
        spec.model_copy(update={"objectives": [*spec.objectives, "regex:pattern=x"]}), Cyrillic(letters)
    )
    assert [word for word in chosen.objectives.targets if word.startswith("phrases/")] == words
