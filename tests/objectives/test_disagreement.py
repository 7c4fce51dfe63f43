import numpy as np
import pytest

from helpers.rounding import rounded_pair
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.disagreement import Divergence, LabelDisagreement, TextDisagreement, kind_of
from lmfuzz.plugins.grammar import parse
from lmfuzz.types import PAD, Batch, take

NAN, INF = np.nan, np.inf


def batch(rows):
    return Batch.of([np.zeros(1, np.int32)] * rows)


def test_they_are_known_by_name():
    for text, kind in (
        ("disagreement", LabelDisagreement), ("parting:gap=0.5", TextDisagreement),
        ("divergence:measure=kl,over=mean,threshold=0.2,of=labels", Divergence),
    ):  # fmt: skip
        built = OBJECTIVES.build(parse(text))
        assert type(built) is kind
        assert ObjectiveSet({"x": built}).targets == (text.partition(":")[0], "crash")


# --- labels ---


def labelled(*pairs):
    """Rows of logits (base's, twin's)."""
    base, twin = zip(*pairs, strict=True)
    return batch(len(pairs)), {
        "base/logits": np.array(base, np.float32), "twin/logits": np.array(twin, np.float32),
    }  # fmt: skip


def test_a_disagreement_is_as_large_as_the_less_sure_of_both():
    rows = labelled(([3, 1, 0], [1, 1.5, 0]), ([3, 1, 0], [0, 5, 0]), ([0, 1, 4], [9, 0, 8.75]))
    assert LabelDisagreement()(*rows)[:, 0].tolist() == [0.5, 2, 0.25]


def test_agreement_is_graded_by_the_smaller_gap_of_both_to_a_second_class():
    rows = labelled(([3, 1, 0], [4, 1, 3.5]), ([3, 2.75, 0], [9, 1, 0]), ([1, 1, 0], [3, 1, 0]))
    assert LabelDisagreement()(*rows)[:, 0].tolist() == [-0.5, -0.25, 0]


def test_margins_do_not_jump_where_a_label_changes():
    start, end = np.array([2.0, 0, -1]), np.array([-1.0, 1, 0])
    shares = np.linspace(0, 1, 2001)[:, None]
    base = (1 - shares) * start + shares * end
    twin = base + np.array([0, 0.3, 0])
    margins = LabelDisagreement()(*labelled(*zip(base, twin, strict=True)))[:, 0]
    assert (margins > 0).tolist() == ((base.argmax(1) != twin.argmax(1)) & (margins != 0)).tolist()
    assert 100 < (margins > 0).sum() < 300
    assert np.abs(np.diff(margins)).max() < 0.005


def test_only_what_exceeds_the_noise_floor_is_a_disagreement():
    objective = LabelDisagreement()
    one, other = ([5, 1, 0], [2, 2.25, 0]), ([9, 5.5, 4], [2, 2.5, 0.125])
    objective.measure_noise(labelled(one)[1], labelled(other)[1])
    assert objective.noise == 0.5  # of the base's second class against its label; a common shift is none
    rows = labelled(([3, 1, 0], [1, 1.5, 0]), ([3, 1, 0], [1, 1.75, 0]), ([3, 1, 0], [4, 1, 0]))
    assert objective(*rows)[:, 0].tolist() == [0, 0.25, -2]


def test_rows_without_numbers_are_not_scored_and_make_no_noise():
    objective = LabelDisagreement()
    rows = labelled(
        ([3, NAN, 0], [3, 1, 0]), ([3, 1, 0], [NAN] * 3), ([INF, 1, 0], [3, 1, 0]), ([-INF] * 3, [1, 2, 3]),
        ([3, -INF, 0], [0, -INF, 1]), ([3, -INF, -INF], [3, -INF, -INF]),
    )  # fmt: skip
    np.testing.assert_array_equal(objective(*rows)[:, 0], [NAN, NAN, NAN, NAN, 1, -INF])
    objective.measure_noise(rows[1], rows[1])
    assert objective.noise == 0


def test_label_evidence_says_what_both_think_of_both_labels():
    logs = np.log([[[0.52, 0.47, 0.01], [0.48, 0.51, 0.01]], [[0.9, 0.04, 0.06], [0.7, 0.2, 0.1]]])
    rows = labelled(*logs)
    found = LabelDisagreement().evidence(*rows, 0, 0)
    assert found.signature == "0 -> 1"
    assert found.words == "base: 0 0.52, 1 0.47; twin: 1 0.51, 0 0.48"


