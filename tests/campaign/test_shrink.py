"""Findings made minimal: what delta debugging leaves, in which bucket, judged alone, and kept on disk."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.image_models import MODELS
from helpers.shell import Shell, forget_files
from lmfuzz.analysis.summary import finding_record
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.campaign.shrink import Shrinker, minimize
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import FORMAT, Store
from lmfuzz.types import Batch, Evidence, Finding, IntArray, Minimal, Trace

LETTERS = TextSpace(tuple("abcdefghij"), 1, 40)
PIXELS = BoxSpace((2, 3, 3), step=1 / 255)
WANTS = frozenset({"text", "rows"})


class Mirror:
    """Shows the rows themselves; in a batch of several one symbol or value more is wrong: ``noisy``."""

    channels = WANTS
    identity = "mirror"

    def __init__(self, space: Space, noisy: bool = False) -> None:
        self.space, self.noisy, self.sizes = space, noisy, list[int]()

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        self.sizes.append(len(batch))
        texts = np.array(self.space.texts(batch), dtype=object)
        if self.noisy and len(batch) > 1:
            texts = np.array([text + "j" for text in texts], dtype=object)
        return {"text": texts, "rows": batch.data}


class Holds:
    """The text holds all of some letters; the bucket says whether it holds a j as well."""

    needs = frozenset({"text"})
    targets = ("other", "holds")
    grades = (frozenset[str](),) * 2

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def __call__(self, batch: Batch, trace: Trace) -> np.ndarray:
        hits = [set(self.letters) <= set(text) for text in trace["text"]]
        return np.array([[-1, 1 if hit else -1] for hit in hits], np.float32)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        text = trace["text"][row]
        return Evidence("with j" if "j" in text else "without", "holds them", (0, len(text)))


class Bright(Holds):
    """Two pixels are brighter than the seed's in red."""

    needs = frozenset({"rows"})

    def __call__(self, batch: Batch, trace: Trace) -> np.ndarray:
        hits = (trace["rows"][:, 0, :2, 0] > 0.5).all(axis=1)
        return np.stack([-np.ones(len(hits)), np.where(hits, 1, -1)], axis=1).astype(np.float32)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        return Evidence("without", "bright")


def found(row: np.ndarray, signature: str = "without") -> Finding:
    return Finding("holds", 1.0, Evidence(signature, "holds them"), row, "", "", -1, 0, 9, 3, 3, origin=0)


def shrunk(
    text: str, letters: str = "abc", signature: str = "without", noisy: bool = False, edits: int | None = None
) -> tuple[Minimal | None, LocalExecutor]:
    evaluator = Evaluator(Mirror(LETTERS, noisy), Holds(letters))
    seeds = Batch.of([LETTERS.encode("abcdefghij")])
    shrinker = Shrinker(evaluator, LETTERS, seeds, 16, edits)
    return shrinker(found(LETTERS.encode(text), signature)), evaluator.executor


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.integers(0, 24), st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1), st.integers(1, 5))
def test_what_is_left_is_bad_and_without_any_one_it_is_not(
    count: int, needed: int, other: int, every: int
) -> None:
    """Also where to be bad is not monotonous: parts of some sizes are not, whatever they hold."""

    def sure(part: IntArray) -> bool:
        held = sum(1 << int(place) for place in part)
        whole = len(part) == count
        return whole or (len(part) % every != 1 and any(need & ~held == 0 for need in wanted))

    def bad(parts: Sequence[IntArray]) -> np.ndarray:
        """What a batch says is wrong at times."""
        return np.array([sure(part) != (len(part) == 3) for part in parts], bool)

    wanted = [needed & ((1 << count) - 1), other & ((1 << count) - 1)]
    left = minimize(np.arange(count), bad, sure)
    assert sure(left)
    for i in range(len(left)):
        assert not sure(np.delete(left, i))


def test_a_prompt_keeps_the_letters_that_its_bucket_needs() -> None:
    small, executor = shrunk("ihgfedcbaabcdefghihgfedcba")
    assert small is not None
    assert sorted(small.prompt) == ["a", "b", "c"]
    assert LETTERS.decode(small.row) == small.prompt == small.output
    assert (small.size, small.before, small.span, small.failed) == (3, 26, (0, 3), 3)
    assert small.executions == executor.executions < 150


def test_another_bucket_is_not_enough() -> None:
    small, _ = shrunk("jihgfedcbaabcdefgh", signature="with j")
    assert small is not None
    assert sorted(small.prompt) == ["a", "b", "c", "j"]
    assert shrunk("ihgfedcba", signature="with j")[0] is None
    assert shrunk("ihgfed")[0] is None


def test_rounds_are_batches_and_no_row_is_judged_twice_by_one() -> None:
    small, executor = shrunk("a" * 20 + "b" * 20, letters="ab")
    assert small is not None
    assert len(executor.target.sizes) < executor.executions
    assert max(executor.target.sizes) > 4


def test_what_a_batch_says_wrongly_does_not_count() -> None:
    small, _ = shrunk("ihgfedcbaabc", noisy=True)
    assert small is not None
    assert sorted(small.prompt) == ["a", "b", "c"]


def test_texts_stay_within_their_edits_and_their_lengths() -> None:
    small, _ = shrunk("abcdefgh", edits=4)
    assert small is not None
    assert (small.size, small.prompt[:3]) == (6, "abc")
    small, _ = shrunk("aaaa", letters="")
    assert small is not None
    assert small.prompt == "a"  # no legal prompt is shorter


