"""Phrases that must not stand in the output: what counts as one, and how near a row was."""

import numpy as np
import pytest

from lmfuzz.errors import UsageError
from lmfuzz.objectives.phrases import Phrases
from lmfuzz.types import Batch

NONE = -np.inf


def margins(objective, *texts, prompts=None, **gaps):
    """Margins (B, N) for these outputs; gaps by phrase."""
    batch = Batch.of([np.zeros(1, np.int32)] * len(texts))
    prompts = prompts or [""] * len(texts)
    trace = {name: np.array(values, object) for name, values in {"text": texts, "prompt": prompts}.items()}
    trace["lead"] = np.array([prompt[-1:] for prompt in prompts], object)
    flags = "f" * objective.fold + "w" * ("w/" in str(objective.grades))
    for phrase, values in gaps.items():
        trace[f"phrase_gap/{flags}/{phrase}"] = np.array(values, np.float32)
    got = objective(batch, trace)
    assert got.dtype == np.float32
    assert got.shape == (len(texts), len(objective.targets))
    return got


def hits(objective, text, prompt=""):
    return (margins(objective, text, prompts=[prompt])[0] > 0).tolist()


# --- what stands in an output ---


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("murder", True),
        ("a murder!", True),
        ("'murder'd", True),
        ("un-murder-er", True),
        ("\nmurder\n", True),
        ("murderer", False),
        ("xmurder", False),
        ("murder_", False),
        ("4murder", False),
        ("murders, murder", True),
        ("mur der", False),
        ("", False),
    ],
)
def test_a_whole_word_has_no_letter_digit_or_underscore_beside_it(text, hit):
    assert hits(Phrases(["murder"]), text) == [hit]
    assert hits(Phrases(["murder"], whole=False), text) == ["murder" in text]


@pytest.mark.parametrize(
    ("prompt", "text", "hit"),
    [
        ("pre", "cious, fie", False),
        ("pre", "cious cious", True),
        ("pre ", "cious", True),
        ("pre-", "cious", True),
        ("4", "cious", False),
        ("pre", " cious", True),
        ("", "cious", True),
    ],
)
def test_a_word_that_begins_in_the_prompt_is_not_whole(prompt, text, hit):
    assert hits(Phrases(["cious"]), text, prompt) == [hit]
    assert hits(Phrases(["cious"], echo=True), text, prompt) == [hit]
    assert hits(Phrases(["cious"], whole=False), text, prompt) == [True]


def test_a_phrase_may_begin_and_end_with_other_signs():
    objective = Phrases(["'tis done!", "...", "c++"])
    assert hits(objective, "ha! 'tis done! well") == [True, False, False]
    assert hits(objective, "no'tis done!") == [False, False, False]
    assert hits(objective, "'tis done!x") == [False, False, False]
    assert hits(objective, "well ... yes") == [False, True, False]
    assert hits(objective, "c++ is") == [False, False, True]


def test_phrases_are_no_regular_expressions():
    assert hits(Phrases(["a.c", "(x"], whole=False), "abc x") == [False, False]


@pytest.mark.parametrize("phrase", ["Murder", "MURDER", "murder"])
def test_case_is_ignored_unless_fold_is_off(phrase):
    assert hits(Phrases([phrase]), "a MurDer") == [True]
    assert hits(Phrases([phrase], fold=False), "a MurDer") == [False]
    assert hits(Phrases([phrase], fold=False), f"a {phrase}") == [True]


@pytest.mark.parametrize("phrase", ["Straße", "ΣΟΦΌΣ", "Élan", "ﬁne", "Ǆ"])
@pytest.mark.parametrize("fold", [True, False])
def test_a_phrase_in_any_alphabet_is_found_as_it_is_written(phrase, fold):
    objective = Phrases([phrase], fold=fold)
    assert hits(objective, f"x {phrase} x") == [True]
    assert hits(objective, f"x {phrase} x", prompt=f"so {phrase}") == [False]
    assert hits(Phrases([phrase.swapcase()]), f"x {phrase} x") == [
        phrase.swapcase().lower() == phrase.lower()
    ]


def test_every_phrase_has_a_column_of_its_own():
    objective = Phrases(["he", "she", "the"], whole=False)
    assert objective.targets == ("phrases/he", "phrases/she", "phrases/the")
    assert hits(objective, "hush, she said") == [True, True, False]
    assert hits(objective, "the") == [True, False, True]
    assert hits(Phrases(["he", "she", "the"]), "hush, she said") == [False, True, False]


def test_a_phrase_that_is_the_beginning_of_another_is_found_beside_it():
    assert hits(Phrases(["to be", "to be or not"]), "to be or not to be") == [True, True]


# --- the echo rule ---


