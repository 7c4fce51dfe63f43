"""The room that texts take in a page, and how they are cut to what there is.

Room is bytes of HTML: of what was escaped as for a terminal, escaped for the page, in UTF-8. Every cut is
to be seen: '...' stands in its place.
"""

from bisect import bisect_right
from collections.abc import Sequence
from html import escape

from lmfuzz import text as texts

Marked = tuple[str, str, str]  # an output before, in and behind its bad part
LEAST = 20  # bytes beside a bad part, however long that is


def size(text: str) -> int:
    """The bytes that an escaped ``text`` takes in the page."""
    return len(escape(text).encode())


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """``room`` for texts of these sizes: what one does not need goes to those that need more."""
    given = [0] * len(sizes)
    for done, i in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        given[i] = min(sizes[i], room // (len(sizes) - done))
        room -= given[i]
    return given


def cut(text: str, room: int) -> str:
    """An escaped ``text`` without its middle where that takes more than ``room``."""
    if size(text) <= room:
        return text
    half = (room - 3) // 2
    return f"{_head(text, half)}...{_tail(text, half)}"


def quoted(text: str, room: int) -> str:
    """``text`` escaped and in quotes, cut to ``room``."""
    return f'"{cut(texts.escape(text), room)}"'


def trimmed(parts: Marked, room: int) -> Marked:
    """An output whose bad part stays before what is around it."""
    before, bad, after = parts
    if not bad:
        return cut(before, room), "", ""
    bad = bad if size(bad) <= room else f"{_head(bad, room - 3)}..."
    left, right = shares([size(before), size(after)], max(LEAST, room - size(bad)))
    before = before if size(before) <= left else f"...{_tail(before, left - 3)}"
    return before, bad, after if size(after) <= right else f"{_head(after, right - 3)}..."


def _head(text: str, room: int) -> str:
    some = text[:room]
    return some[: bisect_right(range(1, len(some) + 1), room, key=lambda n: size(some[:n]))]


def _tail(text: str, room: int) -> str:
    return _head(text[::-1], room)[::-1]
