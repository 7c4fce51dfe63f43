"""A tokenizer, and the text before and after every prompt."""

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lmfuzz.errors import UsageError, explaining
from lmfuzz.types import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Item = TypeVar("Item")

_PROBES = ("a", "Z", "7", " x", "\nq", "~", "(", "\u00e9", "the")  # begin and end in many ways
_PACKED = ("before", "behind", "special", "strips")  # and the JSON
_CONTEXT = 32  # tokens before an output that are decoded with it, since a character may have several
_AROUND = (("", ""), ("a", "a"))  # what a character is tried between
_CHARACTERS = (range(0x09, 0xD800), range(0xF900, 0xFFFE), range(0x1F300, 0x1FB00))  # BMP and emoji


@dataclass(frozen=True)
class Tokens:
    """Hold a tokenizer of the tokenizers library, and the text around every prompt.

    Attributes:
        json: the tokenizer as its library writes it.
        before: the text before every prompt, such as a system prompt and the beginning of a chat template.
        behind: the text after every prompt.
        special: whether the tokenizer adds its special tokens, such as a beginning of text. Chat templates
            have their own.
        strips: whether the template takes white space off both ends of a prompt.
        template: what makes whole prompts of texts, if more is done to them than ``placed`` does; it is not
            stored with a campaign, whose rows need no more than the texts around them.
    """

    json: str
    before: str = ""
    behind: str = ""
    special: bool = True
    strips: bool = False
    template: Callable[[Sequence[str]], list[str]] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """Return the tokenizer, which neither truncates nor pads."""
        from tokenizers import Tokenizer  # only here: --help and lists do without

        made: Tokenizer = Tokenizer.from_str(self.json)
        made.no_truncation()
        made.no_padding()
        return made

    def added(self, first: int) -> dict[int, str]:
        """Return the tokens that were added to the vocabulary, by id, from the id ``first`` on."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {i: token.content for i, token in sorted(added.items()) if i >= first}

    def within(self, size: int) -> "Tokens":
        """Return the same without added tokens from the id ``size`` on: their names are text like any."""
        data = json.loads(self.json)
        data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < size]
        return replace(self, json=json.dumps(data, ensure_ascii=False))

    @property
    def size(self) -> int:
        """Return the number of tokens, with those that were added to the vocabulary."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """Return the tokens with which every prompt begins, whatever its text."""
        return common(self._probes)

    @cached_property
    def suffix(self) -> tuple[int, ...]:
        """Return the tokens with which every prompt ends, whatever its text."""
        rest = [ids[len(self.prefix) :][::-1] for ids in self._probes]
        return common(rest)[::-1]

    @property
    def needed(self) -> frozenset[int | None]:
        """Return tokens that are in prompts of all kinds: those around the text, and the unknown one."""
        return frozenset([self._unknown, *self.prefix, *self.suffix])

    @cached_property
    def _probes(self) -> list[list[int]]:
        return self.prompts(_PROBES)

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of whole prompts; raise UsageError as ``wholes`` does."""
        whole = self.wholes(texts)
        found = self.tokenizer.encode_batch_fast(whole, add_special_tokens=self.special)
        return [encoding.ids for encoding in found]

    def wholes(self, texts: Sequence[str]) -> list[str]:
        """Return whole prompts as the template makes them; raise UsageError if it cannot take one."""
        if self.template is None:
            return self.placed(texts)
        with explaining("the chat template cannot take the prompt", UsageError):
            return self.template(texts)

    def placed(self, texts: Sequence[str]) -> list[str]:
        """Return texts with what stands around them."""
        return [f"{self.before}{text.strip() if self.strips else text}{self.behind}" for text in texts]

    def knows(self, text: str) -> bool:
        """Return whether ``text`` has tokens, none of them the unknown token; half a surrogate has none."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
        (ids,) = self.prompts([text])
        return self._unknown not in ids

    def reads(self, character: str) -> bool:
        """Return whether the tokenizer gives a character back, or what its normalizer makes of it.

        It may for example be made lower case, or lose its accent. A blank need only split words.
        """
        if "\ud800" <= character <= "\udfff":  # half of a character
            return False
        return any(self._reads(before, character, after) for before, after in _AROUND)

    def _reads(self, before: str, character: str, after: str) -> bool:
        text = before + character + after
        ids, bare = (self.tokenizer.encode(t, add_special_tokens=False).ids for t in (text, before + after))
        back = self.tokenizer.decode(ids, skip_special_tokens=True)
        made, again, without = map(self._normal, (text, back, before + after))
        same = "".join(again.split()) == "".join(made.split()) and self._unknown not in ids
        return back == text or (same and (ids != bare or made == without))

    def _normal(self, text: str) -> str:
        """The text as the normalizer leaves it."""
        normalizer = self.tokenizer.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    @cached_property
    def _unknown(self) -> int | None:
        """The id of the unknown token, if there is one."""
        token = getattr(self.tokenizer.model, "unk_token", None)
        return None if token is None else self.tokenizer.token_to_id(token)

    def around(self, rows: Sequence[IntArray]) -> list[list[int]]:
        """Return the tokens of whole prompts: ``rows`` between the prefix and the suffix.

        Raises:
            UsageError: The template would change the text of one.
        """
        if self.template is not None and self.wholes(texts := self.texts(rows)) != self.placed(texts):
            raise UsageError("the chat template changes the prompt: its text does not become these tokens")
        return [[*self.prefix, *row.tolist(), *self.suffix] for row in rows]

    def encode(self, text: str) -> IntArray:
        """Return the tokens int32 (N,) of ``text`` in a prompt; raise UsageError if there are none."""
        (ids,) = self.prompts([text])
        first, last = len(self.prefix), len(ids) - len(self.suffix)
        if ids[:first] != [*self.prefix] or ids[last:] != [*self.suffix] or first >= last:
            raise UsageError(f"the text {text!r:.80} has no tokens of its own; give another")
        return np.array(ids[first:last], np.int32)

    def texts(self, rows: Sequence[IntArray]) -> list[str]:
        """Return the text of each row of tokens, as it is in a prompt."""
        lead = [token for token in self.prefix if token not in self.specials]
        return self._after([lead] * len(rows), [row.tolist() for row in rows])

    def written(self, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of ``outputs`` after ``prompts``, which may end in the middle of a character."""
        return self._after([list(prompt[-_CONTEXT:]) for prompt in prompts], outputs)

    def _after(self, leads: Sequence[list[int]], rows: Sequence[Sequence[int]]) -> list[str]:
        decode: Any = self.tokenizer.decode_batch
        pairs = list(zip(leads, rows, strict=True))
        whole = decode([[*lead, *row] for lead, row in pairs], skip_special_tokens=False)
        known = decode(leads, skip_special_tokens=False)
        return [
            text[len(lead) :] if text.startswith(lead) else decode([list(row)], skip_special_tokens=False)[0]
            for text, lead, row in zip(whole, known, rows, strict=True)
        ]

    @cached_property
    def specials(self) -> frozenset[int]:
        """Return the ids of special tokens, such as an end of text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Return the text of each token after another one; part of a character is U+FFFD."""
        anchor = self.tokenizer.encode("a", add_special_tokens=False).ids[-1:]
        ids = range(self.size)
        return tuple(self._after([anchor] * len(ids), [[i] for i in ids]))

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """Return the tokens that are whole text: not special, not part of a character, and not empty."""
        texts = enumerate(self.symbols)
        return tuple(i for i, text in texts if i not in self.specials and text and "\ufffd" not in text)

    @property
    def characters(self) -> tuple[str, ...]:
        """Return the characters that encoding and decoding keep, except those of rare scripts."""
        return _characters(self)

    def pack(self) -> dict[str, Any]:
        """Return plain data for ``unpack``, with the JSON compressed, since it can have megabytes."""
        packed = base64.b64encode(zlib.compress(self.json.encode("utf-8", "surrogatepass"))).decode("ascii")
        return {**{name: getattr(self, name) for name in _PACKED}, "json": packed}

    @classmethod
    def unpack(cls, data: dict[str, Any]) -> "Tokens":
        """Return the tokens that ``pack`` was called on."""
        text = zlib.decompress(base64.b64decode(data["json"])).decode("utf-8", "surrogatepass")
        return cls(**{**data, "json": text})


def common(rows: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """Return the beginning that all ``rows`` share."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in columns)


@lru_cache(maxsize=8)
def _characters(tokens: Tokens) -> tuple[str, ...]:
    """Return Tokens.characters; kept because it takes a second."""
    candidates = [chr(code) for codes in _CHARACTERS for code in codes]
    spelled = [f"a{character}" for character in candidates]
    ids = [e.ids for e in tokens.tokenizer.encode_batch_fast(spelled, add_special_tokens=False)]
    texts = tokens.tokenizer.decode_batch(ids, skip_special_tokens=True)
    return tuple(c for c, way, back in zip(candidates, spelled, texts, strict=True) if way == back)
