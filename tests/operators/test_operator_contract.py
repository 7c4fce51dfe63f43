"""What every operator promises, whatever it does."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.registered import making, registered
from helpers.spellings import letters
from lmfuzz.inputs.spaces import BoxSpace, Rows, TextSpace
from lmfuzz.operators import OPERATORS, suits
from lmfuzz.protocols import MutationContext, Operator
from lmfuzz.types import Batch

VARIANTS = (
    "repeat:longest=12,times=9", "tail:share=1.0", "havoc:depth=4", "neighbour:count=1", "respell:longest=1",
)  # fmt: skip
MAKERS: Mapping[str, Callable[[], Operator]] = {
    **registered("text", "tokens"),
    **{text: making(text) for text in VARIANTS},
}
ON_TOKENS = {name for name in MAKERS if MAKERS[name]().rows == "tokens"}
ALPHABET = tuple("aAbBcCdD .")
TOKENS = letters(ALPHABET, 40)  # the alphabet, and texts of two to six of its characters
GARBAGE = np.array([-(2**31), -7, -1, 0, len(ALPHABET), 10**6, 2**31 - 1], np.int32)


class Parrot:
    """A sampler whose symbols depend on the last valid one of each row and on the generator."""

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    def sample(self, batch, new, temperature, rng):
        assert new >= 1
        assert temperature > 0
        assert (batch.lengths >= 1).all()
        assert batch.lengths.dtype == np.int32
        last = batch.data[np.arange(len(batch)), batch.lengths - 1]
        drawn = rng.integers(self.symbols, size=(len(batch), new))
        return ((last[:, None] + drawn) % self.symbols).astype(np.int32)


class Circle:
    """A lexicon in which token i is most like those behind it, and every seventh one is rare."""

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    @property
    def rare(self):
        return np.arange(0, self.symbols, 7, dtype=np.int32)

    def neighbours(self, symbols, count):
        assert count >= 1
        assert ((symbols >= 0) & (symbols < self.symbols)).all()
        return ((symbols[:, None] + 1 + np.arange(count)) % self.symbols).astype(np.int32)


def space_of(symbols, *bounds) -> TextSpace:
    """A space of characters, or of the tokens of a tokenizer."""
    return (
        TextSpace(symbols, *bounds)
        if symbols is not TOKENS
        else TextSpace(TOKENS.symbols, *bounds, tokens=TOKENS)
    )


def garbled(batch: Batch, seed: int, more: int = 3) -> Batch:
    """The same rows with other things beyond ``lengths``, and with more columns of them."""
    rng = np.random.default_rng(seed)
    data = rng.choice(GARBAGE, (len(batch), batch.data.shape[1] + more))
    valid = np.arange(data.shape[1]) < batch.lengths[:, None]
    data[valid] = batch.data[valid[:, : batch.data.shape[1]]]
    return replace(batch, data=data)


def locked(batch: Batch) -> Batch:
    """The same rows in arrays that cannot be written to."""
    for array in (batch.data, batch.lengths, batch.parent, batch.operator):
        array.flags.writeable = False
    return batch


def rows_of(lengths: list[int], symbols: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    batch = Batch.of([rng.integers(symbols, size=n) for n in lengths])
    return replace(
        batch,
        parent=rng.integers(-1, 10**12, size=len(batch)),
        operator=rng.integers(-1, 99, size=len(batch), dtype=np.int32),
    )


@st.composite
def scenes(draw, tokens=False):
    """Legal rows and a legal pool in some space, a seed, and whether there is a sampler.

    tokens: only spaces of tokens, else of characters, too.
    """
    shortest = draw(st.integers(1, 6))
    tokens = tokens or draw(st.booleans())
    symbols = TOKENS if tokens else ALPHABET[: draw(st.integers(2, len(ALPHABET)))]
    space = space_of(symbols, shortest, shortest + draw(st.integers(0, 14)))
    legal = st.sampled_from([space.min_length, space.max_length]) | st.integers(
        space.min_length, space.max_length
    )
    seed = draw(st.integers(0, 10**6))
    rows = rows_of(draw(st.lists(legal, min_size=1, max_size=7)), len(space.symbols), seed)
    pool = rows_of(draw(st.lists(legal, min_size=1, max_size=4)), len(space.symbols), seed + 1)
    sampler = Parrot(len(space.symbols)) if draw(st.booleans()) else None
    return rows, pool, space, sampler, seed


def around(space, pool, sampler, seed) -> MutationContext:
    lexicon = Circle(len(space.symbols)) if space.tokens is not None else None
    return MutationContext(space, pool, np.random.default_rng(seed), sampler, lexicon)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same rows, whatever stands beyond their lengths."""
    return (
        one.lengths.tolist() == other.lengths.tolist()
        and all((one.row(i) == other.row(i)).all() for i in range(len(one)))
        and (one.parent == other.parent).all()
        and (one.operator == other.operator).all()
    )


