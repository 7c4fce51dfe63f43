"""The distance of a causal language model from writing a phrase: ``phrase_gap/`` for models of tokens.

As in lmfuzz.targets.rnn.phrase_gap the gap is the sum, over the phrase's tokens, of (logit of the token) -
(largest logit of all), in nats; at 0 decoding writes the phrase. A phrase has several tokenizations: with
and without a blank before it, and if case is folded in lower, upper and title case. Right after the
prompt the two whose first token is nearest are tried, and later the one tokenization and place whose first
token came nearest, which counts LATER nats less. All of them are read in one pass: they stand side by side
after the cache of what was written, and each sees only itself and what stands before its place (as in tree
attention).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmfuzz.errors import UsageError
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.targets.hf.kv_cache import OpenBatch, select_rows
from lmfuzz.targets.rnn.phrase_gap import LATER, OTHER_WORDS, Phrase
from lmfuzz.targets.sampling import TokenSampler
from lmfuzz.types import PAD

FIRST = 2  # tokenizations that are tried right after the prompt
LARGEST = 2**26  # logits at once
_BEFORE = (":", ".", ",", "a", "1")  # texts to put before a phrase; a tokenizer need not know all of them


@dataclass(frozen=True, slots=True)
class Spelling:
    """Hold a phrase in tokens; ``joined``: its first character would continue a word before it."""

    tokens: tuple[int, ...]
    joined: bool


def spellings(phrase: Phrase, tokens: Tokens) -> list[Spelling]:
    """Return the ways to write a phrase in tokens; raise UsageError if the tokenizer has none."""
    cases = (str, str.lower, str.title, str.upper) if phrase.fold else (str,)
    found: dict[tuple[int, ...], Spelling] = {}
    for text in dict.fromkeys(case(phrase.text) for case in cases):
        for blank in (" ", ""):
            if ids := _inside(blank + text, tokens):
                found.setdefault(ids, Spelling(ids, not blank and _in_word(text[0])))
    if not found:
        why = f"its tokenizer cannot spell it; {OTHER_WORDS}"
        raise UsageError(f"the model cannot write {phrase.text!r}: {why}")
    return list(found.values())


def _inside(text: str, tokens: Tokens) -> tuple[int, ...]:
    """Return the tokens of ``text`` inside another text, () if it has none."""
    tokenizer = tokens.tokenizer
    for before in _BEFORE:
        lead = tokenizer.encode(before, add_special_tokens=False).ids
        ids = tokenizer.encode(before + text, add_special_tokens=False).ids
        if ids[: len(lead)] == lead and tokenizer.decode(ids, skip_special_tokens=True) == before + text:
            return tuple(ids[len(lead) :])
    return ()


class TokenizedPhrases:
    """Hold W phrases and their S tokenizations on a model's device; made once, since it takes a while.

    Attributes:
        tokens: int64 (S, L), the tokens of each tokenization.
        lengths: int64 (S,), how many there are.
        joined: bool (S,), whether a word that stands before would make it another word.
        options: int64 (W, N), the tokenizations of each phrase, S if it has fewer.
        alike: The longest length, whether whole words are meant, and the phrases of which both are true.
        ends_word: bool (V,), whether a token's text ends inside a word; an end of text does not.
        begins_word: bool (V,), whether it begins inside a word.
    """

    def __init__(
        self, channels: Sequence[str], tokens: Tokens, symbols: Sequence[str], device: torch.device
    ) -> None:
        self.channels = list(channels)
        every: list[tuple[int, ...]] = []
        options: list[list[int]] = []
        joined: list[bool] = []
        alike: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for i, phrase in enumerate(map(Phrase.parse, channels)):
            group = spellings(phrase, tokens)
            options.append([*range(len(every), len(every) + len(group))])
            every += [one.tokens for one in group]
            joined += [one.joined and phrase.whole for one in group]
            alike[max(len(one.tokens) for one in group), phrase.whole].append(i)
        self.tokens = _table(every, 0).to(device)
        self.lengths = torch.tensor([*map(len, every)], device=device)
        self.joined = torch.tensor(joined, device=device)
        self.options = _table(options, len(every)).to(device)
        self.alike = [(*key, torch.tensor(found, device=device)) for key, found in alike.items()]
        letters = torch.tensor([[_in_word(s[-1:]), _in_word(s[:1])] for s in symbols], device=device)
        self.ends_word, self.begins_word = letters.T


def _table(rows: Sequence[Sequence[int]], rest: int) -> Tensor:
    """Return rows of ids as int64 (R, longest), shorter ones filled up with ``rest``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[rest] * (longest - len(row))] for row in rows])


