"""How far a causal language model was from writing a phrase: ``phrase_gap/`` for models of tokens.

As in lmfuzz.targets.rnn.phrase_gap the gap is the sum, over the phrase's tokens, of (logit of the token) -
(largest logit of all), in nats: 0 means that decoding writes it. A phrase has several spellings in tokens:
with and without a blank before it, and where case is folded in lower, upper and title case. Right after the
prompt the two spellings whose first token is nearest are tried, and later the one spelling and place whose
first token came nearest, which counts LATER nats less. All that is tried is read in one pass: behind the
cache of what was written stand the spellings, side by side, each of which sees only itself and what stood
before its place (as in tree attention).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmfuzz.errors import UsageError
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.decoding import Begun
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.targets.hf.kv_cache import chosen
from lmfuzz.targets.rnn.phrase_gap import LATER, Phrase
from lmfuzz.targets.sampling import TokenSampler
from lmfuzz.types import PAD

FIRST = 2  # spellings that are tried right after the prompt
LARGEST = 2**26  # logits at once
_BEFORE = (":", ".", ",", "a", "1")  # what stands before a text in its middle: tokenizers need not know all


@dataclass(frozen=True, slots=True)
class Spelling:
    """A phrase in tokens; ``joined``: its first character would go on with a word that stands before it."""

    tokens: tuple[int, ...]
    joined: bool


def spellings(phrase: Phrase, tokens: Tokens) -> list[Spelling]:
    """The ways to write a phrase; UsageError where the tokenizer has none."""
    texts = [phrase.text]
    if phrase.fold:
        texts += [phrase.text.lower(), phrase.text.title(), phrase.text.upper()]
    found: dict[tuple[int, ...], Spelling] = {}
    for text in dict.fromkeys(texts):
        for blank in (" ", ""):
            ids = _behind(blank + text, tokens)
            if ids:
                found.setdefault(ids, Spelling(ids, not blank and (text[0].isalnum() or text[0] == "_")))
    if not found:
        raise UsageError(f"the model cannot write the phrase {phrase.text!r}: its tokenizer cannot spell it")
    return list(found.values())


def _behind(text: str, tokens: Tokens) -> tuple[int, ...]:
    """The tokens of ``text`` in the middle of another, () where it has none that spell it."""
    tokenizer = tokens.tokenizer
    for before in _BEFORE:
        lead = tokenizer.encode(before, add_special_tokens=False).ids
        ids = tokenizer.encode(before + text, add_special_tokens=False).ids
        if ids[: len(lead)] == lead and tokenizer.decode(ids, skip_special_tokens=True) == before + text:
            return tuple(ids[len(lead) :])
    return ()


class TokenizedPhrases:
    """W phrases and their S spellings, on a model's device; made once for them, as it takes a while.

    tokens int64 (S, L), lengths int64 (S,), joined bool (S,): of every spelling. options int64 (W, N): the
    spellings of each phrase, S where it has fewer. alike: the phrases whose longest spelling has as many
    tokens, and which are whole words or not. ends_word, begins_word bool (V,): whether a token's text ends,
    or begins, inside a word; an end of text does neither.
    """

    def __init__(
        self, channels: Sequence[str], tokens: Tokens, symbols: Sequence[str], device: torch.device
    ) -> None:
        self.channels = list(channels)
        phrases = [Phrase.parse(channel) for channel in channels]
        groups = [spellings(phrase, tokens) for phrase in phrases]
        every = [(one, phrase) for phrase, group in zip(phrases, groups, strict=True) for one in group]
        self.tokens = _table([one.tokens for one, _ in every], 0).to(device)
        self.lengths = torch.tensor([len(one.tokens) for one, _ in every], device=device)
        self.joined = torch.tensor([one.joined and phrase.whole for one, phrase in every], device=device)
        ids = iter(range(len(every)))
        self.options = _table([[next(ids) for _ in group] for group in groups], len(every)).to(device)
        alike: dict[tuple[int, bool], list[int]] = {}
        for i, (phrase, group) in enumerate(zip(phrases, groups, strict=True)):
            alike.setdefault((max(len(one.tokens) for one in group), phrase.whole), []).append(i)
        self.alike = [(*key, torch.tensor(found, device=device)) for key, found in alike.items()]
        letters = torch.tensor([[_letter(s[-1:]), _letter(s[:1])] for s in symbols], device=device)
        self.ends_word, self.begins_word = letters.T


def _table(rows: Sequence[Sequence[int]], rest: int) -> Tensor:
    """Rows of ids as int64 (R, longest), ``rest`` behind those that are shorter."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[rest] * (longest - len(row))] for row in rows])


