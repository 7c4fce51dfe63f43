"""The longest piece of a text that stands somewhere in a large one, found by a suffix array."""

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.types import Array, IntArray

BETWEEN = b"\xff"  # separates the texts that are searched; never in UTF-8
_ELSEWHERE = b"\xfe"  # separates the texts that are searched for
_KEY = 8  # bytes that are sorted at once
_MOST = 2**31 - 2 * _KEY
_SHORT = 32  # bytes of most matches
_AT_ONCE = 1 << 24  # bytes compared in one step


class Suffixes:
    """Hold the order of all suffixes of ``data`` (UTF-8, texts separated by BETWEEN).

    Takes 10 bytes of memory per byte of data, and up to 100 while it is made. Raises UsageError for 2 GiB or
    more.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) >= _MOST:
            raise UsageError(f"the texts to search have {len(data)} bytes; they must be less than 2 GiB")
        self.data = data
        keys = np.ndarray((len(data),), ">u8", data + BETWEEN * _KEY, strides=(1,))
        self._order = _sorted(keys.astype(np.uint64)).astype(np.intp)

    def longest(self, texts: list[str], places: list[IntArray]) -> list[IntArray]:
        """Return how many characters from each place of each text on stand somewhere in the data.

        places: per text, positions (P,) of characters in it.
        """
        coded = [text.encode("utf-8", "surrogatepass") for text in texts]
        whole = _ELSEWHERE.join([*coded, b""])
        starts = np.flatnonzero((np.frombuffer(whole, np.uint8) & 0xC0) != 0x80)  # of characters
        before = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
        which = np.concatenate([p + b for p, b in zip(places, before, strict=True)]).astype(np.int64)
        asked = starts[which]
        found = np.searchsorted(starts, asked + self._bytes(whole, asked), side="right") - 1 - which
        return np.split(found, np.cumsum([len(p) for p in places])[:-1])

    def _bytes(self, query: bytes, asked: IntArray) -> IntArray:
        """Return the longest match (Q,) in bytes of what stands at the places ``asked`` (Q,) of ``query``.

        The match is with one of the two suffixes between which the text would stand in their order. Most are
        short: whatever matches to the full width is looked for again, by more bytes.
        """
        found = np.zeros(len(asked), np.int64)
        left, width = np.argsort(_windows(query, 8, _ELSEWHERE)[asked]), _SHORT
        while len(left):
            sought, suffixes = _windows(query, width, _ELSEWHERE), _windows(self.data, width, BETWEEN)
            for rows in np.array_split(left, len(left) * width // _AT_ONCE + 1):
                keys = sought[asked[rows]]
                place = np.searchsorted(suffixes, keys, sorter=self._order)
                for beside in (place - 1, place):
                    other = suffixes[self._order[beside.clip(0, len(suffixes) - 1)]]
                    found[rows] = np.maximum(found[rows], _alike(keys, other))
            left, width = left[found[left] == width], width * 4
        return found


def _windows(data: bytes, width: int, filler: bytes) -> Array:
    """Return the ``width`` bytes from each place of ``data`` on, without a copy of each."""
    return np.ndarray((len(data),), f"S{width}", data + filler * width, strides=(1,))


def _alike(one: Array, other: Array) -> IntArray:
    """Return how many leading bytes (Q,) two arrays of strings of one width have in common."""
    shape = (len(one), one.itemsize)
    same = one.view(np.uint8).reshape(shape) == other.view(np.uint8).reshape(shape)
    return np.where(same.all(axis=1), one.itemsize, same.argmin(axis=1))


def _sorted(keys: Array) -> IntArray:
    """Return the places int32 (N,) of all suffixes in order, given the first 8 bytes of each as a number.

    This is prefix doubling (Manber & Myers 1993, section 3); it sorts again only what is still tied, as
    Larsson & Sadakane (2007) do.
    """
    size, width = len(keys), _KEY
    order = np.argsort(keys).astype(np.int32)
    sorted_keys = keys[order]
    new = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1], [True]])
    slots = np.arange(size)
    rank = np.full(size + 1, size, np.int64)  # the first slot of those that begin alike; the end is last
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
