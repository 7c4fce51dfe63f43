import json
from dataclasses import dataclass

import numpy as np
import pytest

from lmfuzz.errors import UsageError
from lmfuzz.objectives.combine import OTHERS, All, Any, Crash, ObjectiveSet, both, either
from lmfuzz.objectives.regex import Regex
from lmfuzz.objectives.repetition import Repetition
from lmfuzz.types import Batch, Evidence

NAN, INF = np.nan, np.inf


def shown(*texts, crash=None):
    trace = {
        "text": np.array(texts, dtype=object),
        "crash": np.array(crash or [""] * len(texts), dtype=object),
    }
    return Batch.of([np.zeros(1, np.int32)] * len(texts)), trace


FOUR = shown("a", "b", "c", "d")


class Fixed:
    """Says what it was told to say.

    More words.
    """

    def __init__(self, margins, **promises):
        self.margins = margins
        self.__dict__.update(promises)

    def __call__(self, batch, trace):
        return self.margins(batch, trace) if callable(self.margins) else self.margins


def column(*margins, name="m"):
    return Fixed(np.array(margins, np.float32)[:, None], targets=(name,), needs=frozenset())


def raising(batch, trace):
    raise RuntimeError("no luck with " + trace["text"][0])


HIT, MISS, NEAR = 1.0, -1.0, -0.25


@pytest.mark.parametrize(
    ("parts", "any_of", "all_of"),
    [
        ((HIT, MISS), HIT, MISS),
        ((HIT, 0.5), HIT, 0.5),
        ((MISS, NEAR), NEAR, MISS),
        ((HIT, NAN), HIT, NAN),
        ((MISS, NAN), NAN, MISS),
        ((NAN, NAN), NAN, NAN),
        ((0.0, NAN), NAN, 0.0),
        ((-INF, NAN), NAN, -INF),
        ((-INF, HIT), HIT, -INF),
        ((HIT, MISS, NAN), HIT, MISS),
    ],
)
def test_three_valued_logic(parts, any_of, all_of):
    margins = np.array([parts, parts[::-1]], np.float32)
    np.testing.assert_array_equal(either(margins), [any_of, any_of])
    np.testing.assert_array_equal(both(margins), [all_of, all_of])


def test_all_and_any_take_each_parts_best_column():
    two = Fixed(np.array([[HIT, NAN], [MISS, NEAR], [NAN, MISS], [MISS, MISS]]), targets=("t/a", "t/b"))
    one = column(HIT, HIT, HIT, NEAR, name="one")
    every, some = All([two, one]), Any([two, one])
    assert every.targets == ("all(t,one)",)
    assert some.targets == ("any(t,one)",)
    np.testing.assert_array_equal(every(*FOUR), np.array([[HIT], [NEAR], [NAN], [MISS]], np.float32))
    np.testing.assert_array_equal(some(*FOUR), np.array([[HIT], [HIT], [HIT], [NEAR]], np.float32))
    assert every(*FOUR).dtype == np.float32


def test_combinations_nest_and_join_evidence():
    batch, trace = shown("no no no no 42", "no no no no", "42")
    objective = All([Repetition(), Any([Regex("x+"), Regex(r"\d+")])])
    assert objective.targets == (r"all(repetition,any(regex/x+,regex/\d+))",)
    assert objective.needs == {"text"}
    assert (objective(batch, trace)[:, 0] > 0).tolist() == [True, False, False]
    found = objective.evidence(batch, trace, 0, 0)
    assert found.variant == "'no'"
    assert found.signature == r"repetition: word + any(regex/x+,regex/\d+): regex/\d+: \d+"
    assert "4 times in a row; '42' matches" in found.words
    assert found.span == (0, 11)


def test_any_is_signed_by_the_first_part_that_hits():
    first, second = Regex("a"), Regex("[ab]+")
    batch, trace = shown("ab", "b", "c")
    objective = Any([first, second])
    assert [objective.evidence(batch, trace, row, 0).signature for row in (0, 1)] == [
        "regex/a: a",
        "regex/[ab]+: [ab]+",
    ]
    with pytest.raises(ValueError, match="no part"):
        objective.evidence(batch, trace, 2, 0)


def test_a_column_that_could_not_be_scored_is_no_evidence():
    part = Fixed([[NAN, -1, HIT]], targets=("t/a", "t/b", "t/c"))
    assert Any([part]).evidence(*shown("x"), 0, 0).signature == "t/c: t/c"
    assert All([part]).evidence(*shown("x"), 0, 0).signature == "t/c: t/c"