class CausalGaps:
    """The gaps of W phrases for B rows, collected while they are written."""

    def __init__(
        self, spelled: TokenizedPhrases, reader: Reader, sampler: TokenSampler, prompts_end: Tensor
    ) -> None:
        """prompts_end: the last token (B,) of each prompt."""
        self._spelled, self._reader, self._sampler = spelled, reader, sampler
        device = reader.device
        self._before = prompts_end.to(device).clone()  # the token (B,) that stands before the next place
        rows = len(prompts_end)
        shape = (rows, len(spelled.tokens) + 1)  # the last stands for spellings that there are not
        self._start = torch.full(shape, -torch.inf, device=device)  # gap of the first token after the prompt
        self._later = torch.full(shape, -torch.inf, device=device)  # and at the best later place
        self._place = torch.zeros(shape, dtype=torch.int64, device=device)
        self.gaps = torch.full((len(spelled.channels), rows), -torch.inf, device=device)

    @property
    def channels(self) -> list[str]:
        """What the W rows of ``gaps`` are."""
        return self._spelled.channels

    def step(self, step: int, rows: Tensor, logits: Tensor, tokens: Tensor) -> None:
        """Take note of how near the first tokens were: logits (b, V) without noise, ahead of ``tokens``."""
        spelled = self._spelled
        scores = self._sampler.scores(logits, step)
        gap = scores[:, spelled.tokens[:, 0]] - scores.amax(dim=1, keepdim=True)  # (b, S)
        inside = spelled.ends_word[self._before[rows]]
        gap = gap.masked_fill(inside[:, None] & spelled.joined, -torch.inf)
        gap = gap.masked_fill((tokens == PAD)[:, None], -torch.inf)
        if step == 0:
            self._start[rows, :-1] = gap
        else:
            left = self._sampler.decoding.max_new - step
            gap = gap.masked_fill(spelled.lengths > left, -torch.inf)  # it has to fit
            before = self._later[rows, :-1]
            better = gap > before
            self._later[rows, :-1] = torch.where(better, gap, before)
            self._place[rows, :-1] = torch.where(better, step, self._place[rows, :-1])
        self._before[rows] = tokens.clamp(min=0)

    def leave(self, rows: Tensor, places: Tensor, begun: Begun) -> None:
        """Work out the gaps of rows (b,) that stand at ``places`` (b,) of a batch's cache."""
        options = self._spelled.options.expand(len(rows), -1, -1)  # (b, W, N)
        near = self._start[rows].gather(1, options.flatten(1)).view_as(options)
        near, first = near.topk(min(FIRST, options.shape[2]), dim=2)
        far, last = self._later[rows].gather(1, options.flatten(1)).view_as(options).max(dim=2, keepdim=True)
        which = options.gather(2, torch.cat([first, last], dim=2))  # (b, W, K): what is tried
        at = torch.zeros_like(which)
        at[..., -1] = self._place[rows].gather(1, which[..., -1])
        gaps = torch.cat([near, far - LATER], dim=2)
        for longest, whole, phrases in self._spelled.alike:
            if longest > 1 or whole:
                tried = which[:, phrases].flatten(0, 1), at[:, phrases].flatten(0, 1)
                each = places.repeat_interleave(len(phrases))
                more = self._read_all(*tried, each, begun, longest, whole)
                gaps[:, phrases] += more.view(len(rows), len(phrases), -1)
        self.gaps[:, rows] = gaps.amax(dim=2).T

    def _read_all(
        self, which: Tensor, at: Tensor, places: Tensor, begun: Begun, longest: int, whole: bool
    ) -> Tensor:
        """As ``_read``, for as many rows at once as a batch has and memory allows."""
        size = min(begun.rows, max(1, LARGEST // (which.shape[1] * longest * self._reader.size)))
        found = []
        for start in range(0, len(which), size):
            part = slice(start, start + size)
            found.append(self._read(which[part], at[part], places[part], begun, longest, whole))
        return torch.cat(found)

    def _read(
        self, which: Tensor, at: Tensor, places: Tensor, begun: Begun, longest: int, whole: bool
    ) -> Tensor:
        """What the tokens behind the first add to the gaps (b, K) of spellings ``which`` at steps ``at``."""
        b, k = which.shape
        spelled, reader = self._spelled, self._reader
        which = which.clamp(max=len(spelled.tokens) - 1)  # for what there is not, any
        tokens, lengths = spelled.tokens[which, :longest], spelled.lengths[which]  # (b, K, L), (b, K)
        cache = chosen(begun.cache, places, k * longest)
        filled = cache.get_seq_length()
        behind = begun.prefix + begun.width  # the place in the cache of what was written at step 0
        base = reader.mask(torch.zeros_like(places), 0, filled) if begun.mask is None else begun.mask[places]
        base = base[..., :filled].expand(b, 1, k * longest, filled)
        written = torch.arange(filled, device=which.device) - behind
        hidden = (written >= at[:, :, None]).repeat_interleave(longest, dim=1)[:, None]  # (b, 1, K L, filled)
        block = torch.arange(k * longest, device=which.device)
        own = (block[:, None] // longest == block // longest) & (block <= block[:, None])
        seen = torch.cat([
            torch.minimum(base, reader.additive(~hidden)),
            reader.additive(own)[None, None].expand(b, 1, -1, -1),
        ], dim=3)  # fmt: skip
        first = begun.positions[places] - (filled - 1 - behind)  # (b, 1): the position of step 0
        positions = first[:, :, None] + at[:, :, None] + torch.arange(longest, device=which.device)
        if reader.window is not None:  # a phrase may be longer than an output
            positions = positions.clamp(max=reader.window - 1)
        logits, _, _ = reader.read(tokens.view(b, -1), cache, positions.view(b, -1), seen, keep=k * longest)
        steps = at[:, :, None] + 1 + torch.arange(longest, device=which.device)
        scores = self._sampler.scores(logits.view(b, k, longest, -1), steps)
        top = scores.amax(dim=3)
        next_ones = tokens.roll(-1, dims=2)
        gap = scores.gather(3, next_ones[..., None])[..., 0] - top
        index = torch.arange(longest, device=which.device)
        inside = index < lengths[:, :, None] - 1
        total = gap.masked_fill(~inside, 0).sum(dim=2)
        if whole:
            over = scores.masked_fill(spelled.begins_word, -torch.inf).amax(dim=3) - top
            total = total + over.gather(2, lengths[:, :, None] - 1)[:, :, 0]
        return total


def _letter(text: str) -> bool:
    return text.isalnum() or text == "_"
