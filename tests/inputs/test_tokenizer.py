"""Texts as tokens and back, for tokenizers of both great families, with and without surroundings."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from helpers import small_lms
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace, describe, described
from lmfuzz.inputs.tokenizer import Tokens

examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Co", "Cn")), min_size=1, max_size=7)


@cache
def pieces() -> str:
    """A tokenizer in the manner of Llama 2: blanks are a sign, bytes stand for what is in no piece."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    for piece in (
        "\u2581",
        *"abcdefghiklmnopqrstuvwxyz[]/IN.,!",
        "th",
        "the",
        "in",
        "ing",
        "\u2581the",
        "\u2581k",
        "\u2581king",
    ):
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("i", "n"),
        ("in", "g"),
        ("\u2581", "the"),
        ("\u2581", "k"),
        ("\u2581k", "ing"),
    ]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made.to_str()


WAYS = {
    "bytes": lambda: small_lms.tokens(),
    "bytes, marked": lambda: small_lms.tokens(marker=True),
    "bytes, chat": lambda: small_lms.tokens(chat=True, system="Be brief."),
    "pieces": lambda: Tokens(pieces()),
    "pieces, chat": lambda: Tokens(pieces(), "<s>[INST]", "[/INST]", special=False),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@examples
@given(text=TEXTS)
def test_texts_come_back(way, text):
    tokens = WAYS[way]()
    try:
        row = tokens.encode(text)
    except UsageError:
        return  # it has no tokens of its own
    assert row.dtype == np.int32
    assert tokens.texts([row]) == [text]


@every_way
@examples
@given(text=TEXTS)
def test_rows_and_surroundings_are_the_whole_prompt(way, text):
    tokens = WAYS[way]()
    (whole,) = tokens.prompts([text])
    assert tuple(whole[: len(tokens.prefix)]) == tokens.prefix
    try:
        row = tokens.encode(text)
    except UsageError:
        return
    assert tokens.around([row]) == [whole]


@every_way
@examples
@given(text=TEXTS, cut=st.integers(0, 20))
def test_outputs_are_what_follows_the_prompt(way, text, cut):
    """A text cut in two at any token is the text of both, unless a character is cut in two."""
    tokens = WAYS[way]()
    ids = tokens.tokenizer.encode(f"a{text}", add_special_tokens=False).ids
    cut = 1 + cut % max(1, len(ids) - 1)
    prompt, output = ids[:cut], ids[cut:]
    (written,) = tokens.written([prompt], [output])
    before = tokens.tokenizer.decode(prompt)
    if "\ufffd" not in before:
        assert before + written == f"a{text}"


def test_prefixes_and_suffixes():
    assert Tokens(pieces()).prefix == (1,)  # the blank in front becomes part of a word
    assert Tokens(pieces()).suffix == ()
    chat = small_lms.tokens(chat=True)
    symbols = chat.symbols
    assert "".join(symbols[i] for i in chat.prefix) == chat.before
    assert "".join(symbols[i] for i in chat.suffix) == chat.behind


def test_symbols_are_the_texts_of_tokens_after_others():
    tokens = Tokens(pieces())
    ids = tokens.tokenizer.get_vocab()
    assert tokens.symbols[ids["\u2581king"]] == " king"
    assert tokens.symbols[ids["ing"]] == "ing"
    assert tokens.symbols[ids["<0xE4>"]] == "\ufffd"
    assert not set(tokens.plain) & {0, 1, 2, ids["<0xE4>"]}
    assert ids["<0x41>"] in tokens.plain
    assert tokens.specials == {0, 1, 2}
    assert len(tokens.symbols) == tokens.size


def test_characters_are_those_that_the_tokenizer_can_spell():
    assert {"a", "\n", "\u4e16", "\U0001f600", "\t"} <= set(Tokens(pieces()).characters)
    assert "\u2581" not in Tokens(pieces()).characters  # it comes back as a blank
    few = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>"))
    few.add_special_tokens(["<unk>"])
    few.decoder = decoders.Fuse()
    assert Tokens(few.to_str()).characters == ("a", "b")


@pytest.mark.parametrize("text", ["\U0001f1e9\U0001f1ea", "\U000e0062", "\U0001d4d7", "\U00020bb7", "\ue000"])
def test_a_character_of_several_tokens_may_be_in_a_row_beside_the_symbols(text):
    tokens = small_lms.tokens()
    space = TextSpace(("a", "b"), readers=(tokens,))
    row = space.encode(f"a{text}b")
    assert space.knows(text)
    assert space.decode(row) == f"a{text}b"
    assert space.legal(space.batch([row])).all()
    again = described(json.loads(json.dumps(describe(space))))
    assert again.decode(again.unpack(space.pack(row))) == f"a{text}b"
    assert again.legal(again.batch([row])).all()
    drawn = replace(space, drawn=(0,)).drawing(row)
    assert set(text) <= set(drawn.decode(drawn.draw(np.random.default_rng(0), (99,))))
    with pytest.raises(UsageError, match="is not in the model's alphabet"):
        TextSpace(("a", "b")).encode(text)


@pytest.mark.parametrize(
    ("normalizer", "read", "unread"),
    [
        (normalizers.Lowercase(), "aB", "\u00e9C"),
        (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "a\u00e4\u0301", "AC\u00e9"),
        (normalizers.NFKC(), "\uff41\u24d1", "A\uff23"),
        (None, "ab", "AB\u00e4"),
    ],
)
@pytest.mark.parametrize("unknown", ["<unk>", None])
def test_a_character_is_read_if_the_normalizer_makes_a_known_one_of_it(normalizer, read, unread, unknown):
    few = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token=unknown))
    few.decoder = decoders.Fuse()
    if normalizer:
        few.normalizer = normalizer
    tokens = Tokens(few.to_str())
    assert all(map(tokens.reads, read))
    assert not any(map(tokens.reads, unread + " \u2603\U0001f600\ud800"))