class CausalGaps:
    """Collect the gaps of W phrases for B prompts while they are written.

    Args:
        phrases: The phrases in tokens.
        reader: What reads the tokens.
        sampler: What the model decodes with.
        leads: The last character before each output (B,).

    Attributes:
        gaps: float32 (W, B), complete for the prompts that have left their batch.
    """

    def __init__(
        self, phrases: TokenizedPhrases, reader: Reader, sampler: TokenSampler, leads: Sequence[str]
    ) -> None:
        self.phrases, self._reader, self._sampler = phrases, reader, sampler
        device = reader.device
        self._inside = torch.tensor([*map(_in_word, leads)], device=device)  # whether a word goes on (B,)
        rows = len(leads)
        shape = (rows, len(phrases.tokens) + 1)  # the last column stands for tokenizations that do not exist
        self._start = torch.full(shape, -torch.inf, device=device)  # gap of the first token after the prompt
        self._later = torch.full(shape, -torch.inf, device=device)  # and at the best later place
        self._place = torch.zeros(shape, dtype=torch.int64, device=device)
        self.gaps = torch.full((len(phrases.channels), rows), -torch.inf, device=device)

    def step(self, step: int, rows: Tensor, logits: Tensor, tokens: Tensor) -> None:
        """Note how near the first tokens were, by logits (b, V) without noise that led to ``tokens`` (b,)."""
        phrases = self.phrases
        scores = self._sampler.scores(logits, step)
        gap = scores[:, phrases.tokens[:, 0]] - scores.amax(dim=1, keepdim=True)  # (b, S)
        gap = gap.masked_fill(self._inside[rows, None] & phrases.joined, -torch.inf)
        gap = gap.masked_fill((tokens == PAD)[:, None], -torch.inf)
        if step == 0:
            self._start[rows, :-1] = gap
        else:
            left = self._sampler.decoding.max_new - step
            gap = gap.masked_fill(phrases.lengths > left, -torch.inf)  # it has to fit
            before = self._later[rows, :-1]
            better = gap > before
            self._later[rows, :-1] = torch.where(better, gap, before)
            self._place[rows, :-1] = torch.where(better, step, self._place[rows, :-1])
        self._inside[rows] = phrases.ends_word[tokens.clamp(min=0)]

    def leave(self, rows: Tensor, places: Tensor, batch: OpenBatch) -> None:
        """Compute the gaps of rows (b,) that stand at ``places`` (b,) of a batch's cache."""
        options = self.phrases.options.expand(len(rows), -1, -1)  # (b, W, N)
        near = self._start[rows].gather(1, options.flatten(1)).view_as(options)
        near, first = near.topk(min(FIRST, options.shape[2]), dim=2)
        far, last = self._later[rows].gather(1, options.flatten(1)).view_as(options).max(dim=2, keepdim=True)
        which = options.gather(2, torch.cat([first, last], dim=2))  # (b, W, K): what is tried
        at = torch.zeros_like(which)
        at[..., -1] = self._place[rows].gather(1, which[..., -1])
        gaps = torch.cat([near, far - LATER], dim=2)
        for longest, whole, alike in self.phrases.alike:
            if longest > 1 or whole:
                tried = which[:, alike].flatten(0, 1), at[:, alike].flatten(0, 1)
                each = places.repeat_interleave(len(alike))
                size = min(batch.rows, max(1, LARGEST // (which.shape[2] * longest * self._reader.size)))
                parts = zip(*(torch.split(part, size) for part in (*tried, each)), strict=True)
                more = torch.cat([self._read(part, batch, longest, whole) for part in parts])
                gaps[:, alike] += more.view(len(rows), len(alike), -1)
        self.gaps[:, rows] = gaps.amax(dim=2).T

    def _read(self, tried: tuple[Tensor, ...], batch: OpenBatch, longest: int, whole: bool) -> Tensor:
        """Return what the tokens after the first add to the gaps (b, K) of what is tried.

        tried: tokenizations (b, K), the steps (b, K) at which they begin, and places (b,) in the cache.
        """
        which, at, places = tried
        b, k = which.shape
        phrases, reader = self.phrases, self._reader
        which = which.clamp(max=len(phrases.tokens) - 1)  # any for those that do not exist
        tokens, lengths = phrases.tokens[which, :longest], phrases.lengths[which]  # (b, K, L), (b, K)
        cache = select_rows(batch.cache, places, k * longest)
        filled = cache.get_seq_length()
        begin = batch.prefix + batch.width  # the place in the cache of what was written at step 0
        base = reader.mask(torch.zeros_like(places), 0, filled) if batch.mask is None else batch.mask[places]
        base = base[..., :filled].expand(b, 1, k * longest, filled)
        written = torch.arange(filled, device=which.device) - begin
        hidden = (written >= at[:, :, None]).repeat_interleave(longest, dim=1)[:, None]  # (b, 1, K L, filled)
        block = torch.arange(k * longest, device=which.device)
        own = (block[:, None] // longest == block // longest) & (block <= block[:, None])
        past = torch.minimum(base, reader.additive(~hidden))
        seen = torch.cat([past, reader.additive(own)[None, None].expand(b, 1, -1, -1)], dim=3)
        first = batch.places[places, begin, None]  # (b, 1): the position of step 0
        ahead = torch.arange(longest, device=which.device)
        positions = first[:, :, None] + at[:, :, None] + ahead
        if reader.window is not None:  # a phrase may be longer than an output
            positions = positions.clamp(max=reader.window - 1)
        positions = positions.view(b, -1)
        keys = torch.cat([batch.places[places, :filled], positions], dim=1)
        logits, _, _ = reader.read(tokens.view(b, -1), cache, positions, seen, keys, k * longest)
        scores = self._sampler.scores(logits.view(b, k, longest, -1), at[:, :, None] + 1 + ahead)
        top = scores.amax(dim=3)
        gap = scores.gather(3, tokens.roll(-1, dims=2)[..., None])[..., 0] - top
        total = gap.masked_fill(ahead >= lengths[:, :, None] - 1, 0).sum(dim=2)
        if whole:
            over = scores.masked_fill(phrases.begins_word, -torch.inf).amax(dim=3) - top
            total = total + over.gather(2, lengths[:, :, None] - 1)[:, :, 0]
        return total


def _in_word(text: str) -> bool:
    return text.isalnum() or text == "_"
