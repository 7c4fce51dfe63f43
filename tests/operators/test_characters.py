"""What each operator on symbols and spans does to a row."""

import re

import numpy as np

from helpers import small_lms
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.characters import Case, Copy, Delete, Erase, Insert, Repeat, Shift, Substitute, Swap
from lmfuzz.protocols import MutationContext
from lmfuzz.types import Batch

SPACE = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz"), 4, 30)
TEXT = "abcdefghijklmnop"
FULL = "abcdefghijklmnopqrstuvwxyzabcd"


def change(operator, text, space=SPACE, count=300, seed=0):
    """What becomes of ``count`` rows of the same text."""
    rows = Batch.of([space.encode(text)] * count)
    return space.texts(operator(rows, MutationContext(space, rows[:1], np.random.default_rng(seed))))


def test_insert_makes_a_row_one_longer_and_leaves_the_rest():
    changed = change(Insert(), TEXT)
    for text in changed:
        assert len(text) == len(TEXT) + 1
        assert TEXT in [text[:i] + text[i + 1 :] for i in range(len(text))]
    assert {text[-1] for text in changed} > {"p"}  # at the end, too
    assert {text[0] for text in changed} > {"a"}  # and in front


def test_insert_into_a_full_row_costs_its_front():
    for text in change(Insert(), FULL):
        assert len(text) == 30
        assert FULL[1:] in [text[:i] + text[i + 1 :] for i in range(30)]


def test_delete_takes_one_symbol():
    changed = change(Delete(), TEXT)
    assert set(changed) == {TEXT[:i] + TEXT[i + 1 :] for i in range(len(TEXT))}


def test_delete_keeps_the_shortest_rows_at_their_length():
    for text in change(Delete(), "abcd"):
        assert text[1:] in {"bcd", "acd", "abd", "abc"}


def test_substitute_changes_exactly_one_symbol():
    changed = change(Substitute(), TEXT, count=3000)
    for text in changed:
        assert len(text) == len(TEXT)
        assert sum(a != b for a, b in zip(text, TEXT, strict=True)) == 1
    assert {text[-1] for text in changed} == set(SPACE.symbols)


def test_substitute_has_no_choice_with_one_symbol():
    assert change(Substitute(), "aaaa", TextSpace(("a",))) == ["aaaa"] * 300


def test_swap_swaps_neighbours():
    swaps = {TEXT[:i] + TEXT[i + 1] + TEXT[i] + TEXT[i + 2 :] for i in range(len(TEXT) - 1)}
    assert set(change(Swap(), TEXT)) == swaps


def test_swap_leaves_a_single_symbol():
    assert set(change(Swap(), "a", TextSpace(SPACE.symbols))) == {"a"}


def test_repeat_repeats_a_span_behind_itself():
    changed = change(Repeat(longest=3, times=2), TEXT)
    spans = [(i, n) for n in (1, 2, 3) for i in range(len(TEXT) - n + 1)]
    possible = {TEXT[:i] + TEXT[i : i + n] * k + TEXT[i:] for i, n in spans for k in (1, 2)}
    assert set(changed) <= possible
    assert {len(text) - len(TEXT) for text in changed} == {1, 2, 3, 4, 6}


def test_repeat_in_a_full_row_keeps_the_end():
    spans = [(i, n) for n in (1, 2) for i in range(30 - n + 1)]
    possible = {(FULL[:i] + FULL[i : i + n] * k + FULL[i:])[-30:] for i, n in spans for k in range(1, 10)}
    assert set(change(Repeat(longest=2, times=9), FULL)) <= possible


def test_erase_takes_a_span():
    changed = change(Erase(longest=5), TEXT)
    assert set(changed) <= {TEXT[:i] + TEXT[i + n :] for n in range(1, 6) for i in range(len(TEXT) - n + 1)}
    assert {len(TEXT) - len(text) for text in changed} == {1, 2, 3, 4, 5}


def test_erase_goes_no_further_than_the_shortest_row():
    for text in change(Erase(longest=20), "abcdef"):
        assert len(text) in (4, 5)
        assert re.fullmatch("a?b?c?d?e?f?", text)  # nothing came in


def test_shift_drops_the_front():
    assert set(change(Shift(longest=3), TEXT)) == {TEXT[1:], TEXT[2:], TEXT[3:]}
    assert set(change(Shift(), "abcde")) == {"bcde"}
    assert set(change(Shift(), "abcd")) == {letter + "bcd" for letter in SPACE.symbols}


def test_copy_inserts_or_overwrites_with_a_span_of_the_row():
    changed = change(Copy(longest=4), TEXT)
    spans = {TEXT[i : i + n] for n in range(1, 5) for i in range(len(TEXT) - n + 1)}
    inserted = {TEXT[:at] + s + TEXT[at:] for s in spans for at in range(len(TEXT) + 1)}
    written = {TEXT[:at] + s + TEXT[at + len(s) :] for s in spans for at in range(len(TEXT) - len(s) + 1)}
    assert set(changed) <= inserted | written
    assert set(changed) & inserted
    assert set(changed) & written - {TEXT}


def test_case_changes_letters_only():
    space = TextSpace(tuple("abAB .é"))
    changed = change(Case(longest=2), "é a. b", space)
    assert set(changed) == {"é A. b", "é a. B", "é A. B"}
    assert set(change(Case(), "é..é", space)) == {"é..é"}


def test_case_knows_symbols_of_several_characters():
    space = TextSpace((" the", " The", "x"))
    rows = Batch.of([np.array([0, 2, 1])] * 50)
    changed = Case(longest=1)(rows, MutationContext(space, rows, np.random.default_rng(0)))
    assert {tuple(row) for row in changed.data.tolist()} == {(1, 2, 1), (0, 2, 0)}


def test_case_leaves_characters_that_only_the_tokenizer_knows():
    space = TextSpace(tuple("aA"), readers=(small_lms.tokens(),))
    assert set(change(Case(), "\U0001d4d7a\U00020bb7", space)) == {"\U0001d4d7A\U00020bb7"}


def test_case_follows_the_space():
    operator = Case()
    assert set(change(operator, "a", TextSpace(("a", "A")))) == {"A"}
    assert set(change(operator, "a", TextSpace(("x", "A", "a")))) == {"A"}