def test_combinations_take_detectors_without_promises():
    batch, trace = shown("ab", "b")
    objective = All([lambda b, t: [("a" in x) for x in t["text"]], Regex("b")])
    assert objective(batch, trace)[:, 0].tolist() == [1.0, -INF]
    with pytest.raises(UsageError, match="any\\(\\) is empty"):
        Any([])


def test_crash_signs_errors_without_their_numbers():
    batch, trace = shown(*"abc", crash=["", "ValueError: index 7 of 0x7f3a", "ValueError: index 512 of 0x11"])
    assert Crash()(batch, trace)[:, 0].tolist() == [-INF, 1, 1]
    found = [Crash().evidence(batch, trace, row, 0) for row in (1, 2)]
    assert found[0].signature == found[1].signature == "ValueError: index N of N"
    assert found[0].words == "ValueError: index 7 of 0x7f3a"


def test_a_panel_puts_columns_side_by_side_and_crash_last():
    two = Fixed(np.arange(8).reshape(4, 2), targets=["x/a", "x/b"], needs=["hidden", "crash"])
    panel = ObjectiveSet({"two": two, "mine": Fixed([True, False, True, False])})
    assert panel.targets == ("x/a", "x/b", "mine", "crash")
    assert panel.needs == {"hidden", "text"}
    margins = panel(*FOUR)
    assert margins.dtype == np.float32
    np.testing.assert_array_equal(
        margins, [[0, 1, 1, -INF], [2, 3, -INF, -INF], [4, 5, 1, -INF], [6, 7, -INF, -INF]]
    )


def test_names_that_were_given_twice_are_told_apart():
    panel = ObjectiveSet(
        {"a": column(0, name="x"), "b": column(0, name="x"), "crash": Fixed([0]), "x#2": Fixed([0])}
    )
    assert panel.targets == ("x", "x#2", "crash#2", "x#2#2", "crash")


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([True, False, np.True_, False], [1, -INF, 1, -INF]),
        ([True, None, 2, 0.5], [1, NAN, 2, 0.5]),
        (np.array([True, None, False, 1], object), [1, NAN, -INF, 1]),
        ([3, 0, -1, 2], [3, 0, -1, 2]),
        ((0.5, -0.5, NAN, -INF), [0.5, -0.5, NAN, -INF]),
        (np.array([[1], [2], [3], [4]], np.uint8), [1, 2, 3, 4]),
        ([1e-300, -1e-300, 1e300, -1e300], [np.finfo(np.float32).tiny, 0, INF, -INF]),
    ],
)
def test_margins_come_as_detectors_like_to_give_them(returned, expected):
    panel = ObjectiveSet({"d": Fixed(returned)})
    panel.check(*shown("x", crash=["E"]))
    np.testing.assert_array_equal(panel(*FOUR)[:, 0], np.array(expected, np.float32))
    assert panel.errors == {}


@pytest.mark.parametrize(
    ("detect", "words"),
    [
        (Fixed([1, 2, 3]), r"'d' returned shape \(3,\) for 4 rows; it must be \(4,\) or \(4, 1\)"),
        (Fixed(np.zeros((4, 3))), r"returned shape \(4, 3\) for 4 rows; it must be \(4,\) or \(4, 1\)"),
        (Fixed([0] * 4, targets=("a", "b")), r"shape \(4,\) .* must be \(4, 2\).*targets: a, b"),
        (Fixed(["a", "b", "c", "d"]), "returned <U1; return numbers or booleans"),
        (Fixed([None, "b", 1, 2]), r"returned \[None, 'b', 1\] ...; return numbers"),
        (Fixed(lambda b, t: np.array([len(x) for x in t["text"]]).squeeze()), r"shape \(\) for 1 rows"),
    ],
)
def test_a_wrong_shape_or_type_is_told_at_assembly_and_survived_later(detect, words):
    with pytest.raises(UsageError, match=words):
        ObjectiveSet({"d": detect}).check(*FOUR)
    panel = ObjectiveSet({"d": detect})
    rows = shown("x") if "1 rows" in words else FOUR
    assert np.isnan(panel(*rows)[:, 0]).all()
    assert "UsageError" in next(iter(panel.errors["d"]))


