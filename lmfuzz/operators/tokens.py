"""Operators on tokens, which use the model's embeddings or other tokenizations of a text."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.pieces import PerSpace, Piece, below, concatenate, places, put
from lmfuzz.plugins.bounds import Count
from lmfuzz.protocols import ForKnownTokens, ForTokens, Lexicon, MutationContext
from lmfuzz.types import Batch, BoolArray, IntArray


@dataclass(frozen=True)
class Neighbour(ForKnownTokens):
    """Replace a token with one of the ``count`` nearest to it in the model's embedding space."""

    count: Count = 10

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; an empty row, or a token without neighbours, stays as it is."""
        at = places(rows.lengths, context.rng)
        some = np.flatnonzero(rows.lengths)
        where = some, at[some]
        data = rows.data.copy()
        found = _lexicon(context).neighbours(data[where], self.count)
        data[where] = found[np.arange(len(some)), context.rng.integers(self.count, size=len(some))]
        return rows.changed(data)


@dataclass(frozen=True)
class Rare(ForKnownTokens):
    """Insert a token that the model hardly saw in training, or overwrite what is there.

    An indicator of Land & Bartolo 2024 (arXiv 2405.05417) finds these tokens; `lmfuzz tokens` shows them.
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``."""
        rare = _lexicon(context).rare
        fresh = rare[context.rng.integers(len(rare), size=(len(rows), 1))]
        over = np.where(context.rng.random(len(rows)) < 0.5, np.minimum(rows.lengths, 1), 0)
        at = places(rows.lengths - over + 1, context.rng)
        none = np.zeros_like(at)
        return put(rows, at, over, Piece(fresh, none, none + 1), context)


def _lexicon(context: MutationContext) -> Lexicon:
    if context.lexicon is None:
        raise UsageError("neighbour and rare need a token model that shows embeddings; use --operator havoc")
    return context.lexicon


class Splits(NamedTuple):
    """Hold all ways to write a token as two: those of token i are ``pairs[first[i] : first[i + 1]]``.

    Attributes:
        first: (V + 1,).
        pairs: int32 (N, 2).
    """

    first: IntArray
    pairs: IntArray


class Respell(ForTokens):
    """Write up to ``longest`` successive tokens as two tokens each; the text stays the same.

    A tokenizer never does that, so that the model hardly saw such sequences in training. A prompt that gets
    too long loses tokens at the front.
    """

    def __init__(self, longest: Count = 4) -> None:
        self.longest = longest
        self._splits = PerSpace(_splits)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``; one in which no token can be split stays as it is."""
        first, pairs = self._splits(context.text)
        ways = np.diff(first).take(rows.data, mode="clip")
        ways[np.arange(rows.data.shape[1]) >= rows.lengths[:, None]] = 0
        chosen = self._chosen(ways > 0, context)
        row, at = chosen.nonzero()
        found = pairs[first[rows.data[row, at]] + below(ways[row, at], context.rng)]
        data = np.stack([rows.data, np.zeros_like(rows.data)], axis=2)  # (B, T, 2): halves, or token and 0
        data[row, at] = found
        sizes = np.where(chosen, 2, np.arange(rows.data.shape[1]) < rows.lengths[:, None])
        lengths = sizes.sum(axis=1)
        wide = np.zeros((len(rows), int(lengths.max(initial=1))), np.int32)
        wide[np.arange(wide.shape[1]) < lengths[:, None]] = data[np.arange(2) < sizes[..., None]]
        return concatenate(rows, [Piece(wide, np.zeros_like(lengths), lengths)], context)

    def _chosen(self, can: BoolArray, context: MutationContext) -> BoolArray:
        """Return successive ones of the tokens that ``can`` (B, T) be split, bool (B, T)."""
        rank = can.cumsum(axis=1)  # 1 for the first of a row
        count = rank[:, -1]
        size = np.minimum(1 + below(np.minimum(count, self.longest), context.rng), count)
        start = places(count - size + 1, context.rng)[:, None]
        return np.asarray(can & (rank > start) & (rank <= start + size[:, None]))


def _splits(space: TextSpace) -> Splits:
    """Return the splits of tokens that are whole texts: parts of characters change if they are joined."""
    if space.tokens is None:
        raise UsageError("respell changes tokens, not characters; add --level token")
    plain = space.tokens.plain
    ids = {space.symbols[i]: i for i in plain}
    ways = {i: _halves(space.symbols[i], ids) for i in plain}
    counts = [len(ways.get(i, ())) for i in range(len(space.symbols))]
    pairs = [pair for i in plain for pair in ways[i]]
    return Splits(np.concatenate([[0], np.cumsum(counts)]), np.array(pairs, np.int32).reshape(-1, 2))


def _halves(text: str, ids: dict[str, int]) -> list[tuple[int, int]]:
    cuts = ((text[:i], text[i:]) for i in range(1, len(text)))
    return [(ids[head], ids[tail]) for head, tail in cuts if head in ids and tail in ids]
