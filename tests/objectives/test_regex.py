import numpy as np
import pytest

from lmfuzz.errors import UsageError
from lmfuzz.objectives.regex import Regex
from lmfuzz.types import Batch


def shown(*texts):
    return Batch.of([np.zeros(1, np.int32)] * len(texts)), {"text": np.array(texts, dtype=object)}


def margins(objective, *texts):
    got = objective(*shown(*texts))
    assert got.shape == (len(texts), 1)
    assert got.dtype == np.float32
    return got[:, 0].tolist()


def test_the_longest_prefix_that_matches_grades_a_miss():
    got = margins(Regex("zounds"), "", "a maze", "zo", "zoo", "he zound", "he zounds!")
    assert got == pytest.approx([-1, -5 / 6, -4 / 6, -4 / 6, -1 / 6, 1])


def test_only_prefixes_that_are_patterns_count():
    objective = Regex(r"a(b|c)\d+")  # a, a(b|c), a(b|c)\d and the whole
    assert margins(objective, "b", "a", "ac", "ac7") == pytest.approx([-1, -3 / 4, -2 / 4, 1])


def test_prefixes_that_match_anything_do_not_count():
    assert margins(Regex("a*"), "b") == [1.0]  # as re.search has it
    assert margins(Regex("(?i)no"), "x", "N", "NO") == pytest.approx([-1, -0.5, 1])
    assert margins(Regex("x"), "y") == [-np.inf]
    assert margins(Regex("^$"), "y", "") == [-np.inf, 1]


def test_no_miss_is_ever_a_hit():
    long = "abcdefghijklmnopqrstuvwxyz0123456789"
    got = margins(Regex(long), *(long[:n] for n in range(len(long) + 1)))
    assert got[-1] > 0
    assert max(got[:-1]) < 0
    assert sorted(got) == got
    assert 20 < len(set(got)) <= 24 + 2, "prefixes of long patterns are thinned, for speed"


def test_case_and_alternatives():
    assert margins(Regex("Murder", ignore_case=True), "MURDER") == [1]
    assert margins(Regex("Murder"), "MURDER")[0] < 0
    assert margins(Regex("foo|bar"), "a bar")[0] > 0
    assert margins(Regex("foo|bar"), "a ba")[0] > margins(Regex("foo|bar"), "a b")[0]


def test_patterns_whose_halves_look_odd_give_no_warning():
    assert margins(Regex("[[a]--]x"), "[--]x") == [1]
    assert margins(Regex("a{2}{x"), "aa{x") == [1]


def test_evidence_is_the_match():
    objective = Regex(r"\d{2,}")
    assert objective.targets == (r"regex/\d{2,}",)
    found = objective.evidence(*shown("a 1 and 234 b"), 0, 0)
    assert found.signature == r"\d{2,}"
    assert found.span == (8, 11)
    assert "'234'" in found.words


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("a(b", "missing \\), unterminated subpattern at position 1"), ("*", "at position 0"), ("", "empty"),
     ("a{99999999999}", "too large")],
)  # fmt: skip
def test_a_bad_pattern_is_told_with_its_position(pattern, words):
    with pytest.raises(UsageError, match=words):
        Regex(pattern)
