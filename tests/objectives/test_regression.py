import numpy as np
import pytest

from helpers.rounding import rounded_pair
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import UsageError
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.regression import Regression
from lmfuzz.plugins.grammar import parse
from lmfuzz.types import Batch, Evidence

NAN, INF = np.nan, np.inf


def built(text):
    return OBJECTIVES.build(parse(text))


def shown(**channels):
    """Rows of channels; ``base_`` in front stands for base/."""
    trace = {
        name.replace("base_", "base/"): np.array(
            values, dtype=object if isinstance(values[0], str) else float
        )
        for name, values in channels.items()
    }
    return Batch.of([np.zeros(1, np.int32)] * len(trace["text"])), trace


class Fixed:
    """Says what the channel ``m`` says, in two columns."""

    needs, targets = frozenset({"m"}), ("f/a", "f/b")

    def __call__(self, batch, trace):
        return np.stack([trace["m"], -trace["m"]], axis=1)

    def evidence(self, batch, trace, row, column):
        return Evidence(f"s{column}", f"words {trace['m'][row]}", (1, 2))


@pytest.mark.parametrize(
    ("twin", "base", "margin"),
    [
        (2, -1, 2),
        (2, 0, 2),
        (2, -INF, 2),
        (-3, -1, -3),
        (2, 0.5, -0.5),
        (0.25, 4, -4),
        (-3, 0.5, -3),  # bad on the base, and far from it on the twin
        (-INF, -1, -INF),
        (NAN, -1, NAN),
        (2, NAN, NAN),
        (NAN, 1, NAN),
    ],
)
def test_bad_on_the_twin_and_fine_on_the_base(twin, base, margin):
    objective = Regression([Fixed()])
    rows = shown(text=["t"], base_text=["b"], m=[float(twin)], base_m=[float(base)])
    np.testing.assert_array_equal(objective(*rows)[:, 0], [margin])
    mirrored = shown(text=["t"], base_text=["b"], m=[-float(twin)], base_m=[-float(base)])
    np.testing.assert_array_equal(objective(*mirrored)[:, 1], [margin])
    assert objective.targets == ("regression/f/a", "regression/f/b")
    assert objective.needs == {"m", "base/m", "text", "base/text"}


def test_repetition_that_only_the_twin_writes():
    loop, plain = "no no no no no no", "and so it goes on"
    objective = built("regression(repetition)")
    rows = shown(text=[loop, plain, loop, plain], base_text=[plain, loop, loop, plain])
    assert (objective(*rows)[:, 0] > 0).tolist() == [True, False, False, False]
    assert np.isfinite(objective(*rows)).all()
    found = objective.evidence(*rows, 0, 0)
    assert (found.signature, found.variant) == ("word", "'no'")
    assert found.words == f"the word 'no' 6 times in a row; the base instead: {plain!r}"
    assert found.span == (0, 17)


def test_phrases_are_graded_on_the_twin_alone_and_judged_on_both():
    objective = built('regression(phrases:words=["axe","elm"],whole=false)')
    assert objective.targets == ("regression/phrases/axe", "regression/phrases/elm")
    assert objective.needs == {"text", "prompt", "base/text"}
    assert objective.grades == ({"phrase_gap/f/axe"}, {"phrase_gap/f/elm"})
    rows = shown(
        text=["an axe", "an axe", "an elk", "an axe"], base_text=["an elk", "an axe", "an axe", "an elk"],
        prompt=["", "", "", "axe"],
    )  # fmt: skip
    assert objective(*rows).tolist() == [[1, -INF], [-1, -INF], [-INF, -INF], [-INF, -INF]]
    rows[1]["phrase_gap/f/axe"] = np.array([0, 0, -2, 0], np.float32)
    assert objective(*rows)[:, 0].tolist() == [1, -1, -2, -1]


def test_numbers_that_only_the_twin_gets_wrong():
    objective = built("regression(nonfinite)")
    rows = shown(
        text=["", "", ""], base_text=["x" * 99, "", ""], magnitude=[INF, INF, 2],
        base_magnitude=[3, INF, INF],
        nonfinite=["logits, step 3", "logits, step 3", ""], base_nonfinite=["", "logits, step 2", "x"],
    )  # fmt: skip
    assert (objective(*rows)[:, 0] > 0).tolist() == [True, False, False]
    found = objective.evidence(*rows, 0, 0)
    assert found.signature == "logits"
    assert found.words == f"NaN or infinite: logits, step 3; the base instead: {'x' * 60 + '...'!r}"


def test_it_takes_detectors_without_promises():
    def short(batch, trace):
        return [len(text) < 3 for text in trace["text"]]

    objective = Regression([short])
    assert objective.targets == ("regression/short",)
    rows = shown(text=["ab", "abc", "a"], base_text=["abc", "a", "b"])
    assert objective(*rows)[:, 0].tolist() == [1, -INF, -1]


@pytest.mark.parametrize("parts", [[], [Fixed(), Fixed()]])
def test_it_is_made_of_one_part(parts):
    with pytest.raises(UsageError, match="exactly one objective"):
        Regression(parts)
    with pytest.raises(UsageError, match="combines others"):
        built("regression")


def test_a_real_twin_repeats_itself_where_its_base_does_not():
    pair = rounded_pair(40)
    parts = ("repetition:times=2,period=6,minimum=6,rounds=2", 'phrases:words=["the"],whole=false,echo=true')
    panel = ObjectiveSet({part: built(f"regression({part})") for part in parts})
    rng = np.random.default_rng(0)
    rows = Batch.of([rng.integers(len(pair.space.symbols), size=n) for n in rng.integers(5, 40, size=96)])
    trace = LocalExecutor(pair).run(rows, panel.needs | {"text"} | set().union(*panel.grades))
    margins = panel(rows, trace)
    assert panel.errors == {}
    assert not np.isnan(margins).any()
    for column, part in enumerate(map(built, parts)):
        on_twin = part(rows, trace)[:, 0] > 0
        of_base = {"text": trace["base/text"]}
        want = on_twin & ~(part(rows, of_base)[:, 0] > 0)
        np.testing.assert_array_equal(margins[:, column] > 0, want)
        assert 0 < want.sum() < on_twin.sum()
    row = int(np.flatnonzero(margins[:, 1] > 0)[0])
    assert panel.evidence(rows, trace, row, 1).words.startswith("the output holds 'the'; the base instead: ")
