"""Spaces of legal rows: texts of known symbols, or numbers in a box."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.types import PAD, Array, Batch, BoolArray, FloatArray, IntArray, per_row

Spans = list[tuple[IntArray, IntArray]]  # per axis: start and stop (B,)
OTHERS = 2**24  # + the code point: a character that is not among the symbols of a space with readers
Rows = Literal["text", "tokens", "box", "image"]  # tokens are also texts, and images are also boxes


@dataclass(frozen=True)
class TextSpace:
    """Describe the legal rows of a text model: from ``min_length`` to ``max_length`` of its symbols.

    Attributes:
        symbols: the text of every symbol: one character each, or of tokens any text.
        min_length: the symbols of the shortest row.
        max_length: the symbols of the longest row.
        drawn: the symbols that random choices are made from; () is all of them.
        tokens: the tokenizer, if the symbols are its tokens.
        readers: the tokenizers that read the texts, if the symbols are characters: any other character that
            all of them can read may be in a row, too.
    """

    symbols: tuple[str, ...]
    min_length: int = 1
    max_length: int = 64
    drawn: tuple[int, ...] = ()
    tokens: Tokens | None = None
    readers: tuple[Tokens, ...] = field(default=(), compare=False, repr=False)

    @property
    def rows(self) -> frozenset[Rows]:
        """The kinds of rows these are."""
        return frozenset({"text"} if self.tokens is None else {"text", "tokens"})

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.symbols)}

    @cached_property
    def _letters(self) -> Array | None:
        """The code points uint32 (V,) of symbols that are one character each, or None if some are not."""
        single = all(len(text) == 1 for text in self.symbols)
        return np.array([ord(text) for text in self.symbols], np.uint32) if single else None

    @cached_property
    def _choice(self) -> IntArray:
        """The symbols int32 that random choices are made from."""
        return np.array(self.drawn or range(len(self.symbols)), np.int32)

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> IntArray:
        """Return random symbols int32, each of those that are drawn with the same probability."""
        if not self.drawn:
            return rng.integers(len(self.symbols), size=size, dtype=np.int32)
        return np.asarray(self._choice[rng.integers(len(self._choice), size=size)])

    def others(self, symbols: IntArray, rng: np.random.Generator) -> IntArray:
        """Return another random symbol for each of ``symbols`` (B,), or the same if there is no other."""
        known = len(self._choice)
        offsets = rng.integers(1, max(known, 2), size=len(symbols))
        if not self.drawn:
            return ((symbols + offsets) % known).astype(np.int32)
        places = np.searchsorted(self._choice, symbols).clip(max=known - 1)
        inside = self._choice[places] == symbols  # otherwise any will do
        return np.asarray(self._choice[np.where(inside, (places + offsets) % known, offsets - 1)])

    def drawing(self, symbols: IntArray) -> "TextSpace":
        """Return the same space, in which ``symbols`` are drawn as well."""
        if not self.drawn:
            return self
        return replace(self, drawn=tuple(np.union1d(self._choice, symbols).tolist()))

    def encode(self, text: str) -> IntArray:
        """Return the symbols int32 (N,) of ``text``; raise UsageError for a character that is not one."""
        if self.tokens is not None:
            return self.tokens.encode(text)
        if odd := [c for c in text if not self._has(c)]:
            raise UsageError(f"character {odd[0]!r} is not in the model's alphabet")
        return np.fromiter((self._ids[c] for c in text), np.int32, len(text))

    def _has(self, character: str) -> bool:
        """Return whether a character is a symbol; one that all readers read becomes one."""
        if character not in self._ids and self.readers and all(r.reads(character) for r in self.readers):
            self._ids[character] = OTHERS + ord(character)
        return character in self._ids

    def knows(self, text: str) -> bool:
        """Return whether every character of ``text`` is a symbol, or has tokens."""
        return self.tokens.knows(text) if self.tokens else all(map(self._has, text))

    def knows_case(self, character: str) -> bool:
        """Return whether it knows a character, small or large."""
        return any(map(self.knows, {character, character.lower(), character.upper()}))

    def decode(self, symbols: IntArray) -> str:
        """Return the text of symbols (N,) up to the first PAD."""
        padding = np.flatnonzero(symbols == PAD)
        stop = padding[0] if len(padding) else len(symbols)
        return self.decode_rows(symbols[None], np.array([stop]))[0]

    def respelled(self, row: IntArray) -> IntArray | None:
        """Return the row that the tokenizer makes of the text of ``row``, or None if it is the same."""
        if self.tokens is None:
            return None
        try:
            spelled = self.encode(self.decode(row))
        except UsageError:  # there is no such text
            return np.empty(0, np.int32)
        return None if np.array_equal(spelled, row) else spelled

    def texts(self, batch: Batch) -> list[str]:
        """Return the text of every row."""
        return self.decode_rows(batch.data, batch.lengths)

    def decode_rows(self, data: IntArray, lengths: IntArray) -> list[str]:
        """Return the texts of rows of symbols (B, T), of which ``lengths`` (B,) are valid."""
        rows = [row[:n] for row, n in zip(data, lengths.tolist(), strict=True)]
        if self.tokens is not None:
            return self.tokens.texts(rows)
        if self._letters is None:
            return ["".join(self.symbols[i] for i in row.tolist()) for row in rows]
        inside = np.where(np.arange(data.shape[1]) < lengths[:, None], data, 0)
        letters = self._letters.take(inside, mode="clip")  # all rows at once, which is 10 times as fast
        codes = np.where(inside < OTHERS, letters, inside - OTHERS).astype("<u4")
        whole, width = codes.tobytes().decode("utf-32-le", "surrogatepass"), data.shape[1]
        return [whole[i * width : i * width + n] for i, n in enumerate(lengths.tolist())]

    def leads(self, batch: Batch) -> list[str]:
        """Return the last character before the output of each row: of the prompt, or of what follows it."""
        texts, readers = self.texts(batch), [self.tokens, *self.readers]
        first = next((reader for reader in readers if reader is not None), None)
        return [text[-1:] for text in (first.placed(texts) if first else texts)]

    def name(self, row: IntArray, origin: int, distance: float) -> str:
        """Return what a person calls a row: its text."""
        return self.decode(row)

    def batch(self, rows: Sequence[Array] | Array) -> Batch:
        """Return rows of symbols as seeds."""
        return Batch.of(list(rows))

    def empty(self, rows: int) -> Array:
        """Return zeros for the content of ``rows`` rows."""
        return np.zeros((rows, self.max_length), np.int32)

    def pack(self, row: IntArray) -> bytes:
        """Return a row's symbols as bytes."""
        return row.astype("<i4").tobytes()

    def unpack(self, data: bytes) -> IntArray:
        """Return what ``pack`` was given; raise ValueError for symbols that do not exist."""
        row = np.frombuffer(data, "<i4").astype(np.int32)
        if self.symbols and not self._exist(row).all():  # a damaged campaign does not say which there are
            raise ValueError("a row holds symbols that do not exist")
        return row

    def distance(self, a: IntArray, b: IntArray) -> float:
        """Return the Levenshtein distance: the symbols to insert, delete or substitute."""
        from rapidfuzz.distance import Levenshtein  # only here: most campaigns do without

        return float(Levenshtein.distance(a.tolist(), b.tolist()))

    def legal(self, batch: Batch) -> BoolArray:
        """Return which rows (B,) are inside the space."""
        fits = (batch.lengths >= self.min_length) & (batch.lengths <= self.max_length)
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        return np.asarray(fits & (self._exist(batch.data) | ~valid).all(axis=1))

    def _exist(self, symbols: IntArray) -> BoolArray:
        """Return which of the symbols there are."""
        other = (symbols >= OTHERS) & (symbols <= OTHERS + sys.maxunicode)
        return (symbols >= 0) & (symbols < len(self.symbols)) | (other & (self.tokens is None))