every_operator = pytest.mark.parametrize("name", MAKERS)
in_every_space = pytest.mark.parametrize(
    ("name", "symbols"),
    [
        (name, kind)
        for name in MAKERS
        for kind in (ALPHABET, TOKENS)
        if kind is TOKENS or name not in ON_TOKENS
    ],
    ids=lambda value: value if isinstance(value, str) else "tokens" if value is TOKENS else "characters",
)
examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@every_operator
@examples
@given(data=st.data())
def test_makes_legal_rows_of_legal_rows_in_the_same_order(name, data):
    rows, pool, space, sampler, seed = data.draw(scenes(tokens=name in ON_TOKENS))
    changed = MAKERS[name]()(locked(rows), around(space, locked(pool), sampler, seed))
    assert space.legal(changed).all()
    assert len(changed) == len(rows) == len(changed.data)
    assert changed.data.dtype == changed.lengths.dtype == np.int32
    assert changed.data.shape[1] >= changed.lengths.max()
    assert (changed.parent == rows.parent).all()
    assert (changed.operator == rows.operator).all()


@every_operator
@examples
@given(data=st.data())
def test_depends_on_valid_symbols_and_the_seed_only(name, data):
    rows, pool, space, sampler, seed = data.draw(scenes(tokens=name in ON_TOKENS))
    operator = MAKERS[name]()
    changed = operator(rows, around(space, pool, sampler, seed))
    again = MAKERS[name]()(rows, around(space, pool, sampler, seed))
    assert same(changed, again)
    for more in (0, 30):
        other = operator(garbled(rows, seed, more), around(space, garbled(pool, seed, more), sampler, seed))
        assert same(changed, other)


@in_every_space
@pytest.mark.parametrize("bounds", [(1, 32), (24, 24), (20, 24)])
@pytest.mark.parametrize("sampler", [None, Parrot(len(ALPHABET))])
def test_changes_most_rows(name, symbols, bounds, sampler):
    space = space_of(symbols, *bounds)
    lengths = np.random.default_rng(3).integers(20, 25, size=100).clip(*bounds).tolist()
    rows = rows_of(lengths, len(space.symbols), 4)
    pool = rows_of(lengths, len(space.symbols), 5)
    changed = MAKERS[name]()(rows, around(space, pool, sampler, 6))
    differs = [changed.row(i).tolist() != rows.row(i).tolist() for i in range(len(rows))]
    assert np.mean(differs) > 0.75


@in_every_space
def test_rows_next_to_each_other_change_in_different_ways(name, symbols):
    space = space_of(symbols, 1, 32)
    rows = Batch.of([np.arange(24) % len(space.symbols)] * 100)
    pool = rows_of([24] * 50, len(space.symbols), 7)
    changed = MAKERS[name]()(rows, around(space, pool, None, 8))
    assert len({changed.row(i).tobytes() for i in range(100)}) >= 8


@in_every_space
def test_no_rows_give_no_rows(name, symbols):
    space = space_of(symbols)
    none, pool = rows_of([5], len(space.symbols), 0)[:0], rows_of([5], len(space.symbols), 1)
    assert len(MAKERS[name]()(none, around(space, pool, Parrot(9), 0))) == 0


@every_operator
def test_is_described_in_its_first_line(name):
    first = type(MAKERS[name]()).__doc__.splitlines()[0]
    assert 20 < len(first) < 110
    assert first.endswith((".", ";"))


# --- what every registered operator says of itself, those on numbers, too (see test_operators_pixels) ---

SPACES = {
    "text": TextSpace(ALPHABET),
    "tokens": TextSpace(TOKENS.symbols, tokens=TOKENS),
    "box": BoxSpace((3,)),
    "image": BoxSpace((4, 4, 1)),
}
SUITED = {"text": {"text", "tokens"}, "tokens": {"tokens"}, "box": {"box", "image"}, "image": {"image"}}


@pytest.mark.parametrize("name", OPERATORS.table)
def test_every_operator_says_for_which_rows_it_is(name):
    found = OPERATORS.find(name)
    assert found.rows in get_args(Rows), "so that it is in the tests of its kind"
    lexicon = Circle(len(TOKENS.symbols))
    assert {kind for kind, space in SPACES.items() if suits(found, space, lexicon)} == SUITED[found.rows]


def test_a_function_of_a_user_is_for_all_rows_and_one_that_goes_by_a_lexicon_needs_one():
    def mine(rows, context):
        return rows

    assert all(suits(mine, space, None) for space in SPACES.values())
    known = [name for name in OPERATORS.table if suits(OPERATORS.find(name), SPACES["tokens"], None)]
    assert "respell" in known
    assert not {"neighbour", "rare"} & {*known}