def test_several_readers_must_all_read_a_character():
    few = Tokens(Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>")).to_str())
    assert TextSpace(("a",), readers=(small_lms.tokens(), few)).knows("ab")
    assert not TextSpace(("a",), readers=(small_lms.tokens(), few)).knows("c")
    assert TextSpace(("a",), readers=(small_lms.tokens(),)).knows("c")


def test_what_is_spelled_in_bytes_is_read():
    assert all(map(Tokens(pieces()).reads, "aA \n\u00e9\u2603\u2581\U0001f1e9\U000e0062"))
    assert not Tokens(pieces()).reads("\udc00")


def test_a_blank_that_splits_words_is_read():
    few = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2, "##a": 3}, unk_token="[UNK]"))
    few.normalizer, few.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    few.decoder = decoders.WordPiece()
    tokens = Tokens(few.to_str())
    assert all(map(tokens.reads, "aAB \n\u0301"))
    assert not any(map(tokens.reads, "cC.\u2603"))


def test_what_no_token_spells_is_not_known():
    few = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>"))
    tokens = Tokens(few.to_str())
    assert tokens.knows("abba")
    assert not tokens.knows("abc")
    assert not TextSpace(tokens.symbols, tokens=tokens).knows("c")
    assert small_lms.tokens().knows("\U0010fffd")


def test_a_text_without_tokens_of_its_own_is_refused():
    few = Tokenizer(models.BPE({"a": 0, "b": 1, "Z": 2}, []))
    few.normalizer = normalizers.Replace("b", "")
    with pytest.raises(UsageError, match="has no tokens of its own"):
        Tokens(few.to_str()).encode("b")


# -- random symbols --


@examples
@given(drawn=st.sets(st.integers(0, 9), min_size=1), seed=st.integers(0, 99))
def test_random_symbols_are_of_those_that_are_drawn(drawn, seed):
    space = TextSpace(tuple("abcdefghij"), drawn=tuple(sorted(drawn)))
    rng = np.random.default_rng(seed)
    assert set(space.draw(rng, (50, 3)).ravel().tolist()) <= drawn
    symbols = np.arange(10, dtype=np.int32).repeat(5)
    others = space.others(symbols, rng)
    assert set(others.tolist()) <= drawn
    if len(drawn) > 1:
        assert (others != symbols).all()


def test_all_others_are_as_likely():
    space = TextSpace(tuple("abcdefghij"), drawn=(1, 4, 6, 9))
    rng = np.random.default_rng(0)
    for symbol, choice in ((4, (1, 6, 9)), (0, (1, 4, 6, 9))):
        found = space.others(np.full(6000, symbol, np.int32), rng)
        assert np.unique(found).tolist()[: len(choice)] == list(choice)[: len(np.unique(found))]
        counts = np.bincount(found, minlength=10)[list(choice)]
        assert counts[counts > 0].min() > 0.85 * 6000 / len(choice)


def test_what_stands_in_the_seeds_is_drawn_too():
    space = TextSpace(tuple("abcdefghij"), drawn=(1, 4))
    assert space.drawing(np.array([4, 8, 8])).drawn == (1, 4, 8)
    every = TextSpace(tuple("abc"))
    assert every.drawing(np.array([1])) is every
