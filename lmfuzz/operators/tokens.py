"""Operators on rows of tokens: by what the model makes of them, and by how else a text can be spelled."""

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
    """Replaces a token by one of the ``count`` that are nearest to it in the model's embedding space."""

    count: Count = 10

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; a token without neighbours stays, and so does an empty row."""
        at = places(rows.lengths, context.rng)
        some = np.flatnonzero(rows.lengths)
        where = some, at[some]
        data = rows.data.copy()
        found = _lexicon(context).neighbours(data[where], self.count)
        data[where] = found[np.arange(len(some)), context.rng.integers(self.count, size=len(some))]
        return rows.changed(data)


@dataclass(frozen=True)
class Rare(ForKnownTokens):
    """Inserts a token that the model hardly saw in training, or writes it over what is there.

    Which tokens these are says an indicator of Land & Bartolo 2024 (arXiv 2405.05417): `lmfuzz tokens`
    shows them.
    """

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``."""
        rare = _lexicon(context).rare
        fresh = rare[context.rng.integers(len(rare), size=(len(rows), 1))]
        over = np.where(context.rng.random(len(rows)) < 0.5, np.minimum(rows.lengths, 1), 0)
        at = places(rows.lengths - over + 1, context.rng)
        none = np.zeros_like(at)
        return put(rows, at, over, Piece(fresh, none, none + 1), context)


def _lexicon(context: MutationContext) -> Lexicon:
    if context.lexicon is None:
        raise UsageError(
            "neighbour and rare need a model of tokens that shows its embeddings; take others with --operator"
        )
    return context.lexicon


class Splits(NamedTuple):
    """All ways to write a token as two: those of token i are ``pairs[first[i] : first[i + 1]]``."""

    first: IntArray  # (V + 1,)
    pairs: IntArray  # int32 (N, 2)


class Respell(ForTokens):
    """Spells the texts of up to ``longest`` tokens with two tokens each, so that the row's text stays.

    A tokenizer never spells a text like that, so a model seldom saw it. A row that gets too long loses
    tokens at its front, as always.
    """

    def __init__(self, longest: Count = 4) -> None:
        self.longest = longest
        self._splits = PerSpace(_splits)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``; one in which no token is two others stays as it is."""
        first, pairs = self._splits(context.text)
        ways = np.diff(first).take(rows.data, mode="clip")
        ways[np.arange(rows.data.shape[1]) >= rows.lengths[:, None]] = 0
        chosen = self._chosen(ways > 0, context)
        row, at = chosen.nonzero()
        found = pairs[first[rows.data[row, at]] + below(ways[row, at], context.rng)]
        data = np.stack([rows.data, np.zeros_like(rows.data)], axis=2)  # (B, T, 2), one of them unless split
        data[row, at] = found
        sizes = np.where(chosen, 2, np.arange(rows.data.shape[1]) < rows.lengths[:, None])
        lengths = sizes.sum(axis=1)
        wide = np.zeros((len(rows), int(lengths.max(initial=1))), np.int32)
        wide[np.arange(wide.shape[1]) < lengths[:, None]] = data[np.arange(2) < sizes[..., None]]
        return concatenate(rows, [Piece(wide, np.zeros_like(lengths), lengths)], context)

    def _chosen(self, can: BoolArray, context: MutationContext) -> BoolArray:
        """Neighbours among the tokens that ``can`` (B, T) be split, bool (B, T)."""
        rank = can.cumsum(axis=1)  # 1 for the first of a row
        count = rank[:, -1]
        size = np.minimum(1 + below(np.minimum(count, self.longest), context.rng), count)
        start = places(count - size + 1, context.rng)[:, None]
        chosen: BoolArray = can & (rank > start) & (rank <= start + size[:, None])
        return chosen


def _splits(space: TextSpace) -> Splits:
    """Whole texts only: parts of characters would be others next to each other."""
    if space.tokens is None:
        raise UsageError("respell changes tokens; take --level token with it")
    plain = space.tokens.plain
    ids = {space.symbols[i]: i for i in plain}
    ways = {i: _halves(space.symbols[i], ids) for i in plain}
    counts = [len(ways.get(i, ())) for i in range(len(space.symbols))]
    pairs = [pair for i in plain for pair in ways[i]]
    return Splits(np.concatenate([[0], np.cumsum(counts)]), np.array(pairs, np.int32).reshape(-1, 2))


def _halves(text: str, ids: dict[str, int]) -> list[tuple[int, int]]:
    cuts = ((text[:i], text[i:]) for i in range(1, len(text)))
    return [(ids[head], ids[tail]) for head, tail in cuts if head in ids and tail in ids]
