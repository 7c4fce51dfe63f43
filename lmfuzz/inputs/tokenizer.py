"""Texts as tokens and back: a tokenizer, and what stands before and behind every prompt."""

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.types import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PROBES = ("a", "Z", "7", " x", "\nq", "~", "(", "\u00e9", "the")  # begin and end in many ways
_CONTEXT = 32  # tokens before an output that are read with it: more than a character, or a run of a few, has
_CHARACTERS = (range(0x09, 0xD800), range(0xF900, 0xFFFE), range(0x1F300, 0x1FB00))  # BMP and emoji


@dataclass(frozen=True)
class Tokens:
    """A tokenizer of the tokenizers library, as its own JSON, and the surroundings of a prompt.

    before, behind: text around each prompt, a chat template's and the system prompt. special: whether the
    tokenizer adds its special tokens, such as a beginning of text (chat templates hold their own). strips:
    whether the template takes white space off the ends of a prompt.
    """

    json: str
    before: str = ""
    behind: str = ""
    special: bool = True
    strips: bool = False

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer itself."""
        from tokenizers import Tokenizer  # only where it is used: it is no part of a list or of --help

        made: Tokenizer = Tokenizer.from_str(self.json)
        made.no_truncation()
        made.no_padding()
        return made

    @property
    def size(self) -> int:
        """How many tokens there are, those included that were added later."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """The tokens with which every prompt begins, whatever is put in."""
        return _common(self._probes)

    @cached_property
    def suffix(self) -> tuple[int, ...]:
        """The tokens with which every prompt ends, whatever is put in."""
        rest = [ids[len(self.prefix) :][::-1] for ids in self._probes]
        return _common(rest)[::-1]

    @cached_property
    def _probes(self) -> list[list[int]]:
        return self.prompts(_PROBES)

    def prompts(self, texts: Iterable[str]) -> list[list[int]]:
        """The tokens of whole prompts, surroundings included, as the model's makers would spell them."""
        whole = [f"{self.before}{text.strip() if self.strips else text}{self.behind}" for text in texts]
        found = self.tokenizer.encode_batch_fast(whole, add_special_tokens=self.special)
        return [encoding.ids for encoding in found]

    def knows(self, text: str) -> bool:
        """Whether ``text`` has tokens, none of which stands for something unknown."""
        (ids,) = self.prompts([text])
        return self._unknown not in ids

    @cached_property
    def _unknown(self) -> int | None:
        """The token that stands for what no token spells."""
        token = getattr(self.tokenizer.model, "unk_token", None)
        return None if token is None else self.tokenizer.token_to_id(token)

    def around(self, rows: Iterable[IntArray]) -> list[list[int]]:
        """The tokens of whole prompts, of which ``rows`` are what is put in."""
        return [[*self.prefix, *row.tolist(), *self.suffix] for row in rows]

    def encode(self, text: str) -> IntArray:
        """The tokens int32 (N,) of ``text`` where it is put in; UsageError where there are none."""
        (ids,) = self.prompts([text])
        first, last = len(self.prefix), len(ids) - len(self.suffix)
        if ids[:first] != [*self.prefix] or ids[last:] != [*self.suffix] or first >= last:
            raise UsageError(
                f"the text {text!r:.80} has no tokens of its own: it melts into what stands around it"
            )
        return np.array(ids[first:last], np.int32)

    def texts(self, rows: Sequence[IntArray]) -> list[str]:
        """The texts of what is put in as ``rows`` of tokens."""
        lead = [token for token in self.prefix if token not in self.specials]
        return self._behind([lead] * len(rows), [row.tolist() for row in rows])

    def written(self, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> list[str]:
        """The texts of ``outputs`` behind their ``prompts``: a character may begin there and end here."""
        return self._behind([list(prompt[-_CONTEXT:]) for prompt in prompts], outputs)

    def _behind(self, leads: Sequence[list[int]], rows: Sequence[Sequence[int]]) -> list[str]:
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
        """The ids of special tokens: those that steer, such as an end of text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The text of each token by itself behind others; a part of a character is U+FFFD."""
        anchor = self.tokenizer.encode("a", add_special_tokens=False).ids[-1:]
        ids = range(self.size)
        return tuple(self._behind([anchor] * len(ids), [[i] for i in ids]))

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """The tokens that are whole text: no special ones, no parts of characters, none without a text."""
        return tuple(
            i
            for i, text in enumerate(self.symbols)
            if i not in self.specials and text and "\ufffd" not in text
        )

    @property
    def characters(self) -> tuple[str, ...]:
        """The characters that are themselves again after a way through the tokenizer; not of rare scripts."""
        return _characters(self)

    def pack(self) -> dict[str, Any]:
        """Plain data for ``unpack``: the JSON compressed, since it can have megabytes."""
        packed = base64.b64encode(zlib.compress(self.json.encode("utf-8", "surrogatepass"))).decode("ascii")
        return {
            "json": packed, "before": self.before, "behind": self.behind, "special": self.special,
            "strips": self.strips,
        }  # fmt: skip

    @classmethod
    def unpack(cls, data: dict[str, Any]) -> "Tokens":
        """What ``pack`` gave."""
        text = zlib.decompress(base64.b64decode(data["json"])).decode("utf-8", "surrogatepass")
        return cls(**{**data, "json": text})


def _common(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """What all ``rows`` begin with."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return tuple(column[0] for column in columns)


@lru_cache(maxsize=8)
def _characters(tokens: Tokens) -> tuple[str, ...]:
    """As Tokens.characters, which takes a second."""
    candidates = [chr(code) for codes in _CHARACTERS for code in codes]
    spelled = [f"a{character}" for character in candidates]
    ids = [e.ids for e in tokens.tokenizer.encode_batch_fast(spelled, add_special_tokens=False)]
    texts = tokens.tokenizer.decode_batch(ids, skip_special_tokens=True)
    return tuple(c for c, way, back in zip(candidates, spelled, texts, strict=True) if way == back)
