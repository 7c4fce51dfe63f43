"""Splice, Tail and Havoc."""

from dataclasses import dataclass, field, replace

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.characters import Insert
from lmfuzz.operators.havoc import Havoc
from lmfuzz.operators.splice import Splice
from lmfuzz.operators.tail import Tail
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Batch

SPACE = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz"), 1, 30)


def texts(*rows):
    return Batch.of([SPACE.encode(row) for row in rows])


def near(pool, sampler=None, space=SPACE):
    return MutationContext(space, pool, np.random.default_rng(0), sampler)


@dataclass
class Scribe:
    """Writes z, y, x ... and remembers what it was asked."""

    asked: list = field(default_factory=list)

    def sample(self, batch, new, temperature, rng):
        self.asked.append((SPACE.texts(batch), new, temperature))
        return np.tile(25 - np.arange(new, dtype=np.int32), (len(batch), 1))


def test_splice_joins_a_head_and_a_tail():
    own, theirs = "abcdefgh", "qrstuvwxyz"
    changed = SPACE.texts(Splice()(texts(*[own] * 400), near(texts(theirs))))
    kept_head = {own[:i] + theirs[j:] for i in range(len(own)) for j in range(len(theirs))}
    kept_tail = {theirs[:j] + own[i:] for i in range(len(own)) for j in range(len(theirs))}
    assert set(changed) <= kept_head | kept_tail
    assert set(changed) & kept_head - kept_tail
    assert set(changed) & kept_tail - kept_head


def test_splice_borrows_from_the_whole_pool():
    changed = SPACE.texts(Splice()(texts(*["aaaa"] * 100), near(texts("xxxx", "yyyy", "zzzz"))))
    assert {c for text in changed for c in text} == set("axyz")


def test_tail_is_written_by_the_sampler_after_the_head():
    scribe, rows = Scribe(), texts(*["abcdefgh"] * 100, *["abc"] * 100)
    changed = SPACE.texts(Tail(temperature=0.5)(rows, near(rows, scribe)))
    [(heads, new, temperature)] = scribe.asked
    assert (new, temperature) == (4, 0.5)  # half of the longest row
    for head, text, old in zip(heads, changed, SPACE.texts(rows), strict=True):
        assert len(text) == len(old)
        assert text == head + "zyxw"[: len(old) - len(head)]
        assert old.startswith(head)
    assert {len(head) for head in heads[:100]} == {4, 5, 6, 7}
    assert {len(head) for head in heads[100:]} == {1, 2}


def test_tail_of_a_single_symbol_is_a_second():
    scribe, rows = Scribe(), texts("a", "b")
    assert SPACE.texts(Tail(share=1.0)(rows, near(rows, scribe))) == ["az", "bz"]
    one = TextSpace(SPACE.symbols, 1, 1)
    assert SPACE.texts(Tail(share=1.0)(rows, near(rows, scribe, one))) == ["z", "z"]


def test_tail_without_a_sampler_is_the_end_of_a_pool_row():
    changed = SPACE.texts(Tail()(texts(*["abcdefgh"] * 100), near(texts("uvwxyz", "xyz"))))
    assert set(changed) == {"abcdefgz", "abcdefyz", "abcdexyz", "abcdwxyz", "abcdxyz"}


def test_havoc_makes_powers_of_two_changes_per_row():
    rows = replace(texts(*["abc"] * 300), parent=np.arange(300), operator=np.arange(300, dtype=np.int32))
    changed = Havoc(depth=3, parts=[Insert()])(rows, near(rows))
    assert (changed.parent == np.arange(300)).all()
    counts, rows_each = np.unique(changed.lengths - 3, return_counts=True)
    assert counts.tolist() == [1, 2, 4, 8]
    assert rows_each.min() > 50


def test_havoc_keeps_rows_in_their_places():
    rows = Batch.of([np.full(20, i % 26) for i in range(52)])
    changed = Havoc(depth=1, parts=[Insert()])(rows, near(rows))
    for i, text in enumerate(SPACE.texts(changed)):
        assert text.count(SPACE.symbols[i % 26]) >= 20


@dataclass
class Counted:
    rows: int = 0
    calls: int = 0

    def __call__(self, rows, near):
        self.calls += 1
        self.rows += len(rows)
        return rows


def test_havoc_draws_an_operator_named_twice_twice_as_often():
    rare, common, rows = Counted(), Counted(), texts("abc")
    havoc, around = Havoc(depth=0, parts=[rare, common, common]), near(rows)
    for _ in range(600):
        havoc(rows, around)
    assert rare.calls + common.calls == 600
    assert 160 < rare.calls < 240


def test_havoc_changes_rows_in_groups():
    only, rows = Counted(), texts(*["abc"] * 65)
    Havoc(depth=0, parts=[only])(rows, near(rows))
    assert (only.calls, only.rows) == (3, 65)


def test_havoc_with_a_dictionary_uses_its_words(tmp_path):
    file = tmp_path / "words.dict"
    file.write_text('"zounds"\n')
    rows = texts(*["a" * 10] * 300)
    changed = SPACE.texts(Havoc(dictionary=str(file))(rows, near(rows)))
    assert any("zounds" in text for text in changed)
    assert not any("zounds" in text for text in SPACE.texts(Havoc()(rows, near(rows))))