# --- texts ---


def texts(*pairs):
    """Rows (gaps, leads) in nats, one number per step; the twin parts where its lead is first below 0."""
    gaps, leads = (np.array(part, np.float32) for part in zip(*pairs, strict=True))
    below = leads < 0
    parting = np.where(below.any(axis=1), below.argmax(axis=1), -1)
    size = gaps.shape
    base = np.array(["abcdefghij"[: size[1]]] * len(gaps), dtype=object)
    twin = np.array([t if p < 0 else t[:p] + "XYZ" for t, p in zip(base, parting, strict=True)], dtype=object)
    pairs = [["", ""] if p < 0 else [t[p], "X"] for t, p in zip(base, parting, strict=True)]
    return batch(len(gaps)), {
        "base_gap": gaps, "twin_lead": leads, "parting": parting, "base/text": base, "text": twin,
        "parting_symbols": np.array(pairs, dtype=object),
        "token_ends": np.arange(1, 1 + np.shape(gaps)[1], dtype=np.int32)[None].repeat(len(gaps), axis=0),
        "base/tokens": np.tile(np.arange(size[1]), (size[0], 1)),
    }  # fmt: skip


def test_a_parting_is_as_confident_as_the_base_was_there():
    rows = texts(([5, 3, 9], [4.5, -2, -9]), ([1.25, 3, 9], [-0.5, 1, 1]), ([0.5, 0.75, 7], [0.5, -1, -9]))
    sure, unsure = TextDisagreement(gap=0.5)(*rows)[:, 0], TextDisagreement(gap=1)(*rows)[:, 0]
    assert sure.tolist() == [2.5, 0.75, 0.25]
    assert unsure == pytest.approx([2, 0.25, np.log(0.75)])


def test_other_rows_are_graded_by_the_most_that_the_base_loses_of_its_gap():
    rows = texts(
        ([5, 3, 0.75], [4.5, 2.75, 0.5]),  # nowhere all of it: 0.5 at the first step
        ([5, 0.125, 9], [4.75, -1, -9]),  # all, unsure, at the second, but more at the first
        ([5, 0.5, 9], [4.75, -1, -9]),  # all, unsure, at the second, and that is more
        ([5, 3, 9], [6, 4, 9]),  # the twin is the surer one
        ([5, 0.125, 9], [0, -1, -9]),  # enough, but the twin does not part there
    )
    for gap in (1, 2):
        margins = TextDisagreement(gap)(*rows)[:, 0]
        want = gap * np.log(np.array([0.5, 0.25, 0.5, 1e-6]) / gap)
        assert margins[:4] == pytest.approx(want)
        assert -1e-5 < margins[4] < 0


def test_what_comes_after_the_parting_says_nothing():
    one, other = ([2, 0.5, 0.25], [2, -1, 0.25]), ([2, 0.5, 50], [2, -1, -50])
    np.testing.assert_array_equal(*(TextDisagreement()(*texts(row)) for row in (one, other)))


def test_partings_within_the_noise_floor_are_no_findings():
    objective = TextDisagreement(gap=1)
    _, one = texts(([5, 2, 2], [1, 1, 1]), ([5, 2, 2], [1, 1, 1]))
    _, other = texts(([5, 2.5, 2], [1, 0.75, 9]), ([5, 2, 2], [1, 1, 1]))
    other["base/tokens"][0, 1] = 7  # from there on the first row has another context
    objective.measure_noise(one, other)
    assert objective.noise == 0.5
    rows = texts(([1.5, 9], [-1, 9]), ([1.75, 9], [-1, 9]), ([3, 9], [-0.5, 9]), ([3, 9], [-0.75, 9]))
    margins = objective(*rows)[:, 0]
    assert margins[[1, 3]].tolist() == [0.25, 1.5]
    assert ((margins[[0, 2]] > -1e-5) & (margins[[0, 2]] < 0)).all()


