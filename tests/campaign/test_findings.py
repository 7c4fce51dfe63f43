"""Hits are confirmed alone, sorted into buckets, kept up to a number, and never twice."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.campaign.findings import Findings
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.types import SEED, Batch, Evidence, Finding, Reruns

WANTS = frozenset({"text", "value"})


class Echo:
    """Writes the prompt backwards; its value is the last symbol."""

    space = TextSpace(tuple("abcdefghij"))
    channels = WANTS
    identity = "echo"

    def __init__(self):
        self.seen = []

    def run(self, batch, wants):
        self.seen.append(batch)
        texts = np.array([text[::-1] for text in self.space.texts(batch)], dtype=object)
        value = batch.data[np.arange(len(batch)), batch.lengths - 1].astype(np.float32)
        return {name: {"text": texts, "value": value}[name] for name in wants}


class Large:
    """Column 0: the value is above 4, its signature is the value's parity. Column 1: it is above 7.

    ``script``: whether the re-runs, in turn, fail again; without one they all do.
    """

    needs = frozenset({"value"})
    targets = ("large", "huge")
    grades = (frozenset[str](),) * 2

    def __init__(self, script=None):
        self.script = None if script is None else iter(script)

    def __call__(self, batch, trace):
        margins = np.stack([trace["value"] - 4, trace["value"] - 7], axis=1).astype(np.float32)
        if len(batch) == 1 and self.script is not None:
            return margins if next(self.script) else np.full_like(margins, -1)
        return margins

    def evidence(self, batch, trace, row, column):
        value = int(trace["value"][row])
        return Evidence("odd" if value % 2 else "even", f"value {value}", (0, 1))


def considered(findings, batch, execution=100):
    """The findings in a batch, which is run first, as the loop does."""
    trace = findings.evaluator.executor.run(batch, WANTS)
    margins = findings.evaluator.objectives(batch, trace)
    return findings.consider(batch, trace, margins, execution)


def of(*texts, **changes):
    return replace(Batch.of([Echo.space.encode(text) for text in texts]), **changes)


SEEDS = Batch.of([np.array([0], np.int32)] * 8)


class Varied(Large):
    """As Large, but all values are one behaviour."""

    def evidence(self, batch, trace, row, column):
        return Evidence("value", "a value", variant=str(int(trace["value"][row])))


def varied(**settings):
    return Findings(Evaluator(Echo(), Varied()), SEEDS, **settings)


def test_a_bucket_counts_its_variants_and_keeps_some_findings_of_each():
    findings, seeds = varied(keep=1), np.array([SEED, 0, 0, 0])
    found = considered(findings, of("abcdf", "bacdf", "abcdg", "abcdef", parent=seeds))
    assert [one.evidence.variant for one in found] == ["5", "6"]
    assert findings.kept == {"large: value": 2}
    assert findings.hits == {"large: value": 4}
    assert findings.variants == {"large: value": {"5": 3, "6": 1}}
    assert findings.unmutated == {"large: value": 1}
    again = varied(keep=1)
    again.restore(json.loads(json.dumps(findings.state())))
    assert again.state() == findings.state()
    assert considered(again, of("bcadf")) == []


def test_campaigns_that_knew_no_variants_go_on():
    findings = varied(keep=1)
    considered(findings, of("abcdf"))
    older = varied(keep=1)
    older.restore({name: findings.state()[name] for name in ("hits", "kept", "filled", "rows")})
    assert [one.prompt for one in considered(older, of("abcdf", "bcadf", "cbadf"))] == ["bcadf"]


def test_the_oftener_a_variant_was_seen_the_seldomer_its_rows_count_as_coverage():
    findings, rare = varied(), 0
    for _ in range(100):
        considered(findings, of("abcdf", "a"))
        assert not findings.rare[1], "only rows that hit are marked"
        rare += int(findings.rare[0])
    assert rare == 36  # of 100
    considered(findings, of("abcdg"))
    assert findings.rare.tolist() == [True], "another variant is rare"
    findings.covering = False
    considered(findings, of("abcdh"))
    assert findings.rare.tolist() == [False]


def fresh(script=None, **settings):
    return Findings(Evaluator(Echo(), Large(script)), SEEDS, **settings)


def test_a_finding_holds_the_row_that_ran_and_what_it_showed():
    batch = of("abc", "abcdf", parent=np.array([SEED, 7]), operator=np.array([SEED, 3], np.int32))
    (finding,) = considered(fresh(), batch, execution=64)
    assert finding == replace(
        finding, objective="large", margin=1.0, evidence=Evidence("odd", "value 5", (0, 1)), prompt="abcdf",
        output="fdcba", parent=7, operator=3, execution=64, failed=3, runs=3,
    )  # fmt: skip
    assert finding.row.tolist() == [0, 1, 2, 3, 5]
    assert finding.bucket == "large: odd"
    assert finding.label == "confirmed"


def test_a_findings_symbols_are_its_own():
    batch = of("abcdf")
    (finding,) = considered(fresh(), batch)
    batch.data[:] = 0
    assert finding.row.tolist() == [0, 1, 2, 3, 5]


def test_rows_without_a_positive_margin_are_none():
    findings = fresh()
    trace = findings.evaluator.executor.run(of("f", "f", "f", "f"), WANTS)
    margins = np.array([[0, -1], [np.nan, np.nan], [-np.inf, -1], [-1e-9, 0]], np.float32)
    assert findings.consider(of("f", "f", "f", "f"), trace, margins, 1) == []
    assert not findings.hits


@pytest.mark.parametrize(
    ("script", "failed", "label"),
    [
        ([True] * 5, 5, "confirmed"),
        ([True, False, True, False, False], 2, "flaky 2/5"),
        ([False] * 4 + [True], 1, "flaky 1/5"),
        ([False] * 5, 0, "flaky 0/5"),
    ],
)
def test_flaky_hits_are_kept_and_say_how_often_they_failed_again(script, failed, label):
    (finding,) = considered(fresh(script, runs=5), of("f", "aaa"))
    assert (finding.failed, finding.runs, finding.label) == (failed, 5, label)


def test_hits_are_run_again_alone_and_unpadded_with_what_the_objective_needs():
    findings = fresh(runs=2)
    considered(findings, of("abcdefgh", "f", "a"))
    again = findings.evaluator.target.seen[1:]
    assert [run.data.tolist() for run in again] == [[list(range(8))]] * 2 + [[[5]]] * 2
    assert all(len(run) == 1 for run in again)


def test_confirm_counts_the_runs_that_fail_in_this_column():
    evaluator = Evaluator(Echo(), Large())
    assert evaluator.confirm(of("h"), 0, 4) == Reruns(4, 0, 0)
    assert evaluator.confirm(of("h"), 1, 4) == Reruns(0, 4, 0)
    assert evaluator.executor.executions == 8


def test_a_rerun_that_cannot_be_judged_has_neither_failed_nor_passed():
    class Sometimes(Large):
        margins = iter([1, np.nan, -1, -np.inf, np.nan])

        def __call__(self, batch, trace):
            return np.full((1, 2), next(self.margins), np.float32)

    assert Evaluator(Echo(), Sometimes()).confirm(of("h"), 0, 5) == Reruns(1, 2, 2)


def test_at_most_so_many_findings_are_kept_and_confirmed_per_bucket():
    findings = fresh(keep=2, runs=1)
    prompts = [a + b for a in "abcde" for b in "fh"]  # odd ones alone
    found = considered(findings, of(*prompts))
    assert [finding.prompt for finding in found] == prompts[:2]
    assert findings.hits == {"large: odd": 10}
    assert findings.kept == {"large: odd": 2}
    assert findings.evaluator.executor.executions == 10 + 2, "what is not kept is not run again"
    assert considered(findings, of("jjf")) == []
    assert findings.hits == {"large: odd": 11}


def test_every_bucket_is_kept_by_itself():
    found = considered(fresh(keep=1), of("f", "g", "h", "j"))
    assert [(f.objective, f.prompt, f.bucket) for f in found] == [
        ("large", "f", "large: odd"),
        ("large", "g", "large: even"),
        ("huge", "j", "huge: odd"),
    ]


def test_the_same_prompt_is_kept_once_per_bucket():
    findings = fresh(keep=9)
    found = considered(findings, of("aj", "aj", "bj")) + considered(findings, of("bj", "aj"))
    assert [(f.prompt, f.objective) for f in found] == [
        (prompt, objective) for prompt in ("aj", "bj") for objective in ("large", "huge")
    ]
    assert findings.hits == {"large: odd": 5, "huge: odd": 5}


def test_prompts_are_compared_without_their_padding():
    findings = fresh(keep=9)
    garbage = of("f", "abcdef")
    garbage.data[0, 1:] = 7
    assert len(considered(findings, of("f"))) == 1
    assert [f.prompt for f in considered(findings, garbage)] == ["abcdef"]


def test_a_prompt_and_a_longer_one_that_begins_like_it_are_two():
    assert len(considered(fresh(keep=9), of("f", "ff", "af", "aaf"))) == 4


def test_after_a_restore_it_goes_on_as_if_never_stopped():
    first, second = of("f", "g", "bf", "j"), of("f", "cf", "bg", "j", "df", "ef", "aj")
    unbroken = fresh(keep=4)
    considered(unbroken, first)
    state = json.loads(json.dumps(unbroken.state()))
    resumed = fresh(keep=4)
    resumed.restore(state)
    want, got = considered(unbroken, second), considered(resumed, second)
    assert [(f.prompt, f.bucket) for f in got] == [(f.prompt, f.bucket) for f in want]
    assert [f.prompt for f in got] == ["cf", "bg", "aj"], "four odd ones: f, bf, j, cf"
    assert unbroken.state() == resumed.state()


def test_a_state_does_not_change_when_the_search_goes_on():
    findings = fresh()
    considered(findings, of("f"))
    state = findings.state()
    before = json.dumps(state)
    considered(findings, of("g", "h", "j"))
    assert json.dumps(state) == before


@pytest.mark.parametrize(
    ("failed", "runs", "unscored", "label"),
    [
        (3, 3, 0, "confirmed"),
        (0, 3, 0, "flaky 0/3"),
        (1, 1, 0, "confirmed"),
        (0, 3, 3, "flaky 0/3, 3 unscored"),
    ],
)
def test_labels(failed, runs, unscored, label):
    finding = Finding(
        "o", 1.0, Evidence("s", "w"), np.zeros(1, np.int32), "a", "b", SEED, SEED, 1, failed, runs, unscored
    )
    assert finding.label == label
    assert finding.bucket == "o: s"
