"""A character RNN as a target: prompts in, greedy or sampled text and hidden states out."""

import hashlib
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Target, TargetInfo
from lmfuzz.targets.capabilities import Written
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.rnn.phrase_gap import PhraseGaps
from lmfuzz.targets.rnn.step import States, Stepper
from lmfuzz.targets.sampling import (
    CHANNELS,
    STEPWISE,
    Decoding,
    TokenSampler,
    characters,
    distribution,
    first_stop,
)
from lmfuzz.targets.torch_module import ModuleTarget
from lmfuzz.types import Batch, IntArray, Trace


@dataclass(frozen=True)
class Decoded(Written):
    """What decoding led to; states are (..., layers x width), in the model's dtype.

    prompt: those after the prompts, (B, ...). end: after all symbols but the last, (B, ...). states: before
    every symbol, (T, B, ...); (0, B, ...) where nobody wanted them. tokens: also after a stop string.
    """

    end: States
    states: States


class RNNTarget:
    """A CharRNN behind the verb ``run``.

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
    info = TargetInfo()

    def __init__(
        self, model: CharRNN, decoding: Decoding | None = None, min_length: int = 1, max_length: int = 64
    ) -> None:
        self.module = model.eval().requires_grad_(False)
        self.decoding = decoding or Decoding()
        self.space = TextSpace(tuple(model.config.alphabet), min_length, max_length)
        self.vocabulary = self.language = self.space.symbols
        self.sampler = TokenSampler(self.decoding, len(self.vocabulary))
        self.identity = _identity(model, self.decoding)
        self._stepper = Stepper(model)
        self._gaps = cache(partial(PhraseGaps, space=self.space, stepper=self._stepper, sampler=self.sampler))

    def like(self, module: nn.Module, name: str) -> Target:
        """Return the same with another module."""
        return writer(module, name, self.decoding, self.space.min_length, self.space.max_length)

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""
        return self.show(batch, self.decode(batch, wants), wants)

    @torch.inference_mode()
    def decode(self, batch: Batch, wants: frozenset[str]) -> Decoded:
        """Read the prompts and write, keeping what ``wants`` will need."""
        hidden, cell = self._read(batch)
        prompt = hidden.clone(), cell.clone()
        keep = any(name in STEPWISE or name.startswith("phrase_gap/") for name in wants)
        tokens, logits, states = self._write(hidden, cell, keep)
        return Decoded(tokens, logits, prompt, (hidden, cell), states)

    @torch.inference_mode()
    def follow(self, batch: Batch, tokens: Tensor, prompt: States | None = None) -> Tensor:
        """Logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens`` (T, B).

        Teacher forcing: equal to the last bit to what ``decode`` gives where it writes the same tokens.
        prompt: what an earlier ``decode`` of the same batch left there, so that it is not read again.
        """
        hidden, cell = (part.clone() for part in prompt) if prompt else self._read(batch)
        return self._write(hidden, cell, keep=False, tokens=tokens)[1]

    def going(self, tokens: Tensor) -> Tensor:
        """Which steps (T, B) bool of ``tokens`` (T, B) are decoded: those until a stop string is complete."""
        steps, rows = tokens.shape
        texts = self.space.decode_rows(tokens.T.numpy(), np.full(rows, steps))
        ends = first_stop(texts, self.decoding.stop, past=True)
        return torch.arange(steps)[:, None] < torch.from_numpy(ends)

    @torch.inference_mode()
    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """The wanted channels of what ``decode`` was asked for with these wants."""
        tokens, logits, states = decoded.tokens, decoded.logits, decoded.states
        written = tokens.T.numpy().astype(np.int32)
        trace, ended = characters(self.space, written, self.decoding.stop)
        for name, values in distribution(logits, tokens, wants).items():
            trace[name] = np.where(ended, np.nan, values.T.numpy())
        if "hidden_last" in wants:
            trace["hidden_last"] = torch.cat(decoded.prompt, dim=1).float().numpy()
        if wants & STEPWISE:
            top = states[0][:, :, -self._stepper.width :].transpose(0, 1).float()
            trace |= {"hidden_steps": top.numpy(), "hidden_mean": top.mean(dim=1).numpy()}
        if wants & {"magnitude", "nonfinite"}:
            largest = torch.cat([*decoded.prompt, *decoded.end], dim=1).abs().amax(dim=1).float()
            magnitude = torch.maximum(largest, logits.abs().amax(dim=(0, 2)))
            trace["magnitude"] = magnitude.numpy()
            trace["nonfinite"] = places = np.full(len(batch), "", dtype=object)
            for row in torch.nonzero(~magnitude.isfinite())[:, 0].tolist():
                places[row] = self._first_place(batch.row(row).tolist(), written[row].tolist())
        if phrases := sorted(name for name in wants if name.startswith("phrase_gap/")):
            last = batch.data[np.arange(len(batch)), batch.lengths - 1]
            trace |= self._gaps(tuple(phrases))(last, written, self.sampler.scores(logits), states)
        return {name: trace[name] for name in wants}

    @torch.inference_mode()
    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """``new`` symbols int32 (B, new) after each row, drawn at ``temperature`` with noise from ``rng``."""
        hidden, cell = self._read(batch)
        noise = rng.gumbel(size=(new, len(batch), len(self.space.symbols))).astype(np.float32) * temperature
        tails = torch.empty((new, len(batch)), dtype=torch.int64)
        for step in range(new):
            if step:
                self._stepper.step(tails[step - 1], hidden, cell)
            torch.argmax(self._stepper.logits(hidden) + torch.from_numpy(noise[step]), dim=1, out=tails[step])
        return tails.T.numpy().astype(np.int32)

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The state after each prompt: hidden and cell, each (B, layers x width)."""
        lengths = torch.from_numpy(batch.lengths.astype(np.int64))
        longest, shortest = int(lengths.max()), int(lengths.min())
        if longest == shortest and self._stepper.exact:
            # Not in 16 bits, where the fused pass rounds otherwise than the steps of a ragged batch do:
            # a row's text would depend on its neighbours' lengths.
            return self._read_equal(torch.from_numpy(batch.data[:, :longest]))
        order = lengths.argsort(descending=True)
        columns = torch.from_numpy(
            np.where(np.arange(longest) < batch.lengths[:, None], batch.data[:, :longest], 0)
        )
        columns = columns[order].T.contiguous()
        going = (lengths[None, :] > torch.arange(longest)[:, None]).sum(dim=1).tolist()
        hidden, cell = self._stepper.start(len(batch))
        for step, rows in enumerate(going):  # the longest rows come first, so the others drop off the end
            self._stepper.step(columns[step, :rows], hidden[:rows], cell[:rows])
        back = order.argsort()
        return hidden[back], cell[back]

    def _read_equal(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """As ``_read`` for rows of one length: the fused pass of nn.LSTM or nn.GRU."""
        embedded = self.module.embedding(data)
        rows = torch.full((len(data),), data.shape[1])
        packed = torch.nn.utils.rnn.pack_padded_sequence(embedded, rows, batch_first=True)
        _, state = self.module.rnn(packed)
        if self._stepper.lstm:
            hidden, cell = (torch.cat(list(part), dim=1) for part in state)
            return hidden, cell
        return torch.cat(list(state), dim=1), torch.zeros(len(data), 0)

    def _write(
        self, hidden: Tensor, cell: Tensor, keep: bool, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor, States]:
        """Decode: tokens (T, B), those given or chosen; logits (T, B, V); if ``keep`` the states before."""
        steps, rows = self.decoding.max_new if tokens is None else len(tokens), len(hidden)
        chosen = torch.empty((steps, rows), dtype=torch.int64) if tokens is None else tokens
        logits = torch.empty((steps, rows, len(self.space.symbols)))
        kept = steps if keep else 0
        states = hidden.new_empty((kept, *hidden.shape)), cell.new_empty((kept, *cell.shape))
        for step in range(steps):
            if step:
                self._stepper.step(chosen[step - 1], hidden, cell)
            if keep:
                states[0][step], states[1][step] = hidden, cell
            self._stepper.logits(hidden, out=logits[step])
            if tokens is None:
                chosen[step] = self.sampler.choose(step, logits[step])
        return chosen, logits, states

    def _first_place(self, prompt: list[int], written: list[int]) -> str:
        """Where a row first was not finite, found by running it again step by step."""
        hidden, cell = self._stepper.start(1)
        read, width = len(prompt), self._stepper.width
        for step, symbol in enumerate([*prompt, *written], start=1):
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
    """Return a module that writes characters as a target: if it is no CharRNN, as any module is run."""
    kept = decoding, min_length, max_length
    return RNNTarget(module, *kept) if isinstance(module, CharRNN) else ModuleTarget(module, name, *kept)


def _identity(model: CharRNN, decoding: Decoding) -> str:
    digest = hashlib.sha256(model.config.model_dump_json().encode() + decoding.key.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