def test_a_step_without_numbers_up_to_the_parting_leaves_a_row_unscored():
    rows = texts(([5, 3, 1], [NAN, -2, 1]), ([5, NAN, 1], [1, -2, 1]), ([5, 3, NAN], [1, -2, NAN]),
                 ([5, 3, NAN], [1, 2, 1]), ([5, 3, NAN], [1, 2, NAN]))  # fmt: skip
    rows[1]["base/tokens"][4, 2] = PAD  # ended
    np.testing.assert_allclose(
        TextDisagreement(8)(*rows)[:, 0], [NAN, NAN, 8 * np.log(0.5), NAN, 8 * np.log(0.5)]
    )


def test_kinds_of_symbols():
    texts = ("", " ", "\n", " \n", "e", " the", "é", "7", " 42", ",", " \u201c", "state")
    kinds = "end of text,blank,line end,line end,letter,word,letter,digit,digit,mark,mark,word"
    assert [kind_of(text) for text in texts] == kinds.split(",")


def test_parting_evidence_shows_both_texts():
    rows = texts(([5, 3, 9], [1, -2, -9]))
    found = TextDisagreement().evidence(*rows, 0, 0)
    assert (found.signature, found.variant) == ("letter -> letter", "'b' -> 'X'")
    assert found.words == (
        "at step 2 the base writes 'b', ahead by 3.00 nats: 'abc'; the twin 'X', by 2.00: 'aXYZ'"
    )
    assert found.span == (1, 2)
    rows[1]["text"][0] = "a"  # it stopped
    assert TextDisagreement().evidence(*rows, 0, 0).span is None


def test_long_texts_are_shown_around_the_parting():
    rows = texts(([5, 3], [1, -2]))
    rows[1]["base/text"][0], rows[1]["text"][0] = "." * 99 + "abc" * 30, "." * 99 + "xyz" * 30
    rows[1]["token_ends"] = np.array([[99, 102]])  # a token of several characters, of which the first differ
    found = TextDisagreement().evidence(*rows, 0, 0)
    assert "'" + "." * 16 + "abcabcabcabcabca'" in found.words
    assert "'" + "." * 16 + "xyzxyzxyzxyzxyzx'" in found.words
    assert found.span == (99, 102)


# --- divergence ---


def diverging(*rows, ended=0):
    tokens = np.tile(np.arange(len(rows[0])), (len(rows), 1))
    steps = np.array(rows, np.float32)
    text = "abcdefghij"[: len(rows[0])]
    if ended:
        tokens[:, -ended:], steps[:, -ended:], text = PAD, NAN, text[:-ended]
    shown = np.array([text] * len(rows), dtype=object)
    return batch(len(rows)), {"js": steps, "kl": 2 * steps, "base/tokens": tokens, "base/text": shown}


@pytest.mark.parametrize("ended", [0, 1])
def test_divergence_is_graded_as_a_share_of_the_threshold(ended):
    rows = diverging([0, 0.5, 0.1, 0], [0, 0.25, 0.05, 0], [0, 0.125, 0, 0], [0, 0, 0, 0], ended=ended)
    margins = Divergence(threshold=0.25)(*rows)[:, 0]
    assert margins == pytest.approx([1 / 3, 0, -1 / 3, -1], abs=1e-6)
    doubled = Divergence(threshold=0.25, measure="kl")(*rows)[:, 0]
    assert (doubled[:2] > 0).all()
    assert doubled[2] == pytest.approx(0)
    mean = Divergence(threshold=0.1, over="mean")(*rows)[:, 0]
    means = np.array([0.6, 0.3, 0.125, 0]) / (4 - ended)
    np.testing.assert_allclose(mean, (means - 0.1) / (means + 0.1), rtol=1e-5, atol=1e-7)


def test_divergence_below_the_noise_floor_is_none():
    objective = Divergence(threshold=0.25)
    _, one = diverging([0.1, 0.2, 0.2], [0.1, 0.1, 0.1])
    _, other = diverging([0.1, 0.325, 9], [0.1, 0.1, 0.1])
    other["base/tokens"][0, 1] = 7
    objective.measure_noise(one, other)
    assert objective.noise == pytest.approx(0.125)
    margins = objective(*diverging([0.375, 0, 0], [0.5, 0, 0], [0.125, 0, 0]))[:, 0]
    assert margins == pytest.approx([0, 0.2, -1], abs=1e-6)


