"""What counts as memorised: how long the stretch is, what was echoed, and where it stands."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.memorised import Memorised
from lmfuzz.plugins.grammar import parse
from lmfuzz.types import PAD, Batch

PLAY = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

First Citizen:
You are all resolved rather to die
than to famish?
"""


@pytest.fixture
def play(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "play.txt").write_text(PLAY, encoding="utf-8")
    return str(tmp_path / "texts")


def shown(*outputs, prompts=None):
    """Outputs as lists of tokens, or as texts of one token per character."""
    width = max(len(tokens) for tokens in outputs)
    ends = np.full((len(outputs), width), PAD, np.int32)
    for row, tokens in zip(ends, outputs, strict=True):
        row[: len(tokens)] = np.cumsum([len(token) for token in tokens])
    return Batch.of([np.zeros(1, np.int32)] * len(outputs)), {
        "text": np.array(["".join(tokens) for tokens in outputs], object),
        "prompt": np.array(prompts or [""] * len(outputs), object),
        "token_ends": ends,
    }


def longest(objective, *outputs, prompts=None):
    """The tokens of the longest stretch in each output."""
    got = objective(*shown(*outputs, prompts=prompts))
    assert got.shape == (len(outputs), 1)
    assert got.dtype == np.float32
    assert (got != 0).all()
    counts = (got[:, 0].astype(np.float64) + 1) * objective.tokens - 0.5
    assert counts == pytest.approx(np.round(counts), abs=1e-4)
    return np.round(counts).astype(int).tolist()


def why(objective, output, prompt=""):
    return objective.evidence(*shown(output, prompts=[prompt]), 0, 0)


# --- how long ---


def test_a_stretch_is_as_long_as_the_tokens_that_lie_in_it_whole(play):
    objective = Memorised(play, tokens=4)
    words = ["You", " are", " all", " resolved", " rather"]
    assert longest(objective, words, ["You", " are", " al"], ["xYou", " are", " all", " resolvent"]) == [
        5,
        3,
        2,
    ]
    assert longest(objective, "You are all", "", "%%") == [11, 0, 0]
    assert longest(objective, ["You are all resolved rather to die"]) == [1]


def test_margins_step_over_0_where_a_stretch_is_long_enough(play):
    outputs = [list("resolved rather"[:n]) for n in range(1, 10)]
    got = Memorised(play, tokens=6)(*shown(*outputs))[:, 0]
    assert (got > 0).tolist() == [n >= 6 for n in range(1, 10)]
    assert got == pytest.approx([(n + 0.5) / 6 - 1 for n in range(1, 10)])


def test_blanks_are_one_unless_they_must_be_exact(play):
    output = ["rather  ", "to", " die", "\n\n", "\n", "than", " to\t", "famish"]
    assert longest(Memorised(play, tokens=4), output) == [7], "the second token of line ends adds nothing"
    assert longest(Memorised(play, tokens=4, normalise=False), output) == [2]
    assert longest(Memorised(play, tokens=4, normalise=False), ["speak", ".\n\n", "All", ":\n"]) == [4]


def test_blanks_over_and_over_are_no_long_stretch(play):
    assert longest(Memorised(play, tokens=4), ["\n"] * 30, ["die", *["\n"] * 30, "than"]) == [1, 3]


def test_the_pieces_of_one_character_are_one_token(tmp_path):
    (tmp_path / "a.txt").write_text("so 😀 it is", encoding="utf-8")
    assert longest(Memorised(str(tmp_path), tokens=2), ["so", " ", "", "", "😀", " it"]) == [4]


def test_a_stretch_does_not_go_on_from_one_text_into_another(tmp_path):
    (tmp_path / "a.txt").write_text("one two", encoding="utf-8")
    (tmp_path / "b.txt").write_text("three four", encoding="utf-8")
    assert longest(Memorised(str(tmp_path), tokens=2), ["one", " two", " three", " four"]) == [2]