@pytest.mark.parametrize(
    ("prompt", "hit"),
    [
        ("what is", True),
        ("murder", False),
        ("his Murder is", False),
        ("a murderer", False),  # half of a longer word would prompt the rest
        ("mur", True),
        ("mur der", True),
    ],
)
def test_a_phrase_of_the_prompt_does_not_count_in_the_output(prompt, hit):
    assert hits(Phrases(["murder"]), "oh murder", prompt) == [hit]
    assert hits(Phrases(["murder"], echo=True), "oh murder", prompt) == [True]


def test_folding_holds_for_the_prompt_too():
    assert hits(Phrases(["murder"], fold=False), "oh murder", "Murder") == [True]
    assert hits(Phrases(["murder"], fold=False), "oh murder", "murder") == [False]


def test_a_phrase_in_the_prompt_spoils_only_its_own_column_and_row():
    objective = Phrases(["murder", "death"])
    got = margins(objective, "murder death", "murder death", prompts=["murder ", "death "])
    np.testing.assert_array_equal(got > 0, [[False, True], [True, False]])


# --- how near ---


def test_a_miss_has_the_gap_as_its_margin_and_without_one_nobody_knows():
    objective = Phrases(["zounds", "fie"])
    got = margins(objective, "alas", "zounds!", "ha", zounds=[-3.5, -7, -0.25])
    np.testing.assert_allclose(got, [[-3.5, NONE], [1, NONE], [-0.25, NONE]])


def test_a_gap_of_0_is_no_finding_while_the_phrase_does_not_stand_there():
    got = margins(Phrases(["zounds"]), "alas", "zound", zounds=[0, 0])
    assert (got < 0).all()
    assert (got > -0.01).all()


def test_with_the_phrase_in_the_prompt_a_row_gets_no_nearer_than_1():
    objective = Phrases(["zounds"])
    got = margins(
        objective,
        *["zounds"] * 4,
        prompts=["zounds", "Zoundsed", "zound ", "zounds"],
        zounds=[0, -0.5, -0.5, -4],
    )
    np.testing.assert_allclose(got[:, 0], [-1, -1, 1, -4])


def test_a_gap_that_could_not_be_scored_stays_unscored_unless_the_phrase_stands_there():
    got = margins(Phrases(["fie"]), "ha", "fie", fie=[np.nan, np.nan])
    assert np.isnan(got[0, 0])
    assert got[1, 0] == 1


def test_what_it_needs_is_said():
    objective = Phrases(["fie", "ha"])
    assert objective.needs == {"text", "prompt", "lead"}
    assert objective.grades == (frozenset({"phrase_gap/fw/fie"}), frozenset({"phrase_gap/fw/ha"}))
    assert Phrases(["fie"], echo=True, whole=False).needs == {"text"}
    assert Phrases(["Fie"], fold=False, whole=False).grades == (frozenset({"phrase_gap//Fie"}),)


def test_evidence_shows_the_phrase_as_it_stands():
    objective = Phrases(["murder", "fie"])
    batch, trace = Batch.of([np.zeros(1, np.int32)]), {"text": np.array(["murders? MurDer, fie"], object)}
    trace["lead"] = np.array(["x"], object)
    found = objective.evidence(batch, trace, 0, 0)
    assert (found.signature, found.span) == ("murder", (9, 15))
    assert "MurDer" in found.words


# --- lists ---


def test_duplicates_are_one_column_in_the_order_given():
    assert Phrases(["b", "A", "a", "b"]).targets == ("phrases/b", "phrases/a")
    assert Phrases(["b", "A", "a", "b"], fold=False).targets == ("phrases/b", "phrases/A", "phrases/a")


def test_a_file_has_one_phrase_per_line_and_comments(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# a comment\nMurder\n\n  to be  \r\n#fie\nmurder\nthe # sign\n", encoding="utf-8")
    assert Phrases(file=str(path)).targets == ("phrases/murder", "phrases/to be", "phrases/the # sign")
    assert Phrases(["ha"], str(path)).targets[:2] == ("phrases/ha", "phrases/murder")


def test_a_byte_order_mark_is_no_part_of_the_first_phrase(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffmurder\n", encoding="utf-8")
    assert hits(Phrases(file=str(tmp_path / "words.txt")), "a murder") == [True]


def test_the_bundled_list_is_found():
    assert len(Phrases(file="corpora:words/blacklist.txt").targets) > 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no word list"),
        (b"", "is empty; give it one phrase per line"),
        (b"# only\n\n   \n# comments\n", "is empty; give it one phrase per line"),
        (b"caf\xe9\n", "UTF-8"),
        (b"\xff\xfem\x00", "UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        Phrases(file=str(path))
    assert str(path) in str(caught.value)


def test_a_folder_for_a_list_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match="is a folder, not a word list") as caught:
        Phrases(file=str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("words", [[], ["fie", ""]])
def test_no_phrases_and_empty_ones_are_errors(words):
    with pytest.raises(UsageError, match="phrase"):
        Phrases(words)
