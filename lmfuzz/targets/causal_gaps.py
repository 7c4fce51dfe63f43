"""How far a causal language model was from writing a phrase: ``phrase_gap/`` for models of tokens.

As in lmfuzz.targets.phrase_gap the gap is the sum, over the phrase's tokens, of (logit of the token) -
(largest logit of all), in nats: 0 means that decoding writes it. A phrase has several spellings in tokens:
with and without a blank before it, and where case is folded in lower, upper and title case. Right after the
prompt the two spellings whose first token is nearest are tried, and later the one spelling and place whose
first token came nearest, which counts LATER nats less. All that is tried is read in one pass: behind the
cache of what was written stand the spellings, side by side, each of which sees only itself and what stood
before its place (as in tree attention).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmfuzz.errors import UsageError
from lmfuzz.targets.noise import Noise
from lmfuzz.targets.phrase_gap import LATER, Phrase
from lmfuzz.targets.reading import Reader
from lmfuzz.targets.rooms import chosen
from lmfuzz.targets.writing import Begun
from lmfuzz.tokens import Tokens
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


class CausalGaps:
    """The gaps of W phrases for B rows, collected while they are written."""

    def __init__(
        self, channels: Sequence[str], tokens: Tokens, reader: Reader, symbols: Sequence[str], rows: int,
        steps: int, prompts_end: Tensor, noise: Noise,
    ) -> None:  # fmt: skip
        """prompts_end: the last token (B,) of each prompt; noise: of the decoding."""
        self.channels, self._reader, self._noise, self._steps = list(channels), reader, noise, steps
        phrases = [Phrase.parse(channel) for channel in channels]
        self._spelled = [spellings(phrase, tokens) for phrase in phrases]
        self._whole = [phrase.whole for phrase in phrases]
        device = reader.device
        every = [spelling for group in self._spelled for spelling in group]
        self._first = torch.tensor([s.tokens[0] for s in every], device=device)  # (S,)
        self._joined = torch.tensor([s.joined for s in every], device=device)
        whole = [w for w, group in zip(self._whole, self._spelled, strict=True) for _ in group]
        self._joined &= torch.tensor(whole, device=device)
        self._lengths = torch.tensor([len(s.tokens) for s in every], device=device)
        # (V,): whether a token's text ends, or begins, inside a word; an end of text does neither.
        size = reader.size
        self._ends_word = torch.zeros(size, dtype=torch.bool, device=device)
        self._begins_word = torch.zeros(size, dtype=torch.bool, device=device)
        letters = np.array([[_letter(s[-1:]), _letter(s[:1])] for s in symbols], dtype=bool).reshape(-1, 2)
        self._ends_word[: len(letters)] = torch.from_numpy(letters[:, 0]).to(device)
        self._begins_word[: len(letters)] = torch.from_numpy(letters[:, 1]).to(device)
        self._every = every
        self._before = prompts_end.to(device).clone()  # the token (B,) that stands before the next place
        shape = rows, len(every)
        self._start = torch.full(shape, -torch.inf, device=device)  # gap of the first token after the prompt
        self._later = torch.full(shape, -torch.inf, device=device)  # and at the best later place
        self._place = torch.zeros(shape, dtype=torch.int64, device=device)
        self.gaps = torch.full((len(channels), rows), -torch.inf, device=device)

    def step(self, step: int, rows: Tensor, logits: Tensor, tokens: Tensor) -> None:
        """Take note of how near the first tokens were: logits (b, V) without noise, ahead of ``tokens``."""
        noisy = self._noise.add(step, logits)
        gap = noisy[:, self._first] - noisy.amax(dim=1, keepdim=True)  # (b, S)
        inside = self._ends_word[self._before[rows]]
        gap = gap.masked_fill(inside[:, None] & self._joined, -torch.inf)
        gap = gap.masked_fill((tokens == PAD)[:, None], -torch.inf)
        if step == 0:
            self._start[rows] = gap
        else:
            gap = gap.masked_fill(self._lengths > self._steps - step, -torch.inf)  # it has to fit
            better = gap > self._later[rows]
            self._later[rows] = torch.where(better, gap, self._later[rows])
            self._place[rows] = torch.where(better, step, self._place[rows])
        self._before[rows] = tokens.clamp(min=0)

    def leave(self, rows: Tensor, places: Tensor, begun: Begun) -> None:
        """Work out the gaps of rows (b,) that stand at ``places`` (b,) of a batch's cache."""
        start = 0
        for phrase, group in enumerate(self._spelled):
            stop = start + len(group)
            self._leave(phrase, start, stop, rows, places, begun)
            start = stop

    def _leave(self, phrase: int, start: int, stop: int, rows: Tensor, places: Tensor, begun: Begun) -> None:
        """The gap of one phrase, whose spellings are ``start`` to ``stop`` of all."""
        near, first = self._start[rows, start:stop].topk(min(FIRST, stop - start), dim=1)
        far, last = self._later[rows, start:stop].max(dim=1, keepdim=True)
        gaps = torch.cat([near, far], dim=1)  # (b, K): what is tried
        which = start + torch.cat([first, last], dim=1)
        at = torch.zeros_like(which)
        at[:, -1:] = self._place[rows].gather(1, which[:, -1:])
        longest = max(len(spelling.tokens) for spelling in self._every[start:stop])
        size = max(1, LARGEST // (gaps.shape[1] * longest * self._reader.size))
        best = torch.empty(len(rows), device=gaps.device)
        every = torch.arange(len(rows), device=gaps.device)
        for begin in range(0, len(rows), size):
            part = every[begin : begin + size]
            more = self._read(which[part], at[part], places[part], begun, longest, self._whole[phrase])
            total = gaps[part] + more
            total[:, -1] -= LATER
            best[part] = total.amax(dim=1)
        self.gaps[phrase, rows] = best

    def _read(
        self, which: Tensor, at: Tensor, places: Tensor, begun: Begun, longest: int, whole: bool
    ) -> Tensor:
        """What the tokens behind the first add to the gaps (b, K) of spellings ``which`` at steps ``at``."""
        b, k = which.shape
        spelled = torch.zeros((len(self._every), longest), dtype=torch.int64, device=which.device)
        for i, spelling in enumerate(self._every):
            row = torch.tensor(spelling.tokens[:longest], device=which.device)
            spelled[i, : len(row)] = row
        tokens, lengths = spelled[which], self._lengths[which]  # (b, K, L), (b, K)
        if longest == 1 and not whole:
            return torch.zeros((b, k), device=which.device)
        cache = chosen(begun.cache, places, k * longest)
        filled = cache.get_seq_length()
        behind = begun.prefix + begun.width  # the place in the cache of what was written at step 0
        base = (
            self._reader.mask(torch.zeros_like(places), 0, filled)
            if begun.mask is None
            else begun.mask[places]
        )
        base = base[..., :filled].expand(b, 1, k * longest, filled)
        written = torch.arange(filled, device=which.device) - behind
        hidden = (written >= at[:, :, None]).repeat_interleave(longest, dim=1)[:, None]  # (b, 1, K L, filled)
        block = torch.arange(k * longest, device=which.device)
        own = (block[:, None] // longest == block // longest) & (block <= block[:, None])
        seen = torch.cat([
            torch.minimum(base, self._reader.additive(~hidden)),
            self._reader.additive(own)[None, None].expand(b, 1, -1, -1),
        ], dim=3)  # fmt: skip
        first = begun.positions[places] - (filled - 1 - behind)  # (b, 1): the position of step 0
        positions = first[:, :, None] + at[:, :, None] + torch.arange(longest, device=which.device)
        if self._reader.window is not None:  # a phrase may be longer than an output
            positions = positions.clamp(max=self._reader.window - 1)
        logits, _, _ = self._reader.read(
            tokens.view(b, -1), cache, positions.view(b, -1), seen, keep=k * longest
        )
        logits = logits.view(b, k, longest, -1)
        steps = at[:, :, None] + 1 + torch.arange(longest, device=which.device)
        logits = self._noise.add_at(steps, logits)
        top = logits.amax(dim=3)
        next_ones = tokens.roll(-1, dims=2)
        gap = logits.gather(3, next_ones[..., None])[..., 0] - top
        index = torch.arange(longest, device=which.device)
        inside = index < lengths[:, :, None] - 1
        total = gap.masked_fill(~inside, 0).sum(dim=2)
        if whole:
            over = logits.masked_fill(self._begins_word, -torch.inf).amax(dim=3) - top
            total = total + over.gather(2, lengths[:, :, None] - 1)[:, :, 0]
        return total


def _letter(text: str) -> bool:
    return text.isalnum() or text == "_"
