"""A character RNN as a target: prompts in, greedy or sampled text and hidden states out."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.protocols import Target
from lmfuzz.targets.capabilities import Written
from lmfuzz.targets.hooks import extremes
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.rnn.phrase_gap import PhraseGaps
from lmfuzz.targets.rnn.step import States, Stepper
from lmfuzz.targets.sampling import CHANNELS, STEPWISE, Decoding, first_stop, phrases
from lmfuzz.targets.torch_module import CharacterTarget, ModuleTarget
from lmfuzz.types import Batch, IntArray, Trace


@dataclass(frozen=True)
class Decoded(Written):
    """Hold what decoding led to; states are (..., layers x width), in the model's dtype.

    Attributes:
        prompt: The states after the prompts, (B, ...).
        end: The states after all symbols but the last, (B, ...).
        states: The states before every symbol, (T, B, ...), or (0, B, ...) if they are not needed.
        tokens: What was written, also after a stop string.
    """

    end: States
    states: States


class RNNTarget(CharacterTarget):
    """Run a CharRNN as a target.

    Channels, for B prompts and T = max_new steps:
    text (B,) str, tokens (B, T) int32, PAD after a stop string; ended (B,) bool, whether there was one;
    token_ends (B, T) int32, characters of text after each token, PAD like tokens; logprob and entropy (B, T)
    nats of the model's distribution at temperature 1, NaN after a stop string; hidden_last (B, layers x
    width, LSTM: twice that) all layers' hidden and cell state after the prompt; hidden_steps (B, T, width)
    top hidden state before each generated symbol, hidden_mean (B, width) its mean; magnitude (B,) largest
    absolute value among the states after prompt and output and all logits; nonfinite (B,) str, the
    first place that was NaN or infinite, or ''; phrase_gap/... see phrase_gap.py. Numbers are float32,
    whatever the model's dtype is.
    """

    channels = CHANNELS | {"phrase_gap/"}

    def __init__(
        self, model: CharRNN, decoding: Decoding | None = None, min_length: int = 1, max_length: int = 64
    ) -> None:
        super().__init__(model, model.config.alphabet, decoding, min_length, max_length)
        self.vocabulary = self.language = self.space.symbols
        key = model.config.model_dump_json() + self.decoding.key
        self.identity = self._hash(key, lambda tensor: tensor.contiguous().view(torch.uint8))
        self._stepper = Stepper(model)
        self._gaps = cache(partial(PhraseGaps, space=self.space, stepper=self._stepper, sampler=self.sampler))

    def like(self, module: nn.Module, name: str) -> Target:
        """Return the same target with another module."""
        return writer(module, name, self.decoding, self.space.min_length, self.space.max_length)

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every prompt."""
        return self.show(batch, self.decode(batch, wants), wants)

    @torch.inference_mode()
    def decode(self, batch: Batch, wants: frozenset[str]) -> Decoded:
        """Read the prompts and write, and keep what ``wants`` will need."""
        hidden, cell = self._read(batch)
        prompt = hidden.clone(), cell.clone()
        keep = bool(wants & STEPWISE or phrases(wants))
        tokens, logits, states = self._write(hidden, cell, self.decoding.max_new, self.sampler.choose, keep)
        return Decoded(tokens, logits, prompt, (hidden, cell), states)

    @torch.inference_mode()
    def follow(self, batch: Batch, tokens: Tensor, prompt: States | None = None) -> Tensor:
        """Return logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens``.

        This is teacher forcing, equal to the last bit to what ``decode`` gives if it writes the same tokens.

        Args:
            batch: The prompts.
            tokens: The symbols (T, B) to follow.
            prompt: What an earlier ``decode`` of the same batch left, so that it is not read again.
        """
        hidden, cell = (part.clone() for part in prompt) if prompt else self._read(batch)
        return self._write(hidden, cell, len(tokens), lambda step, _: tokens[step])[1]

    def going(self, tokens: Tensor) -> Tensor:
        """Return which steps (T, B) bool of ``tokens`` are decoded: those until a stop string is complete."""
        steps, rows = tokens.shape
        texts = self.space.decode_rows(tokens.T.numpy(), np.full(rows, steps))
        ends = first_stop(texts, self.decoding.stop, past=True)
        return torch.arange(steps)[:, None] < torch.from_numpy(ends)

    @torch.inference_mode()
    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` gave for the same ``wants``."""
        tokens, logits, states = decoded.tokens, decoded.logits, decoded.states
        trace = self._transcript(tokens, logits, wants)
        if "hidden_last" in wants:
            trace["hidden_last"] = torch.cat(decoded.prompt, dim=1).float().numpy()
        if wants & STEPWISE:
            top = states[0][:, :, -self._stepper.width :].transpose(0, 1).float()
            trace |= {"hidden_steps": top.numpy(), "hidden_mean": top.mean(dim=1).numpy()}
        if wants & {"magnitude", "nonfinite"}:
            largest = torch.cat([*decoded.prompt, *decoded.end], dim=1).abs().amax(dim=1).float()
            magnitude = torch.maximum(largest, logits.abs().amax(dim=(0, 2))).numpy()
            trace |= extremes(magnitude, lambda row: self._first_place(batch.row(row), tokens[:, row]))
        if gaps := phrases(wants):
            last = batch.data[np.arange(len(batch)), batch.lengths - 1]
            trace |= self._gaps(gaps)(last, tokens, self.sampler.scores(logits), states)
        return {name: trace[name] for name in wants}

    @torch.inference_mode()
    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """Return ``new`` symbols int32 (B, new) after each prompt, drawn at ``temperature`` with ``rng``."""
        hidden, cell = self._read(batch)
        noise = rng.gumbel(size=(new, len(batch), len(self.space.symbols))).astype(np.float32) * temperature

        def choose(step: int, logits: Tensor) -> Tensor:
            return (logits + torch.from_numpy(noise[step])).argmax(dim=1)

        return self._write(hidden, cell, new, choose)[0].T.numpy().astype(np.int32)

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the state after each prompt: hidden and cell, each (B, layers x width)."""
        lengths = torch.from_numpy(batch.lengths.astype(np.int64))
        longest, shortest = int(lengths.max()), int(lengths.min())
        if longest == shortest and self._stepper.exact:
            # Not in 16 bits, in which the fused pass rounds differently from the steps of a ragged batch:
            # a text would depend on the lengths of its neighbours.
            return self._read_equal(torch.from_numpy(batch.data[:, :longest]))
        order = lengths.argsort(descending=True)
        data = np.where(np.arange(longest) < batch.lengths[:, None], batch.data[:, :longest], 0)
        columns = torch.from_numpy(data)[order].T.contiguous()
        going = (lengths[None, :] > torch.arange(longest)[:, None]).sum(dim=1).tolist()
        hidden, cell = self._stepper.start(len(batch))
        for step, rows in enumerate(going):  # the longest prompts come first, so the others drop off the end
            self._stepper.step(columns[step, :rows], hidden[:rows], cell[:rows])
        back = order.argsort()
        return hidden[back], cell[back]

    def _read_equal(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Do as ``_read`` for prompts of one length, in the fused pass of nn.LSTM or nn.GRU."""
        module: Any = self.module
        rows = torch.full((len(data),), data.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(module.embedding(data), rows, batch_first=True)
        _, state = module.rnn(packed)
        if self._stepper.lstm:
            hidden, cell = (torch.cat(list(part), dim=1) for part in state)
            return hidden, cell
        return torch.cat(list(state), dim=1), torch.zeros(len(data), 0)

    def _write(
        self, hidden: Tensor, cell: Tensor, steps: int, choose: Any, keep: bool = False
    ) -> tuple[Tensor, Tensor, States]:
        """Write from a state, which changes in place.

        Args:
            hidden: Hidden states (B, layers x width).
            cell: Cell states, as wide.
            steps: How many symbols to write, T.
            choose: What gives the symbols (B,) of a step for its number and its logits (B, V).
            keep: Whether to keep the states before every symbol.

        Returns:
            Symbols (T, B), logits (T, B, V), and the states (T, B, ...), or (0, B, ...).
        """
        rows, kept = len(hidden), steps if keep else 0
        tokens = torch.empty((steps, rows), dtype=torch.int64)
        logits = torch.empty((steps, rows, len(self.space.symbols)))
        states = hidden.new_empty((kept, *hidden.shape)), cell.new_empty((kept, *cell.shape))
        for step in range(steps):
            if step:
                self._stepper.step(tokens[step - 1], hidden, cell)
            if keep:
                states[0][step], states[1][step] = hidden, cell
            self._stepper.logits(hidden, out=logits[step])
            tokens[step] = choose(step, logits[step])
        return tokens, logits, states

    def _first_place(self, prompt: IntArray, written: Tensor) -> str:
        """Return where a row first was not finite, found by running it again step by step."""
        hidden, cell = self._stepper.start(1)
        read, width = len(prompt), self._stepper.width
        for step, symbol in enumerate([*prompt.tolist(), *written.tolist()], start=1):
            where = f"symbol {step} of the prompt" if step <= read else f"step {step - read} of the output"
            self._stepper.step(torch.tensor([symbol]), hidden, cell)
            for layer in range(self._stepper.layers):
                for name, state in (("hidden", hidden), ("cell", cell)):
                    if not state[:, layer * width : (layer + 1) * width].isfinite().all():
                        return f"layer {layer} {name}, {where}"
            if not self._stepper.logits(hidden).isfinite().all():
                return f"logits, {where}"
        return "in the batch only, not alone"


def writer(
    module: nn.Module, name: str, decoding: Decoding, min_length: int, max_length: int
) -> RNNTarget | ModuleTarget:
    """Return a module that writes characters as a target; only a CharRNN is decoded step by step."""
    kept = decoding, min_length, max_length
    return RNNTarget(module, *kept) if isinstance(module, CharRNN) else ModuleTarget(module, name, *kept)