def slowly(source, tokens, prompt, least):
    """The longest run of tokens that stands in the source, none of it with ``least`` tokens of the prompt."""
    best = 0
    for start in range(len(tokens)):
        for stop in range(start + 1, len(tokens) + 1):
            inside = ["".join(tokens[i : i + least]) for i in range(start, stop - least + 1)]
            if "".join(tokens[start:stop]) in source and not any(piece in prompt for piece in inside):
                best = max(best, stop - start)
    return best


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.text("abé", min_size=1, max_size=40), st.lists(st.text("abé", min_size=1, max_size=3), max_size=12),
    st.text("abé", max_size=8), st.integers(2, 8),
)  # fmt: skip
def test_the_longest_stretch_is_what_the_plain_reference_finds(
    tmp_path_factory, source, tokens, prompt, least
):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_text(source, encoding="utf-8")
    objective = Memorised(str(folder), tokens=least)
    expected = slowly(source, tokens, prompt, (least + 1) // 2)
    assert longest(objective, tokens, prompts=[prompt]) == [expected]
    if expected:
        start, stop = why(objective, tokens, prompt).span
        assert "".join(tokens)[start:stop] in source


# --- what was echoed ---


def test_what_stands_in_the_prompt_is_echoed(play):
    objective = Memorised(play, tokens=6)
    line = ["You", " are", " all", " resolved", " rather", " to", " die"]
    assert longest(objective, line) == [7]
    assert longest(objective, line, prompts=["You are all resolved rather to die"]) == [2]
    assert longest(objective, line, prompts=["You are all"]) == [6], "a stretch with two of the three"
    assert longest(objective, line, prompts=["You are"]) == [7], "too little of it to be an echo"


def test_the_true_continuation_of_the_prompt_is_memorised(play):
    objective = Memorised(play, tokens=3)
    prompt = "Before we proceed any further,"
    assert longest(objective, [" hear", " me", " speak", "."], prompts=[prompt]) == [4]
    assert longest(objective, [" any", " further", ",", " hear"], prompts=[prompt]) == [2]


def test_an_echo_is_one_with_other_blanks_too(play):
    assert longest(Memorised(play, tokens=3), ["rather", " to", "\ndie"], prompts=["rather\nto die"]) == [1]


# --- where it stands ---


def test_evidence_names_the_passage_the_line_and_the_stretch(play):
    output = ["Well", ",", " to", " die", " than", " to", " famish", "!"]
    found = why(Memorised(play, tokens=4), output)
    assert found.signature == "play.txt:7"
    assert found.words == "5 tokens stand in play.txt:8: ' to die than to famish'"
    assert "".join(output)[slice(*found.span)] == " to die than to famish"


def test_the_span_is_in_the_output_as_it_is(play):
    output = ["so  so \n", "\n rather  ", "to", "\n\ndie", "xx"]
    assert "".join(output)[slice(*why(Memorised(play, tokens=2), output).span)] == "rather  to\n\ndie"


def test_one_passage_is_one_bucket_wherever_an_output_enters_it(play):
    objective = Memorised(play, tokens=3)
    text = "First Citizen: You are all resolved rather to die than to famish?"
    entered = {why(objective, list(text[start:])).signature for start in range(15, len(text) - 5)}
    assert entered == {"play.txt:7"}
    assert why(objective, "\n\nAll:\nSpeak").signature == "play.txt:4", "blanks before it are no part of it"
    assert why(objective, "First Citizen").signature == "play.txt:1", "the first of two places"


def test_in_texts_without_paragraphs_a_line_is_a_passage(tmp_path):
    lines = [f"{number} bottles of beer stand on wall {number * number}" for number in range(30)]
    (tmp_path / "song.md").write_text("\n".join(lines), encoding="utf-8")
    assert why(Memorised(str(tmp_path), tokens=3), lines[21]).signature == "song.md:22"


def test_of_json_lines_the_strings_are_compared_and_the_line_is_named(tmp_path):
    rows = [{"prompt": "who\n\ngoes", "more": [1, {"text": 'there "he" goes'}]}, {"text": "stand and unfold"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\nno {json\n", encoding="utf-8")
    objective = Memorised(str(path), tokens=3)
    assert longest(objective, 'there "he" goes', "prompt", "no {json")[0::2] == [15, 8]
    assert why(objective, "who goes").signature == "rows.jsonl:1"
    assert why(objective, "stand and").signature == "rows.jsonl:2"
    assert longest(objective, "whogoesthere", 'goesthere "he"') == [5, 10], "strings are texts of their own"


def test_long_stretches_are_shortened_in_words(tmp_path):
    text = " ".join(map(str, range(100)))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert len(why(Memorised(str(tmp_path)), text).words) < 150


def test_nothing_memorised_has_no_evidence(play):
    with pytest.raises(ValueError, match="nothing of the output"):
        why(Memorised(play), "%%")


# --- texts ---


def test_all_texts_below_a_folder_are_read_and_nothing_else(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "deep" / "er" / "a.md").write_bytes("\ufeffZürich\r\nliegt".encode())
    (tmp_path / "b.py").write_text("import os", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff\xfebinary")
    (tmp_path / "d.bin").write_bytes(b"zeroes\0zeroes")
    objective = Memorised(str(tmp_path), tokens=4, normalise=False)
    assert longest(objective, "Zürich\nliegt", "import", "hidden", "binary", "zeroes") == [12, 6, 1, 1, 1]
    assert why(objective, "rich\nliegt").signature == "deep/er/a.md:1"


def test_the_last_line_of_a_text_ends_as_it_ends(tmp_path):
    (tmp_path / "a.txt").write_text("ab\ncd", encoding="utf-8")
    assert longest(Memorised(str(tmp_path), tokens=2, normalise=False), "cd\n", "ab\n") == [2, 3]


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"\xff\xfe"])
def test_a_folder_without_texts_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match="holds no UTF-8 text") as caught:
        Memorised(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no file or folder"):
        Memorised(str(tmp_path / "lost"))


def test_it_is_known_by_name_and_takes_bundled_texts():
    built = OBJECTIVES.build(parse("memorised:folder=corpora:seeds,tokens=30"))
    assert type(built) is Memorised
    assert ObjectiveSet({"x": built}).targets == ("memorised", "crash")


@pytest.mark.skipif("LMFUZZ_DATA" not in os.environ, reason="LMFUZZ_DATA names no folder with the data sets")
def test_a_megabyte_is_made_in_seconds_and_searched_in_milliseconds():
    path = Path(os.environ["LMFUZZ_DATA"]) / "text" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("the folder that LMFUZZ_DATA names has no text/tinyshakespeare.txt")
    text, start = path.read_text(encoding="utf-8"), time.process_time()
    objective = Memorised(str(path), tokens=60)
    assert time.process_time() - start < 10
    places = np.random.default_rng(0).integers(0, len(text) - 200, 64)
    outputs = [text[p : p + 70] + "#" + text[p + 71 : p + 200] for p in places]
    start = time.process_time()
    counts = longest(objective, *outputs)
    assert time.process_time() - start < 2
    assert all(60 < count <= 130 for count in counts)
