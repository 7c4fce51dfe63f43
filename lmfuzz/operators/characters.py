"""Operators on single symbols and on spans of symbols."""

from dataclasses import dataclass

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.pieces import PerSpace, Piece, below, concatenate, erase, places, put, spans
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import ForTexts, MutationContext
from lmfuzz.types import Batch, IntArray


@dataclass(frozen=True)
class Insert(ForTexts):
    """Insert a random symbol.

    Insert, Delete and Substitute are the text mutations of TensorFuzz (Odena & Goodfellow 2018).
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        fresh = context.text.draw(context.rng, (len(rows), 1))
        none = np.zeros(len(rows), np.int64)
        return put(rows, places(rows.lengths + 1, context.rng), none, Piece(fresh, none, none + 1), context)


@dataclass(frozen=True)
class Delete(ForTexts):
    """Delete a symbol; a prompt of minimal length also gets a random one in front."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        return erase(rows, places(rows.lengths, context.rng), np.minimum(rows.lengths, 1), context)


@dataclass(frozen=True)
class Substitute(ForTexts):
    """Replace a symbol with another random one."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        where = np.arange(len(rows)), places(rows.lengths, context.rng)
        data = rows.data.copy()
        data[where] = context.text.others(data[where], context.rng)
        return rows.changed(data)


@dataclass(frozen=True)
class Swap(ForTexts):
    """Swap two adjacent symbols."""

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; a row of one symbol stays as it is."""
        every = np.arange(len(rows))
        first = places(rows.lengths - 1, context.rng)
        second = np.minimum(first + 1, np.maximum(rows.lengths - 1, 0))
        data = rows.data.copy()
        data[every, first], data[every, second] = rows.data[every, second], rows.data[every, first]
        return rows.changed(data)


@dataclass(frozen=True)
class Repeat(ForTexts):
    """Repeat a span of up to ``longest`` symbols right after itself, 1 to ``times`` times."""

    longest: Count = 8
    times: Count = 4

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        start, size = spans(rows.lengths, self.longest, context.rng)
        times = context.rng.integers(1, self.times + 1, size=len(rows))
        copies = [Piece(rows.data, start, np.where(times > i, size, 0)) for i in range(self.times)]
        head = Piece(rows.data, np.zeros_like(start), start + size)
        tail = Piece(rows.data, start + size, rows.lengths - start - size)
        return concatenate(rows, [head, *copies, tail], context)


@dataclass(frozen=True)
class Erase(ForTexts):
    """Erase a span of up to ``longest`` symbols, but leave the prompt its minimal length."""

    longest: Count = 16

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; one of minimal length loses a symbol and gains one in front."""
        return erase(rows, *spans(rows.lengths, _spare(rows, context, self.longest), context.rng), context)


@dataclass(frozen=True)
class Shift(ForTexts):
    """Drop up to ``longest`` symbols at the front, but leave the prompt its minimal length."""

    longest: Count = 8

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; the first symbol of one of minimal length becomes random."""
        size = np.minimum(1 + below(_spare(rows, context, self.longest), context.rng), rows.lengths)
        return erase(rows, np.zeros_like(size), size, context)


def _spare(rows: Batch, context: MutationContext, longest: int) -> IntArray:
    """Return how many symbols (B,) each row may lose: at least 1, at most ``longest``."""
    return np.asarray(np.clip(rows.lengths - context.text.min_length, 1, longest))


@dataclass(frozen=True)
class Copy(ForTexts):
    """Copy a span of up to ``longest`` symbols to another place: insert it, or overwrite what is there."""

    longest: Count = 16

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        start, size = spans(rows.lengths, self.longest, context.rng)
        over = np.where(context.rng.random(len(rows)) < 0.5, size, 0)
        at = places(rows.lengths - over + 1, context.rng)
        return put(rows, at, over, Piece(rows.data, start, size), context)


class Case(ForTexts):
    """Change the case of up to ``longest`` successive letters."""

    def __init__(self, longest: Count = 8) -> None:
        self.longest = longest
        self._others = PerSpace(_other_case)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; one without letters of two cases stays as it is."""
        known = self._others(context.text)
        others = np.where(rows.data < len(known), known.take(rows.data, mode="clip"), rows.data)
        letters = (others != rows.data) & (np.arange(rows.data.shape[1]) < rows.lengths[:, None])
        rank = letters.cumsum(axis=1)  # 1 for the first letter of a row
        first, size = spans(rank[:, -1], self.longest, context.rng)
        chosen = letters & (rank > first[:, None]) & (rank <= (first + size)[:, None])
        return rows.changed(np.where(chosen, others, rows.data))


def _other_case(space: TextSpace) -> IntArray:
    """Return for every symbol the one with its text in another case, or itself: int32 (V,)."""
    ids = {text: i for i, text in enumerate(space.symbols)}

    def other(text: str) -> int:
        cases = (text.swapcase(), text.lower(), text.title(), text.upper())
        return next((ids[case] for case in cases if case != text and case in ids), ids[text])

    return np.fromiter(map(other, space.symbols), np.int32, len(space.symbols))
