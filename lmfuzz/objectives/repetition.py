"""Output that repeats itself: one word many times in a row, or an exact loop of characters."""

import re
from functools import lru_cache
from itertools import groupby, islice
from operator import eq

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.plugins.bounds import Several, Whole
from lmfuzz.protocols import ForTexts
from lmfuzz.text import plural
from lmfuzz.types import Array, Batch, Evidence, FloatArray, IntArray, Trace

QUOTES = "'\"\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb`"  # with the apostrophe; they separate no words
WORD = re.compile(rf"[\w{QUOTES}]+")
BLANK = np.array([chr(code).isspace() for code in range(0x3002)])  # of characters; no blank is above these


class _Folding(dict[int, str | None]):
    """Translate characters: those of words stay, quotes vanish, and all others become blanks."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        inside = character.isalnum() or character == "_"
        self[code] = None if character in QUOTES else character if inside else " "
        return self[code]


FOLDING = _Folding()


class Repetition(ForTexts):
    """Find outputs that repeat a word ``times`` times in a row, or go round a loop ``rounds`` times.

    After TensorFuzz (Odena & Goodfellow 2018), whose character model should not repeat one word too many
    times in a row. Words are compared without case, and blanks and punctuation between them do not matter.
    A loop is exact: a stretch with a period of 1 to ``period`` characters, at least ``rounds`` periods and
    ``minimum`` characters long, so "...." or "no, no, no" is not one yet. It goes by characters, not tokens,
    so that it works for any black box.

    There is one column, and a bucket each for words and for loops. Their variants are the word, or the
    loop's canonical period if the loop is more than one word, wherever in its round the loop was entered.

    Margins: the share of what a hit needs, less 1 (repeats of the word beyond the first, or characters
    equal to the one a period before), the larger of the two; plus half a step, so never 0.

    Args:
        times: how many times in a row a word is repeated.
        period: the longest period of a loop, in characters; 0 looks for words only.
        minimum: the length of the shortest loop, in characters.
        rounds: how many times a loop is gone round.
        blanks: whether blanks and line ends alone are a loop.
    """

    needs = frozenset({"text"})
    targets = ("repetition",)

    def __init__(
        self,
        times: Several = 4,
        period: Whole = 64,
        minimum: int = 20,
        rounds: Several = 3,
        blanks: bool = False,
    ) -> None:
        self.times, self.period, self.rounds, self.blanks = times, period, rounds, blanks
        periods = np.arange(1, period + 1)
        self.needed = np.maximum(rounds * periods, minimum) - periods  # equal characters, by period
        self._loops: dict[str, int] = {}  # the texts last judged that go round a loop -> its period

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        texts = trace["text"]
        runs = _longest_word_runs(texts)
        margins = (runs - 0.5) / (self.times - 1) - 1
        if self.period:
            equal = equal_runs(_codes(texts), self.period, self.blanks)
            # The shortest is not a multiple of another: needed only grows.
            rows, periods = np.nonzero(equal >= self.needed)
            self._loops = dict(zip(texts[rows[::-1]], (periods[::-1] + 1).tolist(), strict=True))
            margins = np.maximum(margins, ((equal + 0.5) / self.needed - 1).max(axis=1))
        return margins.astype(np.float32)[:, None]

    def notes(self, space: TextSpace, steps: int | None = None) -> list[str]:
        """Return which loops are too long to be seen in outputs of ``steps`` characters."""
        if steps is None or space.tokens is not None or steps >= self.rounds * self.period:
            return []
        seen = f"in outputs of {plural(steps, 'character')} only loops of up to {steps // self.rounds} show"
        return [f"{seen}; --max-new {self.rounds * self.period} looks for all up to {self.period}"]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the repeated word, else the loop; raise ValueError if there is neither."""
        text = str(trace["text"][row])
        found = self._word(text) or self._loop(text)
        if found is None:
            raise ValueError("the output does not repeat itself")
        return found

    def _word(self, text: str) -> Evidence | None:
        lowered = text.lower()
        matches = [match for match in WORD.finditer(lowered) if match.group().translate(FOLDING)]
        runs = groupby(matches, key=lambda match: match.group().translate(FOLDING))
        longest = max((list(run) for _, run in runs), key=len, default=[])
        if len(longest) < self.times:
            return None
        word, span = longest[0].group().strip(QUOTES), (longest[0].start(), longest[-1].end())
        words = f"the word '{word}' {len(longest)} times in a row"
        return Evidence("word", words, span if len(lowered) == len(text) else None, f"'{word}'")

    def _loop(self, text: str) -> Evidence | None:
        if text not in self._loops:
            self(Batch.of([]), {"text": np.array([text], dtype=object)})
        if (period := self._loops.get(text)) is None:
            return None
        start, length = _stretch(text, period, self.blanks)
        block = text[start : start + period]
        # A loop of one word belongs to that word's bucket, even if it was cut off early.
        word = self._word(block * (self.times + 1))
        signature, variant = ("word", word.variant) if word else ("loop", f"'{canonical_period(block)}'")
        rounds, s = length / period, "s" * (period > 1)
        words = f"'{block}' {rounds:.1f} times over (a loop of {period} character{s})"
        return Evidence(signature, words, (start, start + length), variant)


