"""Targets that read and write symbols one by one: prompts in, greedy or sampled text and states out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.capabilities import Written
from lmfuzz.targets.hooks import extremes
from lmfuzz.targets.rnn.phrase_gap import PhraseGaps
from lmfuzz.targets.sampling import (
    CHANNELS,
    NEVER,
    STEPWISE,
    Decoding,
    TokenSampler,
    characters,
    distribution,
    first_stop,
    phrases,
    spans,
)
from lmfuzz.targets.stepping import States, Stepper
from lmfuzz.types import Array, Batch, FloatArray, IntArray, Trace


@dataclass(frozen=True)
class Decoded(Written):
    """Hold what decoding led to; states are in the model's dtype.

    Attributes:
        prompt: The states after the prompts, (B, ...).
        end: The states after all symbols but the last, (B, ...).
        states: What is kept of the states before every symbol, (T, B, ...), or (0, B, ...) if not needed.
        tokens: What was written, also after a stop string.
    """

    end: States
    states: States


class CharacterTarget:
    """Run what a Stepper advances, a model of single symbols, as a target.

    Channels, for B prompts and T = max_new steps:
    text (B,) str, tokens (B, T) int32, PAD after a stop string; ended (B,) bool, whether there was one;
    token_ends (B, T) int32, characters of text after each token, PAD like tokens; logprob and entropy (B, T)
    nats of the model's distribution at temperature 1, NaN after a stop string; hidden_last (B, N) what the
    model remembers of the prompt; hidden_steps (B, T, D) what the logits of each generated symbol are made
    from, hidden_mean (B, D) its mean; magnitude (B,) largest absolute value among the states after prompt
    and output and all logits; nonfinite (B,) str, the first place that was NaN or infinite, or '';
    phrase_gap/... see rnn/phrase_gap.py. Numbers are float32, whatever the model's dtype is.

    Args:
        module: The module, of which a recipe can make a twin.
        symbols: The text of each symbol. Those of several characters or none are in no prompt.
        stepper: What advances the model.
        decoding: How to write.
        lengths: The symbols of the shortest and of the longest prompt.
        start: The symbol that the model reads before every prompt.
        end: The symbol that ends a text.
    """

    channels = CHANNELS | {"phrase_gap/"}
    identity: str

    def __init__(
        self,
        module: nn.Module,
        symbols: Sequence[str],
        stepper: Stepper,
        decoding: Decoding,
        lengths: tuple[int, int],
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        self.module, self.decoding = module, decoding
        self.info = TargetInfo()
        self.vocabulary = tuple(symbols)
        self.language = self.vocabulary, start, end
        self._special = [i for i, symbol in enumerate(symbols) if len(symbol) != 1]
        drawn = tuple(np.setdiff1d(np.arange(len(symbols)), self._special).tolist()) if self._special else ()
        self.space = TextSpace(self.vocabulary, *lengths, drawn)
        self.sampler = TokenSampler(decoding, len(symbols))
        self._stepper, self._start, self._end = stepper, start, end
        self._gaps = cache(partial(PhraseGaps, space=self.space, stepper=stepper, sampler=self.sampler))

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every prompt."""
        return self.show(batch, self.decode(batch, wants), wants)

    @torch.inference_mode()
    def decode(self, batch: Batch, wants: frozenset[str]) -> Decoded:
        """Read the prompts and write, and keep what ``wants`` will need."""
        states = self._read(batch)
        prompt = tuple(state.clone() for state in states)
        keep = bool(wants & STEPWISE or phrases(wants))
        tokens, logits, end, kept = self._write(states, self.decoding.max_new, self.sampler.choose, keep)
        return Decoded(tokens, logits, prompt, end, kept)

    @torch.inference_mode()
    def follow(self, batch: Batch, tokens: Tensor, prompt: States | None = None) -> Tensor:
        """Return logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens``.

        This is teacher forcing, equal to the last bit to what ``decode`` gives if it writes the same tokens.

        Args:
            batch: The prompts.
            tokens: The symbols (T, B) to follow.
            prompt: What an earlier ``decode`` of the same batch left, so that it is not read again.
        """
        states = tuple(state.clone() for state in prompt) if prompt else self._read(batch)
        return self._write(states, len(tokens), lambda step, _: tokens[step])[1]

    def going(self, tokens: Tensor) -> Tensor:
        """Return which steps (T, B) bool of ``tokens`` are decoded: until a text or stop string ends."""
        written = tokens.T.numpy()
        texts = self.space.decode_rows(written, np.full(len(written), len(tokens)))
        starts, ends = spans(self.vocabulary, written)
        stop = first_stop(texts, self.decoding.stop, past=True)
        if self._end is not None:
            stop = np.minimum(stop, np.where(written == self._end, ends, NEVER).min(axis=1))
        return torch.from_numpy(starts < stop[:, None]).T

    @torch.inference_mode()
    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` gave for the same ``wants``."""
        tokens, logits = decoded.tokens, decoded.logits
        trace, ended = characters(self.space, tokens.T.numpy(), self.decoding.stop, self._end)
        for name, values in distribution(logits, tokens, wants).items():
            trace[name] = np.where(ended, np.nan, values.T.numpy())
        if "hidden_last" in wants:
            trace["hidden_last"] = self._stepper.carried(decoded.prompt).float().numpy()
        if wants & STEPWISE:
            top = self._stepper.top(decoded.states).transpose(0, 1).float()
            trace |= {"hidden_steps": top.numpy(), "hidden_mean": top.mean(dim=1).numpy()}
        if wants & {"magnitude", "nonfinite"}:
            trace |= self._extremes(batch, decoded)
        if gaps := phrases(wants):
            last = batch.data[np.arange(len(batch)), batch.lengths - 1]
            trace |= self._gaps(gaps)(last, tokens, self.sampler.scores(logits), decoded.states, decoded.end)
        return {name: trace[name] for name in wants}

    @torch.inference_mode()
    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """Return ``new`` symbols int32 (B, new) after each prompt, drawn at ``temperature`` with ``rng``."""
        noise = rng.gumbel(size=(new, len(batch), len(self.vocabulary))).astype(np.float32) * temperature
        noise[:, :, self._special] = -np.inf

        def choose(step: int, logits: Tensor) -> Tensor:
            return (logits + torch.from_numpy(noise[step])).argmax(dim=1)

        return self._write(self._read(batch), new, choose)[0].T.numpy().astype(np.int32)

    def loss(self, batch: Batch) -> FloatArray:
        """Return the nats per symbol float32 (B,) of each row after its first; NaN if there is no other."""
        first = batch.changed(batch.data[:, :1], np.minimum(batch.lengths, 1))
        rest = torch.from_numpy(batch.data[:, 1:].T.astype(np.int64))
        there = torch.arange(1, len(rest) + 1)[:, None] < torch.from_numpy(batch.lengths)
        rest = rest.masked_fill(~there, 0)
        logs = self.follow(first, rest).log_softmax(dim=2).gather(2, rest[:, :, None])[:, :, 0]
        return -(logs.masked_fill(~there, 0).sum(dim=0) / there.sum(dim=0)).numpy()

    def _read(self, batch: Batch) -> States:
        if self._start is not None:
            data = np.insert(batch.data, 0, self._start, axis=1)
            batch = batch.changed(data, batch.lengths + 1)
        return self._stepper.read(batch)

    def _write(
        self, states: States, steps: int, choose: Callable[[int, Tensor], Tensor], keep: bool = False
    ) -> tuple[Tensor, Tensor, States, States]:
        """Write from states, which may change in place.

        Args:
            states: The states after the prompts, (B, ...).
            steps: How many symbols to write, T.
            choose: What gives the symbols (B,) of a step for its number and its logits (B, V).
            keep: Whether to keep the states before every symbol.

        Returns:
            Symbols (T, B), logits (T, B, V), the states at the end, and those before every symbol, or
            (0, B, ...).
        """
        rows = len(states[0])
        tokens = torch.empty((steps, rows), dtype=torch.int64)
        logits = torch.empty((steps, rows, len(self.vocabulary)))
        shapes = self._stepper.keep(states)
        kept = tuple(state.new_empty((steps if keep else 0, *state.shape)) for state in shapes)
        for step in range(steps):
            if step:
                states = self._stepper.step(tokens[step - 1], states)
            if keep:
                for place, state in zip(kept, self._stepper.keep(states), strict=True):
                    place[step] = state
            self._stepper.logits(states, out=logits[step])
            tokens[step] = choose(step, logits[step])
        return tokens, logits, states, kept

    def _extremes(self, batch: Batch, decoded: Decoded) -> dict[str, Array]:
        """Return the channels magnitude and nonfinite."""
        carried = [self._stepper.carried(states) for states in (decoded.prompt, decoded.end)]
        largest = torch.cat(carried, dim=1).abs().amax(dim=1).float()
        magnitude = torch.maximum(largest, decoded.logits.abs().amax(dim=(0, 2))).numpy()
        return extremes(magnitude, lambda row: self._first_place(batch.alone(row), decoded.tokens[:, row]))

    def _first_place(self, row: Batch, written: Tensor) -> str:
        """Return where a row first was not finite, found by running it again symbol by symbol."""
        read = int(row.lengths[0])
        for step, states in enumerate(self._one_by_one(row, written), start=1):
            where = f"symbol {step} of the prompt" if step <= read else f"step {step - read} of the output"
            part = self._stepper.broken(states)
            if part or not self._stepper.logits(states).isfinite().all():
                return f"{part or 'logits'}, {where}"
        return "in the batch only, not alone"

    def _one_by_one(self, row: Batch, written: Tensor) -> Iterator[States]:
        """Yield the states after each symbol of one prompt and of what was written after it."""
        states = self._read(row.changed(row.data[:, :1], np.minimum(row.lengths, 1)))
        yield states
        for symbol in [*row.row(0)[1:].tolist(), *written.tolist()]:
            states = self._stepper.step(torch.tensor([symbol]), states)
            yield states

    def _hash(self, key: str, content: Callable[[Tensor], Tensor]) -> str:
        """Hash ``key`` and what ``content`` makes of each tensor of the module."""
        digest = hashlib.sha256(key.encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + content(tensor).numpy().tobytes())
        return digest.hexdigest()[:16]
