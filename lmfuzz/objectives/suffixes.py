"""The longest piece of a text that stands somewhere in a large one: a suffix array made of arrays."""

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.types import Array, IntArray

BETWEEN = b"\xff"  # what stands between texts that are searched; never in UTF-8
_ELSEWHERE = b"\xfe"  # what stands between those searched for
_KEY = 8  # bytes compared at once
_MOST = 2**31 - 2 * _KEY


class Suffixes:
    """Where every suffix of ``data`` (UTF-8, texts with BETWEEN between them) stands in their order.

    Takes 14 bytes of memory a byte of data, up to 100 while it is made. UsageError for 2 GiB or more.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) >= _MOST:
            raise UsageError(f"the texts to search have {len(data)} bytes, must be less than 2 GiB")
        self.data = data
        self._at = _keys(data)
        self._order = _sorted(self._at[: len(data)].astype(np.uint64))
        self._first = self._at[self._order].astype(np.uint64)

    def longest(self, texts: list[str], places: list[IntArray]) -> list[IntArray]:
        """How many characters from each of the places of each text on stand somewhere in the data.

        places: per text, positions (P,) of characters in it.
        """
        coded = [text.encode("utf-8", "surrogatepass") for text in texts]
        whole = np.frombuffer(_ELSEWHERE.join([*coded, b""]), np.uint8)
        starts = np.flatnonzero((whole & 0xC0) != 0x80)  # of characters, the separators among them
        before = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
        which = np.concatenate([p + b for p, b in zip(places, before, strict=True)]).astype(np.int64)
        asked = starts[which]
        stop = asked + self._bytes(_keys(whole.tobytes()), asked)
        found = np.searchsorted(starts, stop, side="right") - 1 - which  # whole characters alone
        return np.split(found, np.cumsum([len(p) for p in places])[:-1])

    def _bytes(self, query: Array, asked: IntArray) -> IntArray:
        """The longest match (Q,) in bytes of what stands at the places ``asked`` (Q,) of a text.

        Key by key the part [low, high) of the suffixes that go on like the text gets smaller. Where none is
        left, one of the two between which the text would stand has most in common with it.
        """
        found = np.zeros(len(asked), np.int64)
        left = np.argsort(query[asked].astype(np.uint64))  # neighbours look at the same memory
        key = query[asked[left]].astype(np.uint64)
        begin, end = np.zeros(len(left), np.int64), np.full(len(left), len(self._order))
        low: IntArray = np.searchsorted(self._first, key)
        high: IntArray = np.searchsorted(self._first, key, side="right")
        depth = 0
        while len(left):
            out = low == high
            rows = left[out]
            common = np.zeros(len(rows), np.int64)
            for beside in (low[out] - 1, low[out]):
                inside = (beside >= begin[out]) & (beside < end[out])
                other = self._key(np.where(inside, beside, 0), depth)
                common = np.maximum(common, np.where(inside, _alike(key[out], other), 0))
            found[rows] = depth + common
            left, begin, end = left[~out], low[~out], high[~out]
            depth += _KEY
            key = query[asked[left] + depth].astype(np.uint64)
            low, high = self._narrow(key, begin, end, depth)
        return found

    def _narrow(self, key: Array, begin: IntArray, end: IntArray, depth: int) -> tuple[IntArray, IntArray]:
        """The first suffixes (Q,) from ``begin`` to ``end`` whose key is not less, and is more."""
        bounds = []
        for less in (np.less, np.less_equal):
            low, high = begin.copy(), end.copy()
            while (open_ := low < high).any():
                middle = (low + high) // 2
                before = less(self._key(np.where(open_, middle, 0), depth), key)
                low = np.where(open_ & before, middle + 1, low)
                high = np.where(open_ & ~before, middle, high)
            bounds.append(low)
        return bounds[0], bounds[1]

    def _key(self, suffix: IntArray, depth: int) -> Array:
        """The 8 bytes that stand ``depth`` bytes behind where each suffix begins."""
        place = np.minimum(self._order[suffix].astype(np.int64) + depth, len(self.data))
        return self._at[place].astype(np.uint64)


def _keys(data: bytes) -> Array:
    """At each place of ``data`` and at its end the next 8 bytes, as a number that sorts like them."""
    padded = data + BETWEEN * 2 * _KEY
    return np.ndarray((len(data) + _KEY,), ">u8", padded, strides=(1,))


def _sorted(keys: Array) -> IntArray:
    """The places int32 (N,) of all suffixes in their order, from the first 8 bytes of each.

    Prefix doubling (Manber & Myers 1993, section 3), which sorts again only what is still tied, as Larsson &
    Sadakane (2007) do.
    """
    size, width = len(keys), _KEY
    order = np.argsort(keys).astype(np.int32)
    sorted_keys = keys[order]
    new = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1], [True]])
    slots = np.arange(size)
    rank = np.full(size + 1, size, np.int64)  # the slot where those that begin alike start; the end is last
    rank[order] = np.maximum.accumulate(np.where(new[:-1], slots, 0))
    while len(tied := np.flatnonzero(~(new[:-1] & new[1:]))):
        place = order[tied]
        pair = rank[place] * (size + 1) + rank[np.minimum(place.astype(np.int64) + width, size)]
        by = np.argsort(pair)
        place, pair = place[by], pair[by]
        order[tied] = place
        new[tied] = np.concatenate([[True], pair[1:] != pair[:-1]])
        rank[place] = np.maximum.accumulate(np.where(new[tied], tied, 0))
        width *= 2
    return order


def _alike(one: Array, other: Array) -> IntArray:
    """How many leading bytes (Q,) two keys have in common."""
    differ = one ^ other
    same = [differ >> np.uint64(64 - 8 * count) == 0 for count in range(1, _KEY + 1)]
    alike: IntArray = np.sum(same, axis=0)
    return alike