def test_pixels_go_back_to_the_seed_whole() -> None:
    seed, row = PIXELS.empty(1)[0], PIXELS.settle(np.full((2, 3, 3), 0.8))
    seeds = PIXELS.batch([seed])
    shrinker = Shrinker(Evaluator(Mirror(PIXELS), Bright("")), PIXELS, seeds, 16)
    small = shrinker(found(row))
    assert small is not None
    assert (small.size, small.before) == (2, 6)
    np.testing.assert_array_equal(small.row[0, :2], row[0, :2])
    assert not small.row[0, 2].any()
    assert not small.row[1].any()


def test_findings_that_are_images_get_a_picture_of_the_minimal_one(sh: Shell) -> None:
    Path("images.py").write_text(MODELS)
    forget_files()
    pair = ("images.py:few", "--twin", "round:4", "--count", "20", "--stop-after", "3")
    result = sh("image", "diff", *pair, "--budget", "20000x", "-o", "c")
    assert result.code == 1, result.err
    assert sh("shrink", "c").code == 0
    record = CampaignRecord.read(Path("c"))
    sizes = [small.size / max(1, small.before) for one in record.findings if (small := one.minimal)]
    number = int(np.argmax(np.array(sizes) > 0)) + 1  # a seed may hit as it is
    assert 0 < sizes[number - 1] < 1
    with Image.open(f"c/pictures/{number}-minimal.png") as minimal, Image.open("c/pictures/1.png") as before:
        assert minimal.size == before.size
    assert f"c/pictures/{number}-minimal.png: the same" in sh("show", "c", str(number)).out


def test_a_command_makes_findings_minimal_and_keeps_them(sh: Shell) -> None:
    assert sh.fuzz("-o", "c").code == 1
    code, out, _ = sh("shrink", "c", "1")
    assert code == 0
    assert out.startswith("finding 1, repetition: ")
    assert "\n  before " in out
    assert "\n  after  " in out
    code, out, _ = sh("shrink", "c", "--json")
    records = json.loads(out)["findings"]
    assert code == 0
    assert len(records) > 1
    for one in records:
        assert one["minimal"]["size"] == len(one["minimal"]["row"]) == 2  # the toy loops where v and k are
        assert one["minimal"]["failed"] == 3
    assert "minimal" in sh("show", "c", "1").out
    record = CampaignRecord.read(Path("c"))
    stored = [finding_record(finding, n) for n, finding in enumerate(record.findings, start=1)]
    assert record.findings[0].reduced.prompt == records[0]["minimal"]["prompt"]
    assert json.loads(json.dumps(stored)) == records


def test_minimal_rows_of_an_older_campaign_are_read_and_kept(sh: Shell) -> None:
    assert sh.fuzz("-o", "c").code == 1
    assert sh("shrink", "c", "1").code == 0
    record = CampaignRecord.read(Path("c"))
    before = record.findings
    with closing(sqlite3.connect("c/campaign.db")) as db:
        db.execute("ALTER TABLE minimals DROP COLUMN by_text")
        db.execute("UPDATE meta SET value = 4 WHERE key = 'format'")
        db.commit()
    shown = sh("show", "c", "1")
    assert shown.code == 0
    assert "minimal" in shown.out
    assert sh("shrink", "c", "2").code == 0
    record = CampaignRecord.read(Path("c"))
    with closing(sqlite3.connect("c/campaign.db")) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == (str(FORMAT),)
    found = record.findings
    assert found[0].minimal is not None
    assert finding_record(found[0]) == finding_record(before[0])
    assert found[1].minimal is not None


def test_a_campaign_shrinks_what_it_keeps(sh: Shell) -> None:
    assert sh.fuzz("-o", "c", "--shrink").code == 1
    assert sh.fuzz("-o", "other").code == 1
    record = CampaignRecord.read(Path("c"))
    found = record.findings
    total = record.executions
    assert all(one.minimal is not None and one.minimal.size == 2 for one in found)
    spent = sum(one.minimal.executions for one in found if one.minimal)
    assert 0 < spent < total
    before = sh("shrink", "c", "--json").out
    assert [one["minimal"]["executions"] for one in json.loads(before)["findings"]] == [
        one.minimal.executions for one in found if one.minimal
    ]


@pytest.mark.parametrize("edit", ["other", "missing"])
def test_what_cannot_be_shrunk_is_one_sentence(sh: Shell, edit: str) -> None:
    assert sh("shrink", "nowhere").err == "lmfuzz: there is no directory nowhere\n"
    assert sh.fuzz("-o", "c").code == 1
    assert "has no finding 99" in sh("shrink", "c", "99").err
    if edit == "other":
        text = Path("model.py").read_text().replace('phrase_key="xyz", loop_key="vk"', 'loop_key="kv"')
        Path("model.py").write_text(text)
        forget_files()
        assert "was begun with another model" in sh.refused("shrink", "c")
    else:
        with Store.resume(Path("c")), pytest.raises(UsageError, match="in use by another"):
            Store.resume(Path("c"))


def test_nothing_found_is_said(sh: Shell) -> None:
    assert sh.fuzz("-o", "c", "--objective", "regex:pattern=~", budget="300x").code == 0
    code, out, _ = sh("shrink", "c")
    assert (code, out) == (0, "lmfuzz: c has no findings\n")
