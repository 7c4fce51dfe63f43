"""What a legal row is: a text of known symbols, or numbers in a box."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.types import PAD, SEED, Array, Batch, BoolArray, FloatArray, IntArray

Rows = Literal["text", "tokens", "box", "image"]  # tokens are texts, too, and images are boxes


@dataclass(frozen=True)
class TextSpace:
    """Legal rows of a text model: ``min_length`` to ``max_length`` symbols out of ``symbols``.

    ``symbols[i]`` is the text of symbol i: one character each, unless they are ``tokens`` of a tokenizer,
    which then spells texts. drawn: the symbols that random choices are made from; () is all of them.
    """

    symbols: tuple[str, ...]
    min_length: int = 1
    max_length: int = 64
    drawn: tuple[int, ...] = ()
    tokens: Tokens | None = None

    @property
    def rows(self) -> frozenset[Rows]:
        """What kinds of rows these are."""
        return frozenset({"text"} if self.tokens is None else {"text", "tokens"})

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.symbols)}

    @cached_property
    def _texts(self) -> Array:
        return np.array(self.symbols, dtype=object)

    @cached_property
    def _letters(self) -> Array | None:
        """The code points uint32 (V,) of symbols that are one character each; None where some are not."""
        single = all(len(text) == 1 for text in self.symbols)
        return np.array([ord(text) for text in self.symbols], np.uint32) if single else None

    @cached_property
    def _choice(self) -> IntArray:
        """What random choices are made from, int32."""
        return np.array(self.drawn or range(len(self.symbols)), np.int32)

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> IntArray:
        """Random symbols int32, each of those that are drawn as often."""
        if not self.drawn:
            return rng.integers(len(self.symbols), size=size, dtype=np.int32)
        found: IntArray = self._choice[rng.integers(len(self._choice), size=size)]
        return found

    def others(self, symbols: IntArray, rng: np.random.Generator) -> IntArray:
        """For each of ``symbols`` (B,) another random one, itself where there is no other."""
        known = len(self._choice)
        offsets = rng.integers(1, max(known, 2), size=len(symbols))
        if not self.drawn:
            return ((symbols + offsets) % known).astype(np.int32)
        places = np.searchsorted(self._choice, symbols).clip(max=known - 1)
        inside = self._choice[places] == symbols  # else any will do
        found: IntArray = self._choice[np.where(inside, (places + offsets) % known, offsets - 1)]
        return found

    def drawing(self, symbols: IntArray) -> "TextSpace":
        """The same space in which ``symbols`` are drawn, too."""
        if not self.drawn:
            return self
        return replace(self, drawn=tuple(np.union1d(self._choice, symbols).tolist()))

    def encode(self, text: str) -> IntArray:
        """The symbols int32 (N,) of ``text``; UsageError when a character is not in the alphabet."""
        if self.tokens is not None:
            return self.tokens.encode(text)
        try:
            return np.fromiter((self._ids[c] for c in text), np.int32, len(text))
        except KeyError as error:
            raise UsageError(f"character {error.args[0]!r} is not in the model's alphabet") from None

    def knows(self, text: str) -> bool:
        """Whether every character of ``text`` is a symbol, or has tokens."""
        if self.tokens is not None:
            return self.tokens.spells(text)
        return all(c in self._ids for c in text)

    def decode(self, symbols: IntArray) -> str:
        """The text of symbols (N,); PAD and all behind it is left out."""
        stop = np.flatnonzero(symbols == PAD)
        shown = symbols[: stop[0]] if len(stop) else symbols
        return self.tokens.texts([shown])[0] if self.tokens is not None else "".join(self._texts[shown])

    def respelled(self, row: IntArray) -> IntArray | None:
        """How the text of ``row`` by itself is spelled, where that is another row; None where it is not."""
        if self.tokens is None:
            return None
        try:
            spelled = self.encode(self.decode(row))
        except UsageError:  # there is no such text
            return np.empty(0, np.int32)
        return None if np.array_equal(spelled, row) else spelled

    def texts(self, batch: Batch) -> list[str]:
        """The text of every row."""
        return self.decode_rows(batch.data, batch.lengths)

    def decode_rows(self, data: IntArray, lengths: IntArray) -> list[str]:
        """The texts of rows of symbols (B, T), of which ``lengths`` (B,) are valid."""
        if self.tokens is not None:
            return self.tokens.texts([row[:n] for row, n in zip(data, lengths.tolist(), strict=True)])
        if self._letters is None:
            return [self.decode(row[:n]) for row, n in zip(data, lengths.tolist(), strict=True)]
        width = data.shape[1]
        inside = np.where(np.arange(width) < lengths[:, None], data, 0)
        whole = (
            self._letters[inside].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        )  # all rows at once: 10 times as fast
        return [whole[i * width : i * width + n] for i, n in enumerate(lengths.tolist())]

    def name(self, row: IntArray, origin: int, distance: float) -> str:
        """What a person calls a row: its text."""
        return self.decode(row)

    def batch(self, rows: Sequence[Array]) -> Batch:
        """Rows of symbols as seeds."""
        return Batch.of(rows)

    def empty(self, rows: int) -> Array:
        """Make room for the content of ``rows`` rows."""
        return np.zeros((rows, self.max_length), np.int32)

    def pack(self, row: IntArray) -> bytes:
        """A row's symbols as bytes."""
        return row.astype("<i4").tobytes()

    def unpack(self, data: bytes) -> IntArray:
        """What ``pack`` was given; ValueError for symbols that there are not."""
        row = np.frombuffer(data, "<i4").astype(np.int32)
        known = len(self.symbols)  # 0 where a damaged campaign does not say which there are
        if known and not ((row >= 0) & (row < known)).all():
            raise ValueError("a row holds symbols that there are not")
        return row

    def distance(self, a: IntArray, b: IntArray) -> float:
        """How many symbols have to be put in, taken out or changed (Levenshtein)."""
        from rapidfuzz.distance import Levenshtein  # only where it is used

        return float(Levenshtein.distance(a.tolist(), b.tolist()))

    def legal(self, batch: Batch) -> BoolArray:
        """Which rows (B,) are inside the space."""
        fits = (batch.lengths >= self.min_length) & (batch.lengths <= self.max_length)
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        known = (batch.data >= 0) & (batch.data < len(self.symbols))
        legal: BoolArray = fits & (known | ~valid).all(axis=1)
        return legal