@dataclass(frozen=True)
class BoxSpace:
    """Describe the legal rows of a function of tensors: arrays of numbers. An empty box is a UsageError.

    Attributes:
        shape: of a row; images are (H, W, C) with one or three channels.
        low: the smallest legal value.
        high: the largest legal value.
        step: the distance between neighbouring legal values, 1/255 for images of 8 bits; 0 allows all floats.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    step: float = 0.0

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise UsageError(f"the shape of a box needs axes of at least 1, not {self.shape}")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise UsageError(f"a box needs finite bounds, low < high, not {self.low} and {self.high}")
        if not 0 <= self.step <= self.high - self.low:
            raise UsageError(f"the step of a box must be between 0 and its width, not {self.step}")

    @property
    def rows(self) -> frozenset[Rows]:
        """The kinds of rows these are."""
        return frozenset({"box", "image"} if self.image else {"box"})

    @property
    def image(self) -> bool:
        """Whether a row is an image: (H, W, 1) or (H, W, 3)."""
        return len(self.shape) == 3 and self.shape[2] in (1, 3)

    @property
    def cuttable(self) -> tuple[int, ...]:
        """The sizes of the axes that can be cut, which the channels of an image cannot."""
        return self.shape[:2] if self.image else self.shape

    def block(self, spans: Spans) -> BoolArray:
        """Return which values lie within the spans of all cuttable axes, to be combined with (B, *shape)."""
        inside: BoolArray = np.ones([1] * (len(self.shape) + 1), bool)
        for i, (start, stop) in enumerate(spans):
            along = per_row(np.arange(self.shape[i]), len(self.shape) - i)
            inside = inside & (along >= per_row(start, inside.ndim)) & (along < per_row(stop, inside.ndim))
        return inside

    def batch(self, rows: Sequence[Array] | Array) -> Batch:
        """Return rows of values as seeds."""
        data = np.asarray(rows, np.float32).reshape(len(rows), *self.shape)
        lengths = np.full(len(data), prod(self.shape), np.int32)
        return Batch.of([np.empty(0, np.int32)] * len(data)).changed(data, lengths)

    def empty(self, rows: int) -> FloatArray:
        """Return zeros for the content of ``rows`` rows."""
        return np.zeros((rows, *self.shape), np.float32)

    def settle(self, data: FloatArray) -> FloatArray:
        """Return the nearest legal values to ``data``: in range, and on the grid if there is one."""
        data = np.asarray(data, np.float32)  # of one precision, so that a place on the grid has one value
        if self.step:
            data = self.low + self.step * np.rint((data - self.low) / self.step)
        return np.clip(data, self.low, self.high).astype(np.float32, copy=False)

    def decode(self, row: FloatArray) -> str:
        """Return a row in a few words, or its numbers if they are few."""
        if row.size <= 8:
            return " ".join(f"{value:.6g}" for value in row.ravel().tolist())
        return "x".join(map(str, self.shape)) + f" mean {row.mean():.3f}"

    def name(self, row: FloatArray, origin: int, distance: float) -> str:
        """Return what a person calls a row: its numbers if they are few, or how it came from its seed."""
        if row.size <= 8:
            return self.decode(row)
        return f"seed {origin} changed by {distance:.3g}" if distance else f"seed {origin}"

    def texts(self, batch: Batch) -> list[str]:
        """Return every row in a few words."""
        return [self.decode(row) for row in batch.data]

    @property
    def _bytes(self) -> bool:
        """Whether a value of the grid fits into a byte."""
        return self.step > 0 and round((self.high - self.low) / self.step) <= 255

    def pack(self, row: FloatArray) -> bytes:
        """Return a legal row's values as bytes: places on the grid if it has at most 256."""
        if self._bytes:
            return np.asarray(np.rint((row - self.low) / self.step).astype(np.uint8)).tobytes()
        return np.ascontiguousarray(row, "<f4").tobytes()

    def unpack(self, data: bytes) -> FloatArray:
        """Return what ``pack`` was given."""
        if self._bytes:
            found = np.frombuffer(data, np.uint8).astype(np.float32)
            return self.settle(self.low + self.step * found).reshape(self.shape)
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(self.shape)

    def distance(self, a: FloatArray, b: FloatArray) -> float:
        """Return the largest change of a value (L-infinity)."""
        return float(np.abs(a.astype(np.float64) - b).max())

    def legal(self, batch: Batch) -> BoolArray:
        """Return which rows (B,) are inside the space."""
        values = batch.data.reshape(len(batch), prod(self.shape))
        inside = np.logical_and(values >= self.low, values <= self.high)
        on_grid = np.equal(self.settle(values), values) if self.step else inside
        return np.asarray(np.logical_and.reduce(inside & on_grid, axis=1))


Space = TextSpace | BoxSpace


def describe(space: Space) -> dict[str, Any]:
    """Return the space as plain data for ``described``, without ``drawn``."""
    if isinstance(space, BoxSpace):
        return asdict(space)
    tokens, single = space.tokens, all(len(symbol) == 1 for symbol in space.symbols)
    symbols: Any = "".join(space.symbols) if single else list(space.symbols)
    return {
        "symbols": symbols if tokens is None else "", "min_length": space.min_length,
        "max_length": space.max_length, "tokens": None if tokens is None else tokens.pack(),
    }  # fmt: skip


def described(data: Mapping[str, Any]) -> Space:
    """Return what ``describe`` was given."""
    if "symbols" in data:
        tokens = None if data["tokens"] is None else Tokens.unpack(data["tokens"])
        symbols = tuple(data["symbols"]) if tokens is None else tokens.symbols
        return TextSpace(**{**data, "symbols": symbols, "tokens": tokens})
    return BoxSpace(**{**data, "shape": tuple(data["shape"])})
