"""The longest piece of a text that stands in others is what plain search says it is."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.objectives import suffixes
from lmfuzz.objectives.suffixes import BETWEEN, Suffixes


def slowly(documents, text, place):
    """How many characters from ``place`` on stand in some document."""
    lengths = range(len(text) - place, 0, -1)
    return next((n for n in lengths if any(text[place : place + n] in d for d in documents)), 0)


pieces = st.one_of(
    st.text("ab", min_size=1, max_size=40), st.text("ab \né€😀", min_size=1, max_size=30),
    st.builds(str.__mul__, st.text("abc", min_size=1, max_size=4), st.integers(1, 12)),
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(pieces, min_size=1, max_size=4),
    st.lists(pieces | st.just(""), min_size=1, max_size=4),
    st.data(),
)
@example(["a  bbbabbabaabab   a  b", "abab   a"], ["bbbabbabaabab   a  b"], None)
@example(["aaaaaaaa"], ["aaaaaaaaaaaaaaaaaaaaaaaa", "\ud800a\0"], None)
@example(["é"], ["è", "é", "\xa9"], None)
def test_the_longest_match_at_every_place_is_what_plain_search_finds(documents, texts, data):
    if data is not None:  # texts that go into a document and out of it again
        source = data.draw(st.sampled_from(documents))
        start = data.draw(st.integers(0, len(source)))
        texts = [*texts, texts[0] + source[start:] + texts[0]]
    index = Suffixes(BETWEEN.join(document.encode() for document in documents))
    found = index.longest(texts, [np.arange(len(text)) for text in texts])
    for text, lengths in zip(texts, found, strict=True):
        assert lengths.tolist() == [slowly(documents, text, place) for place in range(len(text))]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text("ab", min_size=1, max_size=300))
def test_suffixes_are_in_their_order(text):
    order = Suffixes(text.encode())._order.tolist()
    assert order == sorted(range(len(text)), key=lambda place: text[place:] + "\U0010ffff")


def test_places_may_be_few():
    index = Suffixes(b"to be or not to be")
    found = index.longest(["not to", "", "x"], [np.array([0, 3]), np.array([], np.int64), np.array([0])])
    assert [lengths.tolist() for lengths in found] == [[6, 3], [], [0]]


def test_too_much_text_is_refused(monkeypatch):
    monkeypatch.setattr(suffixes, "_MOST", 5)
    with pytest.raises(UsageError, match="must be less than 2 GiB"):
        Suffixes(b"to be")