@dataclass(frozen=True)
class BoxSpace:
    """Legal rows of a function of tensors: arrays of one ``shape`` with values from ``low`` to ``high``.

    Images are (H, W, C) with one or three channels. step: the distance between neighbouring legal
    values, 1/255 for images of 8 bits; 0 is any float32. UsageError for a box that holds nothing.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    step: float = 0.0

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise UsageError(
                f"the shape of a box must have one axis or more, each at least 1, not {self.shape}"
            )
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise UsageError(
                f"a box goes from a finite number to a larger one, not {self.low} to {self.high}"
            )
        if not 0 <= self.step <= self.high - self.low:
            raise UsageError(f"the step of a box must be between 0 and its width, not {self.step}")

    @property
    def rows(self) -> frozenset[Rows]:
        """What kinds of rows these are."""
        return frozenset({"box", "image"} if self.image else {"box"})

    @property
    def image(self) -> bool:
        """Whether a row can be looked at: (H, W, 1) or (H, W, 3)."""
        return len(self.shape) == 3 and self.shape[2] in (1, 3)

    def batch(self, rows: Sequence[Array] | Array) -> Batch:
        """Rows of values as seeds."""
        data = np.asarray(rows, np.float32).reshape(len(rows), *self.shape)
        many = len(data)
        return Batch(
            data, np.full(many, prod(self.shape), np.int32), np.full(many, SEED, np.int64),
            np.full(many, SEED, np.int32), np.arange(many),
        )  # fmt: skip

    def empty(self, rows: int) -> FloatArray:
        """Make room for the content of ``rows`` rows."""
        return np.zeros((rows, *self.shape), np.float32)

    def settle(self, data: FloatArray) -> FloatArray:
        """The legal values nearest to ``data``: in range, and on the grid where there is one."""
        data = np.asarray(data, np.float32)  # in one precision, so that a place has one value
        if self.step:
            data = self.low + self.step * np.rint((data - self.low) / self.step)
        return np.clip(data, self.low, self.high).astype(np.float32, copy=False)

    def decode(self, row: FloatArray) -> str:
        """A row in a few words: its numbers where they are few."""
        if row.size <= 8:
            return " ".join(f"{value:.6g}" for value in row.ravel().tolist())
        return "x".join(map(str, self.shape)) + f" mean {row.mean():.3f}"

    def name(self, row: FloatArray, origin: int, distance: float) -> str:
        """What a person calls a row: its numbers where they are few, else how it came from its seed."""
        if row.size <= 8:
            return self.decode(row)
        return f"seed {origin} changed by {distance:.3g}" if distance else f"seed {origin}"

    def texts(self, batch: Batch) -> list[str]:
        """The words for every row."""
        return [self.decode(row) for row in batch.data]

    @property
    def _bytes(self) -> bool:
        """Whether a value of the grid fits into a byte."""
        return self.step > 0 and round((self.high - self.low) / self.step) <= 255

    def pack(self, row: FloatArray) -> bytes:
        """A legal row's values as bytes: places on the grid where it has at most 256."""
        if self._bytes:
            places: Array = np.rint((row - self.low) / self.step).astype(np.uint8)
            return places.tobytes()
        return np.ascontiguousarray(row, "<f4").tobytes()

    def unpack(self, data: bytes) -> FloatArray:
        """What ``pack`` was given."""
        if self._bytes:
            found = np.frombuffer(data, np.uint8).astype(np.float32)
            return self.settle(self.low + self.step * found).reshape(self.shape)
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(self.shape)

    def distance(self, a: FloatArray, b: FloatArray) -> float:
        """The largest change of a value (L-infinity)."""
        return float(np.abs(a.astype(np.float64) - b).max())

    def legal(self, batch: Batch) -> BoolArray:
        """Which rows (B,) are inside the space."""
        values = batch.data.reshape(len(batch), prod(self.shape))
        inside = np.logical_and(values >= self.low, values <= self.high)
        on_grid = np.equal(self.settle(values), values) if self.step else inside
        legal: BoolArray = np.logical_and.reduce(inside & on_grid, axis=1)
        return legal


Space = TextSpace | BoxSpace


def describe(space: Space) -> dict[str, Any]:
    """The space as plain data, for ``described``; ``symbols`` is a text's alphabet, ``drawn`` left out."""
    if isinstance(space, BoxSpace):
        return asdict(space)
    tokens, single = space.tokens, all(len(symbol) == 1 for symbol in space.symbols)
    symbols: Any = "".join(space.symbols) if single else list(space.symbols)
    return {
        "symbols": symbols if tokens is None else "", "min_length": space.min_length,
        "max_length": space.max_length, "tokens": None if tokens is None else tokens.pack(),
    }  # fmt: skip


def described(data: Mapping[str, Any]) -> Space:
    """What ``describe`` was given."""
    if "symbols" in data:
        tokens = None if data["tokens"] is None else Tokens.unpack(data["tokens"])
        symbols = tuple(data["symbols"]) if tokens is None else tokens.symbols
        return TextSpace(**{**data, "symbols": symbols, "tokens": tokens})
    return BoxSpace(**{**data, "shape": tuple(data["shape"])})
