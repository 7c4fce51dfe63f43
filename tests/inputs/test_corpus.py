"""Ids, once given, always name the same row, whatever is added later."""

import numpy as np
import pytest

from lmfuzz.inputs.corpus import Corpus as Table
from lmfuzz.inputs.corpus import lineage
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.types import SEED, Batch


def Corpus(width):  # noqa: N802  # a corpus of rows of at most so many symbols
    return Table(TextSpace(tuple("abcdefghij"), 1, width))


def rows(count, width, seed=0, parent=SEED, operator=SEED):
    rng = np.random.default_rng(seed)
    symbols = [rng.integers(1, 9, size=rng.integers(1, width + 1), dtype=np.int32) for _ in range(count)]
    return Batch.of(symbols, parent, operator)


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(one.row(i), other.row(i))
        and one.parent[i] == other.parent[i]
        and one.operator[i] == other.operator[i]
        for i in range(len(one))
    )


def test_rows_come_back_by_their_ids():
    corpus, first, second = Corpus(12), rows(5, 12), rows(3, 4, 1, parent=2, operator=7)
    assert len(corpus) == 0
    ids = corpus.add(first), corpus.add(second)
    assert [part.tolist() for part in ids] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert ids[0].dtype == np.int64
    assert len(corpus) == 8
    assert same(corpus[ids[0]], first)
    assert same(corpus[ids[1]], second)
    picked = corpus[np.array([6, 0, 6])]
    assert [picked.row(i).tolist() for i in range(3)] == [
        b.row(k).tolist() for b, k in ((second, 1), (first, 0), (second, 1))
    ]
    assert (picked.parent.tolist(), picked.operator.tolist()) == ([2, SEED, 2], [7, SEED, 7])
    assert same(corpus[slice(5, None)], second)
    assert len(corpus[slice(0, 100)]) == 8


def test_rows_outlive_any_growth():
    corpus, kept = Corpus(6), []
    for turn, count in enumerate([0, 1, 255, 1, 700, 64, 5000]):
        batch = rows(count, 6, turn, parent=turn, operator=turn)
        kept.append((corpus.add(batch), batch))
        for ids, added in kept:
            assert same(corpus[ids], added)
    assert len(corpus) == 6021


def test_a_row_shorter_than_one_that_stood_in_its_place_is_itself():
    corpus = Corpus(8)
    corpus.add(Batch.of([np.array([1, 2, 3])]))
    assert corpus[np.array([0])].row(0).tolist() == [1, 2, 3]
    assert corpus[np.array([0])].data.shape == (1, 8)


def test_later_changes_to_an_added_batch_do_not_matter():
    corpus, batch = Corpus(4), rows(3, 4)
    copy = rows(3, 4)
    corpus.add(batch)
    batch.data[:], batch.lengths[:] = 0, 1
    assert same(corpus[slice(None)], copy)


def test_parents_name_themselves_as_parents():
    corpus = Corpus(5)
    corpus.add(rows(4, 5, parent=9, operator=3))
    ids = np.array([3, 1, 1])
    parents = corpus.parents(ids)
    assert parents.parent.tolist() == [3, 1, 1]
    assert [parents.row(i).tolist() for i in range(3)] == [corpus[ids].row(i).tolist() for i in range(3)]
    assert corpus[ids].parent.tolist() == [9, 9, 9], "what is kept has not changed"


def test_a_lineage_leads_back_to_the_seed():
    corpus = Corpus(3)
    corpus.add(rows(2, 3))
    for parent in (1, 0, 2, 4):
        corpus.add(rows(1, 3, parent=parent))
    assert lineage(corpus[:].parent, 5) == [1, 2, 4, 5]
    assert lineage(corpus[:].parent, 3) == [0, 3]
    assert lineage(corpus[:].parent, 0) == [0]


def test_a_row_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        Corpus(3).add(Batch.of([np.arange(1, 6)]))


def test_ids_that_were_never_given_are_errors():
    corpus = Corpus(3)
    corpus.add(rows(2, 3))
    with pytest.raises(IndexError):
        corpus[np.array([2])]
