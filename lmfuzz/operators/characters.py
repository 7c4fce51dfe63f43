"""Operators on single symbols and on spans of a row."""

from dataclasses import dataclass

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.pieces import PerSpace, Piece, below, concatenate, erase, places, put, spans
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import ForTexts, MutationContext
from lmfuzz.types import Batch, IntArray


@dataclass(frozen=True)
class Insert(ForTexts):
    """Inserts a random symbol.

    With Delete and Substitute one of the three text mutations of TensorFuzz (Odena & Goodfellow 2018).
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        fresh = context.text.draw(context.rng, (len(rows), 1))
        none = np.zeros(len(rows), np.int64)
        return put(rows, places(rows.lengths + 1, context.rng), none, Piece(fresh, none, none + 1), context)


@dataclass(frozen=True)
class Delete(ForTexts):
    """Deletes a symbol; a row at its shortest gets a random one in front instead."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        return erase(rows, places(rows.lengths, context.rng), np.minimum(rows.lengths, 1), context)


@dataclass(frozen=True)
class Substitute(ForTexts):
    """Replaces a symbol by another random one."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        where = np.arange(len(rows)), places(rows.lengths, context.rng)
        data = rows.data.copy()
        data[where] = context.text.others(data[where], context.rng)
        return rows.changed(data)


@dataclass(frozen=True)
class Swap(ForTexts):
    """Swaps two neighbouring symbols."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a row of one symbol stays as it is."""
        every = np.arange(len(rows))
        first = places(rows.lengths - 1, context.rng)
        second = np.minimum(first + 1, np.maximum(rows.lengths - 1, 0))
        data = rows.data.copy()
        data[every, first], data[every, second] = rows.data[every, second], rows.data[every, first]
        return rows.changed(data)


@dataclass(frozen=True)
class Repeat(ForTexts):
    """Repeats a span of up to ``longest`` symbols up to ``times`` more times, right behind itself."""

    longest: Count = 8
    times: Count = 4

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        start, size = spans(rows.lengths, self.longest, context.rng)
        times = context.rng.integers(1, self.times + 1, size=len(rows))
        copies = [Piece(rows.data, start, np.where(times > i, size, 0)) for i in range(self.times)]
        head = Piece(rows.data, np.zeros_like(start), start + size)
        tail = Piece(rows.data, start + size, rows.lengths - start - size)
        return concatenate(rows, [head, *copies, tail], context)


@dataclass(frozen=True)
class Erase(ForTexts):
    """Erases a span of up to ``longest`` symbols, as far as the row may get shorter."""

    longest: Count = 16

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; one at its shortest loses a symbol and gets a random one in front."""
        return erase(rows, *spans(rows.lengths, _spare(rows, context, self.longest), context.rng), context)


@dataclass(frozen=True)
class Shift(ForTexts):
    """Drops up to ``longest`` symbols at the front, as far as the row may get shorter."""

    longest: Count = 8

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; in one at its shortest the first symbol becomes a random one."""
        size = np.minimum(1 + below(_spare(rows, context, self.longest), context.rng), rows.lengths)
        return erase(rows, np.zeros_like(size), size, context)


def _spare(rows: Batch, context: MutationContext, longest: int) -> IntArray:
    """How many symbols (B,) a row may lose, ``longest`` at most and 1 at least."""
    spare: IntArray = np.clip(rows.lengths - context.text.min_length, 1, longest)
    return spare


@dataclass(frozen=True)
class Copy(ForTexts):
    """Copies a span of up to ``longest`` symbols to another place, inserted or written over what is there."""

    longest: Count = 16

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        start, size = spans(rows.lengths, self.longest, context.rng)
        over = np.where(context.rng.random(len(rows)) < 0.5, size, 0)
        at = places(rows.lengths - over + 1, context.rng)
        return put(rows, at, over, Piece(rows.data, start, size), context)


class Case(ForTexts):
    """Changes the case of up to ``longest`` letters in a row."""

    def __init__(self, longest: Count = 8) -> None:
        self.longest = longest
        self._others = PerSpace(_other_case)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a row without a letter that has another case stays as it is."""
        others = self._others(context.text).take(rows.data, mode="clip")
        letters = (others != rows.data) & (np.arange(rows.data.shape[1]) < rows.lengths[:, None])
        rank = letters.cumsum(axis=1)  # 1 for the first letter of a row
        first, size = spans(rank[:, -1], self.longest, context.rng)
        chosen = letters & (rank > first[:, None]) & (rank <= (first + size)[:, None])
        return rows.changed(np.where(chosen, others, rows.data))


def _other_case(space: TextSpace) -> IntArray:
    """For every symbol int32 (V,) the one that writes it in another case, itself where there is none."""
    ids = {text: i for i, text in enumerate(space.symbols)}

    def other(text: str) -> int:
        cases = (text.swapcase(), text.lower(), text.title(), text.upper())
        return next((ids[case] for case in cases if case != text and case in ids), ids[text])

    return np.fromiter(map(other, space.symbols), np.int32, len(space.symbols))