@pytest.mark.parametrize("detect", [3, Fixed([0], targets=())])
def test_what_cannot_be_an_objective_is_refused(detect):
    with pytest.raises(UsageError, match="objective 'd': "):
        ObjectiveSet({"d": detect})


def test_a_detector_that_raises_costs_only_its_own_columns():
    panel = ObjectiveSet(
        {"bad": Fixed(raising, targets=("p", "q")), "good": lambda b, t: [0.5, -1, -1, -1][: len(b)]}
    )
    with pytest.raises(UsageError, match=r"bad raises on every input: RuntimeError: no luck with d \(.*line"):
        panel.check(*FOUR)
    assert sum(panel.errors["bad"].values()) == 5  # the batch, and each row alone
    panel.errors.clear()
    for _ in range(3):
        margins = panel(*FOUR)
        assert np.isnan(margins[:, :2]).all()
        np.testing.assert_array_equal(margins[:, 2], np.array([0.5, -1, -1, -1], np.float32))
    assert panel.unscored == {"bad": 12, "good": 0}
    assert panel.blind == {"bad": "RuntimeError: no luck with a"}
    (text,) = panel.errors["bad"]
    assert panel.errors["bad"][text] == 3
    assert "in raising" in text
    assert "RuntimeError: no luck with a" in text


def test_only_a_few_different_tracebacks_are_kept():
    panel = ObjectiveSet({"bad": raising})
    for text in "abcdefa":
        panel(*shown(text))
    counts = panel.errors["bad"]
    assert sorted(counts.values()) == [1, 1, 2, 3]
    assert counts[OTHERS] == 3


def test_objectives_never_see_rows_that_crashed():
    seen = []

    def detect(batch, trace):
        seen.append((len(batch), list(trace["text"])))
        return np.ones(len(batch))

    panel = ObjectiveSet({"d": detect})
    margins = panel(*shown("a", "", "c", crash=["", "E: boom", ""]))
    np.testing.assert_array_equal(margins, [[1, -INF], [NAN, 1], [1, -INF]])
    assert seen == [(2, ["a", "c"])]
    margins = panel(*shown("", "", crash=["E", "E"]))
    np.testing.assert_array_equal(margins, [[NAN, 1], [NAN, 1]])
    panel.check(*shown("", crash=["E"]))
    assert len(seen) == 1
    assert panel.unscored == {"d": 3}
    assert panel.blind == {}
    assert panel.evidence(*shown("", crash=["E: 12"]), 0, 1).signature == "E: N"


def test_evidence_comes_from_the_objective_whose_column_it_is():
    panel = ObjectiveSet(
        {"a": Regex("x"), "b": Fixed(np.ones((1, 2)), targets=("t/a", "t/b")), "c": Regex("y+")}
    )
    rows = shown("xyy")
    assert panel.evidence(*rows, 0, 0).signature == "x"
    assert panel.evidence(*rows, 0, 2) == Evidence("t/b", "Says what it was told to say. (margin 1)")
    assert panel.evidence(*rows, 0, 3).span == (1, 3)


def test_a_detector_without_a_docstring_is_told_by_its_name():
    panel = ObjectiveSet({"short": lambda batch, trace: np.full(len(batch), 0.25)})
    assert panel.evidence(*FOUR, 2, 0) == Evidence("short", "short (margin 0.25)")


@pytest.mark.parametrize(
    "evidence",
    [
        lambda b, t, row, column: 1 / 0,
        lambda b, t, row, column: "bad",
        lambda b, t, row, column: Evidence(3, "bad"),
        lambda b, t, row: Evidence("bad", "bad"),
        lambda b, t, row, column: Evidence("bad", "bad", (1,)),
    ],
)
def test_evidence_that_fails_is_replaced_and_noted(evidence):
    panel = ObjectiveSet({"d": Fixed([1, 1, 1, 1], evidence=evidence)})
    found = panel.evidence(*FOUR, 1, 0)
    assert found.signature == "d"
    assert "its evidence raised" in found.words
    assert len(panel.errors["d"]) == 1


def test_spans_become_plain_numbers():
    evidence = Evidence("s", "w", (np.int64(1), np.int64(2)))
    panel = ObjectiveSet({"d": Fixed([1], evidence=lambda b, t, row, column: evidence)})
    span = panel.evidence(*shown("abc"), 0, 0).span
    assert json.dumps(span) == "[1, 2]"


