"""What every registered objective promises, whatever it looks for.

A new one needs a line in SHOWN: how it is written, and what is shown of a row that hits and of one that
does not.
"""

import json
from dataclasses import asdict

import numpy as np
import pytest

from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.detectors import as_detector, named
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import ForTexts, NeedsNoiseFloor
from lmfuzz.types import PAD, Batch, Evidence, take


def shown(hit="no", miss="yes", **channels):
    """What a model of characters shows of two rows, the second of which ends; ``channels`` win."""
    texts = (hit, miss)
    steps = np.full((2, max(map(len, texts))), PAD, np.int32)
    for row, text in zip(steps, texts, strict=True):
        row[: len(text)] = np.arange(len(text))
    written = steps != PAD
    return {
        "text": np.array(texts, object), "prompt": np.array(["", ""], object), "tokens": steps,
        "lead": np.array(["", ""], object),
        "token_ends": np.where(written, steps + 1, PAD), "ended": np.array([False, True]),
        "entropy": np.where(written, 1.0, np.nan).astype(np.float32),
        "end_logprob": np.where(written, -9.0, np.nan).astype(np.float32),
        "crash": np.array(["", ""], object), **channels,
    }  # fmt: skip


def pair(**channels):
    """What a model and its twin show, whose base writes the same fine text on both rows."""
    text = np.array(["fine", "fine"], object)
    tokens = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    return shown("find", "fine", **{"base/text": text, "base/tokens": tokens, **channels})


LOOP, CALM = "never never never never never", "a calm text"
LEADS = np.array([[4, 4, 4, -4], [4, 4, 4, 4]], np.float32)
SHOWN = {
    "phrases": ('phrases:words=["zounds"]', shown("oh zounds", CALM)),
    "regex": ("regex:pattern=zo+u", shown("oh zounds", CALM)),
    "format": ('format:pattern="[a-z ]+"', shown("NOT 1!", CALM)),
    "echo": ("echo:secret=s3cr3t99", shown("it is s3cr3t99", CALM)),
    "memorised": ("memorised:folder={play},tokens=9", shown("hear me speak", CALM)),
    "never_ends": ("never_ends", shown("no", "ok", end_logprob=np.array([[-9, -9], [-9, -0.1]], np.float32))),
    "repetition": ("repetition", shown(LOOP, CALM)),
    "nonfinite": (
        "nonfinite",
        shown(magnitude=np.array([np.inf, 2]), nonfinite=np.array(["logits, step 1", ""], object)),
    ),
    "entropy": ("entropy", shown(LOOP, LOOP, entropy=np.repeat(np.float32([[0.01], [1.5]]), 29, axis=1))),
    "disagreement": (
        "disagreement",
        shown(**{
            "base/logits": np.array([[3, 1], [3, 1]], np.float32),
            "twin/logits": np.array([[1, 3], [3, 1]], np.float32),
        }),
    ),
    "parting": (
        "parting",
        pair(
            base_gap=np.full((2, 4), 5, np.float32), twin_lead=LEADS, parting=np.array([3, -1]),
            parting_symbols=np.array([["e", "d"], ["", ""]], object),
        ),
    ),
    "divergence": ("divergence", pair(js=np.array([[0, 0, 0, 0.5], [0, 0, 0, 0.01]], np.float32))),
    "regression": (
        "regression(repetition)",
        shown(LOOP, LOOP, **{"base/text": np.array([CALM, LOOP], object)}),
    ),
    "all": ("all(repetition, regex:pattern=never)", shown(LOOP, CALM)),
    "any": ("any(repetition, regex:pattern=zounds)", shown(LOOP, CALM)),
}  # fmt: skip
every_objective = pytest.mark.parametrize("name", OBJECTIVES.table)


@pytest.fixture
def play(tmp_path):
    (tmp_path / "play.txt").write_text("Before we proceed any further, hear me speak.\n")
    return tmp_path / "play.txt"


def made(name, play):
    """The objective, two rows, and what is shown of them, locked."""
    text, trace = SHOWN[name]
    for array in trace.values():
        array.flags.writeable = False
    return OBJECTIVES.build(parse(text.format(play=play))), Batch.of([np.arange(2)] * 2), trace


@every_objective
def test_it_says_what_it_needs_and_what_its_columns_are_about(name, play):
    objective, _, trace = made(name, play)
    assert isinstance(objective.needs, frozenset)
    assert objective.needs <= trace.keys()
    assert objective.targets
    assert all(isinstance(target, str) for target in objective.targets)
    assert len(as_detector(objective).grades) == len(objective.targets)


@every_objective
def test_it_hits_the_bad_row_and_not_the_other_by_the_channels_that_it_names(name, play):
    objective, batch, trace = made(name, play)
    only = {channel: trace[channel] for channel in objective.needs | {"crash"}}
    margins = as_detector(objective, name)(batch, only)
    assert margins.dtype == np.float32
    assert margins.shape == (2, len(objective.targets))
    assert (margins > 0).any(axis=1).tolist() == [True, False]
    assert not np.isnan(margins).any()