@lru_cache(maxsize=4096)
def canonical_period(text: str) -> str:
    """Return the least rotation of the shortest block that ``text`` consists of.

    It is the same for every rotation and every number of repeats of one block.
    """
    period = (text + text).find(text, 1) if text else 0
    block = text[:period]
    return min((block[i:] + block[:i] for i in range(period)), default="")


def equal_runs(codes: IntArray, period: int, blanks: bool = True) -> IntArray:
    """Return the longest runs of symbols equal to the one p places on (B, period), for p = 1 .. ``period``.

    codes: (B, T). A run of n symbols is a stretch of n + p symbols with period p. Unless ``blanks``, those
    of blanks and line ends alone do not count.
    """
    rows, width = codes.shape
    periods = min(period, width - 1)
    equal = np.zeros((max(periods, 0), rows, width + 1), np.bool_)  # each run ends inside its own cell
    for p in range(1, periods + 1):
        np.equal(codes[:, p:], codes[:, :-p], out=equal[p - 1, :, 1 : width - p + 1])
    flat = equal.reshape(-1)
    edges = np.flatnonzero(
        flat[1:] != flat[:-1]
    )  # there are few, so this is cheaper than counting along the text
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    cells, longest = starts // (width + 1), np.zeros(period * rows, np.int64)
    if not blanks and len(starts):
        places = (cells % rows) * (width + 1) + starts % (width + 1)
        written = ~BLANK[codes.clip(0, len(BLANK) - 1)]
        written = np.cumsum(np.pad(written, [(0, 0), (1, 0)]))  # up to each place
        sizes = sizes * (written[places + sizes] > written[places])
    np.maximum.at(longest, cells, sizes)
    return longest.reshape(period, rows).T


def _codes(texts: Array) -> IntArray:
    """Return characters int32 (B, T); after an output's end, numbers that equal no other in the row."""
    strings = texts.astype(np.str_)
    codes = strings.view(np.int32).reshape(len(strings), -1)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    places = np.arange(codes.shape[1])
    return np.where(places < lengths[:, None], codes, -1 - places).astype(np.int32)


def _longest_word_runs(texts: Array) -> FloatArray:
    """Return how many times in a row some word is in each text (B,), at most."""
    # Hardly any text has a word twice in a row, and one look at all of them shows that.
    words = " \0 ".join(texts).lower().translate(FOLDING).split()
    if not any(map(eq, words, islice(words, 1, None))):
        return np.ones(len(texts), np.float32)
    return np.fromiter(map(_longest_word_run, texts), np.float32, len(texts))


def _longest_word_run(text: str) -> int:
    words = text.lower().translate(FOLDING).split()
    return max((len(list(run)) for _, run in groupby(words)), default=1)


def _stretch(text: str, period: int, blanks: bool) -> tuple[int, int]:
    """Return the start and length of the longest stretch with this period, of blanks alone if ``blanks``."""
    best = place = 0
    start = 0
    for same, run in groupby(map(eq, text, text[period:])):
        length = len(list(run))
        if same and length > best and (blanks or not text[place : place + length].isspace()):
            start, best = place, length
        place += length
    return start, best + period
