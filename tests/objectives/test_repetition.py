import re
from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.objectives.repetition import Repetition, canonical_period
from lmfuzz.types import Batch


def shown(*texts):
    return Batch.of([np.zeros(1, np.int32)] * len(texts)), {"text": np.array(texts, dtype=object)}


def margins(objective, *texts):
    got = objective(*shown(*texts))
    assert got.shape == (len(texts), 1)
    assert got.dtype == np.float32
    return got[:, 0]


def why(text, objective=None):
    objective = objective or Repetition()
    assert margins(objective, text)[0] > 0
    return objective.evidence(*shown(text), 0, 0)


def slowly(text, times, period, minimum, rounds, blanks):
    """Whether the output repeats itself, said as plainly as can be."""
    words = [re.sub("['\"\u2019]", "", word) for word in re.findall("[\\w'\"\u2019]+", text.lower())]
    if any(len(list(run)) >= times for _, run in groupby(filter(None, words))):
        return True
    for p in range(1, period + 1):
        for start in range(len(text)):
            for stop in range(start + max(rounds * p, minimum, p + 1), len(text) + 1):
                stretch = text[start:stop]
                if stretch.isspace() and not blanks:
                    continue
                if all(stretch[i] == stretch[i + p] for i in range(len(stretch) - p)):
                    return True
    return False


looping = st.builds(
    lambda before, block, rounds, after: before + block * rounds + after,
    st.text("ab '\0", max_size=4), st.text("abC \n,'\"", min_size=1, max_size=5),
    st.integers(0, 9), st.text("ab \ud800é", max_size=4),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(looping, min_size=1, max_size=4),
    st.integers(2, 4), st.integers(0, 7), st.integers(0, 12), st.integers(2, 4), st.booleans(),
)  # fmt: skip
@example(["", "a"], 2, 3, 0, 2, True)
@example(["ab\0\0", "aaaa"], 4, 4, 4, 2, False)
@example(["a   a   a", "x" + " " * 9], 4, 4, 4, 2, False)
def test_a_hit_is_what_the_plain_reference_calls_one(texts, times, period, minimum, rounds, blanks):
    settings = {"times": times, "period": period, "minimum": minimum, "rounds": rounds, "blanks": blanks}
    objective = Repetition(**settings)
    got = margins(objective, *texts)
    assert (got != 0).all()
    assert np.isfinite(got).all()
    for row, text in enumerate(texts):
        assert (got[row] > 0) == slowly(text, **settings), text
        assert got[row] == margins(objective, text)[0], "its neighbours in the batch must not matter"
        if got[row] > 0:
            start, stop = objective.evidence(*shown(*texts), row, 0).span
            assert slowly(text[start:stop], **settings), "the span must hold the repetition"


blocks = st.text("ab ", min_size=1, max_size=8)


@given(blocks, st.integers(0, 7), st.integers(1, 4))
def test_the_canonical_period_is_one_for_all_rotations_and_repeats(block, turn, repeats):
    turn %= len(block)
    canonical = canonical_period(block)
    assert canonical_period((block[turn:] + block[:turn]) * repeats) == canonical
    assert all(canonical <= canonical[i:] + canonical[:i] for i in range(len(canonical)))


@given(blocks)
def test_the_canonical_period_is_primitive_and_the_blocks_own(block):
    canonical = canonical_period(block)
    n = len(canonical)
    assert not any(canonical == canonical[:p] * (n // p) for p in range(1, n))
    assert len(block) % n == 0
    assert canonical * (len(block) // n) in block + block


def test_the_canonical_period_of_nothing_is_nothing():
    assert canonical_period("") == ""


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        ("he said no No, NO! no more", "word 'no'"),
        ("I don't don't don\u2019t don't", "word 'don't'"),
        ("'the' the the the", "word 'the'"),
        ("été été, Été été", "word 'été'"),
        ("x. . . . . . . . . . . . . . . .", "loop ' .'"),
        ("so aaaaaaaaaaaaaaaaaaaaaaaaaaa", "loop 'a'"),
        ("the state of the state of the state of ", "loop ' of the state'"),
    ],
)
def test_signatures(text, signature):
    found = why(text)
    assert f"{found.signature} {found.variant}" == signature


@pytest.mark.parametrize("phase", range(13))
def test_a_loop_is_one_bucket_wherever_it_is_entered(phase):
    text = "the state of " * 5
    found = why("Q" + text[phase : phase + 45])
    assert (found.signature, found.variant) == ("loop", "' of the state'")


def test_a_loop_of_one_word_is_the_words_bucket_however_short_it_is_cut():
    cut = "abcdefgh abcdefgh abcdefgh a"  # three words, three rounds: a loop only
    assert margins(Repetition(period=0), cut)[0] < 0
    found = [why(text) for text in (cut, "abcdefgh " * 4, "Abcdefgh, " * 5)]
    assert {(one.signature, one.variant) for one in found} == {("word", "'abcdefgh'")}


def test_blanks_alone_are_a_loop_only_if_asked_for():
    for text in (" " * 60, "\n" * 30, "so\n \n \n \n \n \n \n \n \n \n \n \n \n", "\u3000" * 40):
        assert margins(Repetition(), text)[0] < 0
        assert margins(Repetition(blanks=True), text)[0] > 0
    mixed = why("\n" * 40 + "--\n\n" * 8)
    assert (mixed.variant, mixed.span) == ("'\n\n--'", (38, 72))


def test_quotes_separate_no_words():
    assert margins(Repetition(), 'so"so"so"so"so')[0] < 0
    assert why('"So" \u201cso\u201d so \u00abso\u00bb').variant == "'so'"


def test_loops_that_outputs_are_too_short_for_are_named():
    letters, tokens = TextSpace(("a", "b")), TextSpace(("a", "b"), tokens=((0,), (1,)))
    for space, steps in ((letters, 192), (letters, None), (tokens, 50)):
        assert Repetition().notes(space, steps) == []
    told = "in outputs of 50 characters only loops of up to 16 show; --max-new 192 looks for all up to 64"
    assert Repetition().notes(letters, 50) == [told]


def test_the_span_is_where_the_repetition_stands():
    text = "well, no no no no! yes"
    assert text[slice(*why(text).span)] == "no no no no"
    text = "so " + "xy" * 12 + " end"
    assert text[slice(*why(text).span)] == "xy" * 12
    assert why("İ no no no no").span is None, "lower case moved the characters"


def test_words_tell_how_often():
    assert why("no no no no no").words == "the word 'no' 5 times in a row"
    assert why("." * 30).words == "'.' 30.0 times over (a loop of 1 character)"


def test_margins_climb_towards_a_hit_and_beyond():
    words = margins(Repetition(period=0), *(" ".join(["no"] * n) for n in range(1, 8)))
    loops = margins(Repetition(), *("ab" * n for n in range(1, 15)))
    assert (np.diff(words) > 0).all()
    assert (np.diff(loops)[1:] > 0).all()
    assert (words > 0).tolist() == [n >= 4 for n in range(1, 8)]
    assert (loops > 0).tolist() == [2 * n >= 20 for n in range(1, 15)]


def test_ordinary_text_is_far_from_a_hit():
    texts = [
        "O, no, no, no.\n\nVOLUMNIA:\nO, he is wounded; I thank",
        "",
        "Weapons, weapons, weapons!",
        "...",
    ]
    assert (margins(Repetition(), *texts) < 0).all()
    with pytest.raises(ValueError, match="does not repeat"):
        Repetition().evidence(*shown(*texts), 1, 0)
