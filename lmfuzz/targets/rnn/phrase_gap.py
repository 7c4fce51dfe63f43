"""The distance of a recurrent model from writing a phrase: the channel family ``phrase_gap/``.

The gap of a phrase at a place is the sum, over its symbols fed one by one from that place, of (largest
logit among the symbols allowed there) - (largest logit of all), in nats: at 0 decoding writes the phrase,
and a gap below 0 is what is missing. With noise added to the logits the same holds for sampling with
that noise. Two places are tried per prompt and phrase, and the better one counts: right after the prompt,
and the later place of the output at which the phrase's first symbol came closest to being written. The
later one counts LATER nats less: every change of the prompt moves what stands there, so that prompts
that are near only there lead a search astray (of ten rare words, 4 were found in 100 000 executions
without later places, 2 in 150 000 with both places counted alike; single runs).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.targets.sampling import TokenSampler
from lmfuzz.targets.stepping import States, Stepper
from lmfuzz.types import FloatArray, IntArray

OTHER_WORDS = "look for words that it can write, or for something else, such as --objective repetition"
LATER = 2.0  # nats


@dataclass(frozen=True, slots=True)
class Phrase:
    """Hold the argument of a ``phrase_gap/`` channel: a text, and the flags fold (case) and whole (words)."""

    text: str
    fold: bool
    whole: bool

    @classmethod
    def parse(cls, channel: str) -> "Phrase":
        """Return the phrase of ``phrase_gap/FLAGS/TEXT``; raise UsageError if it is written differently."""
        match = re.fullmatch("phrase_gap/([fw]*)/(.+)", channel, re.DOTALL)
        if match is None:
            raise UsageError(
                f"channel {channel!r} must be phrase_gap/FLAGS/TEXT, flags f (fold case) and w (whole words)"
            )
        flags, text = match.groups()
        return cls(text, "f" in flags, "w" in flags)

    def allowed(self, space: TextSpace) -> list[Tensor]:
        """Return the symbols (V,) bool allowed at each step, with a boundary at both ends of whole words.

        Raises:
            UsageError: The space has no symbol for one of the characters.
        """
        steps = []
        for character in self.text:
            options = {character, character.lower(), character.upper()} if self.fold else {character}
            steps.append(torch.tensor([symbol in options for symbol in space.symbols]))
            if not steps[-1].any():
                why = f"its alphabet has no {character!r}; {OTHER_WORDS}"
                raise UsageError(f"the model cannot write {self.text!r}: {why}")
        return [boundary(space), *steps, boundary(space)] if self.whole else steps


def boundary(space: TextSpace) -> Tensor:
    """Return the symbols (V,) bool that end a word: all but letters, digits and the underscore."""
    return torch.tensor([re.fullmatch(r"\w+", symbol) is None for symbol in space.symbols])


class PhraseGaps:
    """Compute the gaps of W phrases for B prompts at once, as B x W rows of one teacher-forced pass."""

    def __init__(
        self, channels: Sequence[str], space: TextSpace, stepper: Stepper, sampler: TokenSampler
    ) -> None:
        phrases = [Phrase.parse(channel) for channel in channels]
        self.channels = list(channels)
        self.whole = torch.tensor([phrase.whole for phrase in phrases])
        steps = [phrase.allowed(space) for phrase in phrases]
        self.stops = torch.tensor([len(allowed) for allowed in steps])
        self.forbidden = torch.full((len(phrases), int(self.stops.max()), len(space.symbols)), -torch.inf)
        for w, allowed in enumerate(steps):
            self.forbidden[w, : len(allowed)].masked_fill_(torch.stack(allowed), 0.0)
        self._word_symbol = ~boundary(space)
        self._stepper, self._sampler = stepper, sampler

    def __call__(
        self, last: IntArray, written: Tensor, scores: Tensor, states: States, end: States
    ) -> dict[str, FloatArray]:
        """Return the gaps float32 (B,) of each channel.

        Args:
            last: The last symbol (B,) of each prompt.
            written: The output (T, B).
            scores: The scores (T, B, V) of which the output is the largest.
            states: What was kept of the states (T, B, ...) that gave the scores.
            end: The states (B, ...) at the end.
        """
        before = torch.cat([torch.from_numpy(last).long()[None], written[:-1]])
        in_word = self._word_symbol[before]  # (T, B): whether the symbol before this place is in a word
        places = torch.zeros((len(self.channels), len(last)), dtype=torch.int64)
        gaps = self._score(places, in_word, scores, (states, end), torch.full(places.shape, -torch.inf))
        if len(scores) > 1:
            later = self._later(in_word, scores)
            others = self._score(later, in_word, scores, (states, end), gaps + LATER)
            gaps = torch.maximum(gaps, others - LATER)
        return dict(zip(self.channels, gaps.numpy(), strict=True))

    def _later(self, in_word: Tensor, scores: Tensor) -> Tensor:
        """Return the place (W, B) after the first whose first symbol is closest to being written."""
        top = scores.amax(dim=2)
        best = torch.zeros((len(self.channels), scores.shape[1]), dtype=torch.int64)
        for w, whole in enumerate(self.whole.tolist()):
            symbols = torch.nonzero(self.forbidden[w, int(whole)] == 0)[:, 0]
            gap = torch.stack([scores[:, :, s] for s in symbols.tolist()]).amax(dim=0) - top
            if whole:
                gap = gap.masked_fill(in_word, -torch.inf)
            length = int(self.stops[w]) - 2 * int(whole)
            stop = max(2, len(scores) - length + 1)  # it has to fit into the output
            best[w] = gap[1:stop].argmax(dim=0) + 1
        return best

    def _score(
        self, places: Tensor, in_word: Tensor, scores: Tensor, states: tuple[States, States], floor: Tensor
    ) -> Tensor:
        """Return the gaps (W, B) of phrases at their places (W, B); one at or below its ``floor`` stops."""
        phrases, rows = places.shape
        place = places.flatten()
        row = torch.arange(rows).repeat(phrases)
        flat = place * rows + row  # into (T x B), phrase by phrase
        now, *kept = (array.flatten(0, 1).index_select(0, flat) for array in (scores, *states[0]))
        live = [*self._stepper.revive(tuple(kept), states[1], row)]
        phrase = torch.arange(phrases).repeat_interleave(rows)
        # A whole word needs its boundary first if the text before the place ends inside a word.
        at = (self.whole[phrase] & ~in_word.flatten()[flat]).long()
        stop, floor = self.stops[phrase], floor.flatten()
        pair, gaps = torch.arange(len(place)), torch.zeros(len(place))
        while True:
            best, symbol = (now + self.forbidden[phrase, at]).max(dim=1)
            gaps[pair] += best - now.amax(dim=1)
            at, place = at + 1, place + 1
            going = (at < stop) & (gaps[pair] > floor)
            if not going.any():
                return gaps.view(phrases, rows)
            if not going.all():
                pair, phrase, at, place, stop, floor, symbol, *live = (
                    array[going] for array in (pair, phrase, at, place, stop, floor, symbol, *live)
                )
            live = [*self._stepper.step(symbol, tuple(live))]
            now = self._sampler.scores(self._stepper.logits(tuple(live)), place.clamp(max=len(scores) - 1))