def test_a_panel_goes_on_from_its_state():
    panel = ObjectiveSet({"bad": raising, "good": Fixed([1, NAN, NAN, 0])})
    panel(*FOUR)
    state = panel.state()
    assert json.loads(json.dumps(state)) == state
    fresh = ObjectiveSet({"bad": raising, "good": Fixed([1, NAN, NAN, 0])})
    fresh.restore(state)
    assert fresh.unscored == panel.unscored == {"bad": 4, "good": 2}
    assert fresh.blind == panel.blind == {"bad": "RuntimeError: no luck with a"}
    assert fresh.errors == panel.errors
    fresh(*FOUR)
    assert fresh.unscored == {"bad": 8, "good": 4}
    assert sum(fresh.errors["bad"].values()) == 2
    panel(*FOUR)
    assert sum(state["errors"]["bad"].values()) == 1, "states are copies"


def test_an_interrupt_is_no_error_of_a_detector():
    def interrupted(batch, trace):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ObjectiveSet({"d": interrupted})(*FOUR)


def test_a_panel_knows_which_objectives_never_scored_a_row_and_why():
    panel = ObjectiveSet({
        "half": Fixed([[1, NAN]] * 4, targets=("a", "b")), "late": lambda b, t: [NAN, NAN, NAN, -1],
        "fine": Regex("x"),
    })  # fmt: skip
    assert panel.blind == {}, "nothing was shown yet"
    panel(*FOUR)
    assert panel.blind == {"half": "NaN"}
    assert panel.unscored == {"half": 4, "late": 3, "fine": 0}


def test_a_channel_that_is_read_but_not_declared_is_named():
    def undeclared(batch, trace):
        return -trace["entropy"].mean(axis=1)

    def careful(batch, trace):
        try:
            return trace["entropy"]
        except KeyError:
            return trace.get("entropy", [1] * len(batch))

    panel = ObjectiveSet({"mine": undeclared, "careful": careful})
    assert panel(*FOUR)[:, 1].tolist() == [1] * 4
    assert panel.why(0) == "KeyError: \"mine reads the channel 'entropy'; name it in its needs\""
    assert "in undeclared" in next(iter(panel.errors["mine"]))


def test_what_was_raised_is_the_reason_until_the_next_call():
    fail = [True]
    panel = ObjectiveSet({"d": lambda b, t: 1 / 0 if fail[0] else [NAN] * 4})
    panel(*FOUR)
    assert panel.why(0) == "ZeroDivisionError: division by zero"
    fail[0] = False
    panel(*FOUR)
    assert panel.why(0) == "NaN"


def test_a_detector_that_exits_has_raised():
    def exits(batch, trace):
        raise SystemExit(7)

    panel = ObjectiveSet({"d": exits, "e": Fixed([1, 1, 1, 1], evidence=lambda *_: exits(*FOUR))})
    assert np.isnan(panel(*FOUR)[:, 0]).all()
    assert "SystemExit: 7" in next(iter(panel.errors["d"]))
    assert "its evidence raised SystemExit" in panel.evidence(*FOUR, 0, 1).words


@dataclass
class Configured:
    """Outputs longer than a limit."""

    limit: int = 2
    targets = "long"

    def __call__(self, batch, trace):
        return [len(text) - self.limit for text in trace["text"]]


def test_one_target_may_be_a_plain_string():
    panel = ObjectiveSet({"d": Configured()})
    assert panel.targets == ("long", "crash")
    assert panel(*shown("abc", "a"))[:, 0].tolist() == [1, -1]
    assert panel.evidence(*shown("abc"), 0, 0).words == "Outputs longer than a limit. (margin 1)"


def test_an_objective_that_scores_some_of_the_first_rows_is_only_noted():
    def fussy(batch, trace):
        if trace["text"][0] != "d":
            raise RuntimeError("not d")
        return [0.5] * len(batch)

    panel = ObjectiveSet({"fussy": fussy})
    panel.check(*shown("a", "b", "c", "d"))
    assert sum(panel.errors["fussy"].values()) == 4


@pytest.mark.parametrize("wrong", [{"needs": 5}, {"targets": (1, 2)}, {"grades": ([None],)}])
def test_what_a_detector_says_of_itself_must_be_texts(wrong):
    detector = type("Odd", (), {"__call__": lambda self, batch, trace: np.zeros(len(batch)), **wrong})
    with pytest.raises(UsageError, match="must be texts, not "):
        ObjectiveSet({"odd": detector()})