@every_objective
def test_a_row_is_judged_by_itself(name, play):
    objective, batch, trace = made(name, play)
    detector = as_detector(objective, name)
    margins = detector(batch, trace)
    for rows in ([1, 0], [0], [1]):
        np.testing.assert_array_equal(detector(batch[rows], take(trace, rows)), margins[rows])


@every_objective
def test_its_evidence_is_text_with_a_span_in_the_output_and_can_be_stored(name, play):
    objective, batch, trace = made(name, play)
    detector = as_detector(objective, name)
    column = int(np.nanargmax(detector(batch, trace)[0]))
    found = detector.evidence(batch, trace, 0, column)
    assert isinstance(found, Evidence)
    assert found.signature
    assert found.words
    json.dumps(asdict(found))
    if found.span is not None:
        start, stop = found.span
        assert 0 <= start < stop <= len(str(trace["text"][0]))


@every_objective
def test_a_campaign_s_set_takes_it_and_one_for_texts_is_refused_where_there_are_none(name, play):
    objective, batch, trace = made(name, play)
    panel = ObjectiveSet({name: objective})
    panel.check(batch, trace)
    assert not panel.errors
    if isinstance(objective, ForTexts):
        with pytest.raises(Exception, match=f"^{name} looks at texts, but this model takes numbers"):
            panel.must_fit(BoxSpace((3,)), None, 50)
    else:
        panel.must_fit(BoxSpace((3,)), None, 50)


@every_objective
def test_a_noise_floor_that_it_needs_is_measured_and_makes_it_slower_to_hit(name, play):
    objective, batch, trace = made(name, play)
    assert isinstance(objective, NeedsNoiseFloor) is hasattr(objective, "measure_noise")
    if isinstance(objective, NeedsNoiseFloor):
        objective.measure_noise(trace, trace)
        assert objective.noise == 0
        before = objective(batch, trace)[0, 0]
        objective.noise = 1e6
        assert objective(batch, trace)[0, 0] < before


# --- functions of the output text ---


def rude(text, least=1):
    """The output is rude.

    More words.
    """
    return text.count("zounds") >= least


OUTPUTS = shown("zounds, zounds", "fie")
TWO = Batch.of([np.arange(2)] * 2)


def judged(detect, trace=OUTPUTS):
    return as_detector(detect)(TWO, trace)[:, 0].tolist()


def test_a_function_of_a_text_is_an_objective():
    assert judged(rude) == [1, -np.inf]
    assert judged(lambda text: "zounds" in text) == [1, -np.inf]
    assert judged(lambda text: len(text) - 5) == [9, -2]
    assert judged(lambda text: 0.25 if "fie" in text else False) == [-np.inf, 0.25]
    scored = judged(lambda text: True if "zounds" in text else None)
    assert scored[0] == 1
    assert np.isnan(scored[1])


def test_its_evidence_is_its_name_and_its_docstring_s_first_line():
    panel = ObjectiveSet({"rude": rude})
    assert panel.targets == ("rude", "crash")
    assert panel.needs == {"text"}
    assert panel.evidence(TWO, OUTPUTS, 0, 0) == Evidence("rude", "The output is rude.")


def test_lambdas_are_called_lambda():
    panel = ObjectiveSet(named([("", lambda text: "zounds" in text), ("", lambda text: "fie" in text)]))
    assert panel.targets == ("lambda", "lambda#2", "crash")
    np.testing.assert_array_equal(
        panel(TWO, OUTPUTS)[:, :2], np.array([[1, -np.inf], [-np.inf, 1]], np.float32)
    )
    assert panel.evidence(TWO, OUTPUTS, 1, 1) == Evidence("lambda#2", "lambda#2")


def test_objects_that_are_called_with_a_text_may_say_more():
    class Shouting:
        """It shouts."""

        def __call__(self, text):
            return text.isupper()

    assert judged(Shouting(), shown("LOUD", "low")) == [1, -np.inf]
    assert as_detector(Shouting()).name == "shouting"


def test_it_is_taken_from_a_file_with_parameters(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text('def rude(text, least=1):\n    """Rude."""\n    return text.count("zounds") >= least\n')
    for parameters, margins in (("", [1, -np.inf]), (":least=2", [1, -np.inf]), (":least=3", [-np.inf] * 2)):
        assert judged(OBJECTIVES.build(parse(f"{file}:rude{parameters}"))) == margins


@pytest.mark.parametrize("wrong", [lambda text: "yes", lambda text: [text], lambda text: object()])
def test_what_is_neither_a_truth_nor_a_number_is_refused(wrong):
    with pytest.raises(Exception, match="objective 'lambda' returned "):
        judged(wrong)


def test_what_needs_two_arguments_is_given_batch_and_trace():
    assert judged(lambda batch, trace: [len(text) > 5 for text in trace["text"]]) == [1, -np.inf]
    assert judged(lambda batch, trace, least=5: [len(t) > least for t in trace["text"]]) == [1, -np.inf]