def test_a_step_without_a_divergence_is_unscored_unless_another_hits():
    rows = diverging([0, NAN, 0.5], [0, NAN, 0.1], [NAN] * 3, [0, INF, 0])
    for over, want in (("max", [1 / 3, NAN, NAN, 1]), ("mean", [0, NAN, NAN, 1])):
        margins = Divergence(threshold=0.25, over=over)(*rows)[:, 0]
        np.testing.assert_allclose(margins[1:], want[1:], atol=1e-6)
    assert Divergence(threshold=0.25)(*rows)[0, 0] == pytest.approx(1 / 3)


def test_divergence_of_labels_is_that_of_their_probabilities():
    p, q = np.array([0.7, 0.2, 0.1, 0.0]), np.array([0.3, 0.3, 0.3, 0.1])
    with np.errstate(divide="ignore"):
        rows = labelled((np.log(p), np.log(q)), (np.log(q) + 3, np.log(q)), (np.log(q), [NAN, 1, 2, 3]))
    kl = (p[:3] * np.log(p[:3] / q[:3])).sum()
    m = (p + q) / 2
    js = ((p[:3] * np.log(p[:3] / m[:3])).sum() + (q * np.log(q / m)).sum()) / 2
    for measure, want in (("kl", kl), ("js", js)):
        objective = Divergence(threshold=0.05, measure=measure, of="labels")
        assert objective.needs == {"base/logits", "twin/logits"}
        margins = objective(*rows)[:, 0]
        assert margins[0] == pytest.approx((want - 0.05) / (want + 0.05), rel=1e-5)
        assert margins[1] == pytest.approx(-1, abs=1e-5)
        assert np.isnan(margins[2])
        found = objective.evidence(*rows, 0, 0)
        assert found.signature == "0 -> 0"
        assert found.words.startswith(f"{measure} {want:.3g} nats; base: 0 0.70, 1 0.20; twin: 0 0.30, ")
        objective.measure_noise(take(rows[1], slice(0, 1)), take(rows[1], slice(1, 2)))
        assert objective.noise == pytest.approx(want, rel=1e-4)


def test_divergence_evidence_says_where():
    rows = diverging([0, 0.5, 0.25], ended=0)
    found = Divergence().evidence(*rows, 0, 0)
    assert (found.signature, found.variant, found.span) == ("js", "at 'b'", None)
    assert found.words == "js 0.5 nats at step 2, where the base writes 'b' after 'a'"
    mean = Divergence(over="mean", measure="kl").evidence(*rows, 0, 0)
    assert (mean.signature, mean.words) == ("mean kl", "kl 0.5 nats on average over the base's output")
    rows[1]["base/text"][0] = "tokens of several characters"
    assert Divergence().evidence(*rows, 0, 0).signature == "js"


# --- a real pair ---


@pytest.fixture(scope="module")
def pair():
    return rounded_pair(40)


def test_a_real_pair_is_scored_alike_in_any_batch(pair):
    panel = ObjectiveSet(
        {"parting": TextDisagreement(0.25), "js": Divergence(0.2), "kl": Divergence(0.5, "kl")}
    )
    rng = np.random.default_rng(0)
    rows = Batch.of([rng.integers(len(pair.space.symbols), size=n) for n in rng.integers(5, 40, size=64)])

    def shown(rows):
        return {**pair.run(rows, panel.needs | {"text"}), "crash": np.full(len(rows), "", dtype=object)}

    whole = shown(rows)
    parts = [shown(rows[i : i + 5]) for i in range(0, 64, 5)]
    panel.measure_noise(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})
    assert all(0 < noise < 1e-3 for noise in panel.noise.values())
    margins = panel(rows, whole)
    np.testing.assert_allclose(np.concatenate([panel(rows[i : i + 5], part) for i, part in
                               zip(range(0, 64, 5), parts, strict=True)]), margins, atol=1e-3)  # fmt: skip
    assert not np.isnan(margins).any()
    for column in range(3):
        hits = np.flatnonzero(margins[:, column] > 0)
        assert 0 < len(hits) < 64
        for row in hits.tolist():
            assert panel.evidence(rows, whole, row, column).words
    assert panel.errors == {}
    parted = np.flatnonzero(margins[:, 0] > 0)
    at = whole["parting"][parted]
    assert (whole["base_gap"][parted, at] > 0.25).all()
    for row, step in zip(parted.tolist(), at.tolist(), strict=True):
        found = panel.evidence(rows, whole, row, 0)
        assert found.span == (step, step + 1)
        assert found.variant == f"'{whole['base/text'][row][step]}' -> '{whole['text'][row][step]}'"
