"""What a person reads: names that say a thing once, lines that fit, numbers with their plurals."""

import pytest

from lmfuzz.analysis.summary import summary_lines
from lmfuzz.errors import printable
from lmfuzz.text import bucket_title, escape, wrap


@pytest.mark.parametrize(
    ("bucket", "shown"),
    [
        ("Shouting: Shouting", "Shouting"),
        ("regex/a|b: a|b", "regex/a|b"),
        ("regex/a: b: a: b", "regex/a: b"),
        ("repetition: the", "repetition: the"),
        ("phrases/sesame: same", "phrases/sesame: same"),
        ("regex/\x1b: \x1b", "regex/\\x1b"),
    ],
)
def test_a_bucket_says_a_thing_once(bucket: str, shown: str) -> None:
    assert bucket_title(bucket) == shown


@pytest.mark.parametrize("text", ["", "a  b " * 40, "x" * 200, 'prompt      "a   b"'])
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    lines = wrap(text, 40)
    assert all(len(line) <= 40 for line in lines)
    assert lines[0] + "".join(line.removeprefix("    ") for line in lines[1:]) == text


def test_one_of_a_thing_is_singular_and_unwritten_findings_are_counted() -> None:
    bucket = {"kept": 1, "hits": 9, "labels": ["confirmed"], "unmutated": 1}
    bucket["variants"] = {"'a'": 5, "'b'": 2, "'c'": 1, "'d'": 1}
    lines = list(summary_lines({
        "executions": 3, "calibration_executions": 1, "seconds": 1.0, "executions_per_second": 1.0,
        "time_in_target": 0.5,
        "corpus_size": 1, "archive_size": 2, "archived_hits": 1, "seeds": 3,
        "novelty_rate": 0.07, "stability": 1.0,
        "findings": {"Shouting": {"Shouting: Shouting": bucket}}, "unwritten": 1,
        "known": None,
        "trials": None, "unscored": {"entropy": 1},
        "errors": {"entropy": {"Traceback": 1}}, "exit_reason": "disk full",
    }))  # fmt: skip
    assert lines[0].startswith("1 execution of calibration and 2 of search in 1.0 s ")
    assert "novel 7.0%" in lines[0]
    assert lines[1] == "1 finding in 1 bucket:"
    assert "archive 2 (1 of inputs that hit)" in lines[0]
    about = "1 of 3 seeds unmutated; 'a' 5, 'b' 2, 'c' 1 and 1 more"
    assert lines[3] == f"     1        9  Shouting  ({about})"
    assert lines[4:7] == [
        "1 finding of these could not be written",
        "not scored by entropy: 1 input (neither safe nor a finding)",
        "the objective entropy raised 1 time; the first traceback:",
    ]


def test_printable_twice_is_once_and_leaves_backslashes() -> None:
    assert printable("a\\d\x1b[0m\n\u202e\udcff \u00e9") == "a\\d\\x1b[0m\\n\\u202e\\udcff \u00e9"
    assert printable(escape("\\d\x07")) == escape("\\d\x07") == "\\\\d\\x07"
