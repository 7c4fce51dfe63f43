"""Buckets that are known: those of a baseline and those that a pattern covers, with what is below them."""

import json
from pathlib import Path

import pytest

from lmfuzz.errors import UsageError
from lmfuzz.storage.known import Known, matches, read
from lmfuzz.types import NAME, Evidence

LOOP = "repetition: loop ' of the'"


@pytest.mark.parametrize(
    ("pattern", "bucket"),
    [
        (LOOP, LOOP),
        (LOOP, f"{LOOP}/first person"),
        ("repetition:*", LOOP),
        ("repetition: *", LOOP),
        ("crash:ValueError*", "crash: ValueError: no"),
        ("phrases/zounds", "phrases/zounds: zounds"),  # as it is printed
        ("regex/[ab]: [ab]", "regex/[ab]: [ab]"),  # pasted unchanged
        ("regex/?: b*", "regex/a: but"),
        ("echo: \\ud800", "echo: \ud800"),
        ("echo: a\\nb", "echo: a\nb"),
    ],
)
def test_a_pattern_covers_names_as_they_are_printed_and_those_below(pattern: str, bucket: str) -> None:
    assert matches(pattern, bucket)
    assert bucket in Known({}, [pattern])


@pytest.mark.parametrize(
    ("pattern", "bucket"),
    [("repetition", LOOP), (LOOP.upper(), LOOP), ("loop*", LOOP), (f"{LOOP}/x", LOOP), (LOOP[:-1], LOOP)],
)
def test_a_pattern_must_match_the_whole_name(pattern: str, bucket: str) -> None:
    assert not matches(pattern, bucket)


def test_a_bucket_of_a_baseline_covers_what_is_below_it() -> None:
    known = Known({"repetition": {"loop": 3}, "phrases/a": {"x/y": 1}}, ())
    assert "repetition: loop" in known
    assert "repetition: loop/later" in known
    assert "repetition: loops" not in known
    assert "phrases/a: x/y" in known
    assert "phrases/a: x" not in known
    assert "phrases/a: x/z" not in known
    assert not Known({}, ())


def test_a_long_name_is_known_by_its_cut() -> None:
    signature = Evidence("a" * 2 * NAME, "").signature
    assert f"crash: {signature}" in Known({"crash": {signature: 1}}, ())
    assert f"crash: {Evidence('a' * 3 * NAME, '').signature}" not in Known({"crash": {signature: 1}}, ())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "not JSON",
             '{"baseline": 2, "buckets": {}}', '{"baseline": 1, "buckets": {"a": 1}}',
             '{"baseline": 1, "buckets": {"a": {"b": -1}}}', '{"baseline": 1, "buckets": {"a": {"b": "1"}}}'],
)  # fmt: skip
def test_a_file_that_is_not_a_baseline_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "known.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"known\.json is not a baseline; give .*--format baseline"):
        read([str(file)])


def test_baselines_are_joined_and_may_say_more(tmp_path: Path) -> None:
    for name, signature in (("a", "x"), ("b", "y")):
        more = {"why": "accepted on Monday", "buckets": {"echo": {signature: 1}}}
        (tmp_path / name).write_text(json.dumps({"baseline": 1, **more}))
    assert read([str(tmp_path / "a"), str(tmp_path / "b")]) == {"echo": {"x": 1, "y": 1}}
