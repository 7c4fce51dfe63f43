"""A character RNN as a target: prompts in, greedy or sampled text and hidden states out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.rnn.phrase_gap import PhraseGaps
from lmfuzz.targets.rnn.step import States, Stepper
from lmfuzz.types import PAD, Array, Batch, FloatArray, IntArray, Trace

CHANNELS = frozenset({
    "text", "tokens", "logprob", "entropy", "hidden_last", "hidden_mean", "hidden_steps",
    "magnitude", "nonfinite", "phrase_gap/", "ended", "token_ends",
})  # fmt: skip
STEPWISE = frozenset({"hidden_mean", "hidden_steps"})  # made of the states before every symbol
_FIRST = ("max_new", "temperature", "seed", "stop")  # settings of Decoding that every identity hashes


@dataclass(frozen=True)
class Decoding:
    """How text follows from a prompt.

    max_new: symbols to write. temperature: 0 is greedy; above it, sampling with noise that belongs to
    (seed, step) alone, so that text is a function of the prompt. stop: the output ends before the
    first of these strings.
    """

    max_new: int = 50
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What identities hash: the settings of 0.3.0, and of later ones those that are not the default.

        So that a target keeps its identity when a setting is added that it does not use.
        """
        shown = [f for f in fields(self) if f.name in _FIRST or getattr(self, f.name) != f.default]
        return f"Decoding({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


@dataclass(frozen=True)
class Decoded:
    """What decoding B prompts for T steps led to; states are (..., layers x width), in the model's dtype."""

    prompt: States  # after the prompts, (B, ...)
    end: States  # after all symbols but the last, (B, ...)
    tokens: Tensor  # (T, B) int64, what was written whether or not a stop string came
    logits: Tensor  # (T, B, V) float32, without noise
    states: States  # before every symbol, (T, B, ...); (0, B, ...) where nobody wanted them


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

    channels = CHANNELS

    def __init__(
        self, model: CharRNN, decoding: Decoding | None = None, min_length: int = 1, max_length: int = 64
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.decoding = decoding or Decoding()
        self.space = TextSpace(tuple(model.config.alphabet), min_length, max_length)
        self.vocabulary = self.space.symbols  # the text of each token that it writes
        self.identity = _identity(model, self.decoding)
        self._stepper = Stepper(model)
        self._gaps: dict[tuple[str, ...], PhraseGaps] = {}
        steps, symbols = self.decoding.max_new, len(self.space.symbols)
        # Gumbel-max: argmax(logits / temperature + noise) is an exact draw from the softmax.
        draws = np.random.Generator(np.random.PCG64(self.decoding.seed)).gumbel(size=(steps, symbols))
        self._noise = torch.from_numpy(draws.astype(np.float32)) * self.decoding.temperature

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
        return Decoded(prompt, (hidden, cell), tokens, logits, states)

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
        ends = np.full(rows, steps)
        for stop in self.decoding.stop:
            texts = self.space.decode_rows(tokens.T.numpy(), np.full(rows, steps))
            found = np.array([text.find(stop) for text in texts])
            ends = np.where(found >= 0, np.minimum(ends, found + len(stop)), ends)
        return torch.arange(steps)[:, None] < torch.from_numpy(ends)

    def noisy(self, logits: Tensor) -> Tensor:
        """The logits (T, B, V) that decoding takes the largest of: with its noise, greedily as they are."""
        return logits + self._noise[:, None, :] if self.decoding.temperature else logits

    @torch.inference_mode()
    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """The wanted channels of what ``decode`` was asked for with these wants."""
        tokens, logits, states = decoded.tokens, decoded.logits, decoded.states
        written = tokens.T.numpy().astype(np.int32)
        texts, ended = self._texts(written)
        trace: dict[str, Array] = {"text": texts, "tokens": np.where(ended, PAD, written).astype(np.int32)}
        trace |= endings(ended)
        if wants & {"logprob", "entropy"}:
            trace |= _distribution(logits, tokens, ended)
        if "hidden_last" in wants:
            trace["hidden_last"] = torch.cat(decoded.prompt, dim=1).float().numpy()
        if wants & STEPWISE:
            top = states[0][:, :, -self._stepper.width :].transpose(0, 1).float()
            trace |= {"hidden_steps": top.numpy(), "hidden_mean": top.mean(dim=1).numpy()}
        if wants & {"magnitude", "nonfinite"}:
            largest = torch.cat([*decoded.prompt, *decoded.end], dim=1).abs().amax(dim=1).float()
            magnitude = torch.maximum(largest, logits.abs().amax(dim=(0, 2)))
            trace["magnitude"] = magnitude.numpy()
            trace["nonfinite"] = self._first_place(batch, ~magnitude.isfinite().numpy())
        if phrases := sorted(name for name in wants if name.startswith("phrase_gap/")):
            trace |= self._phrase_gaps(batch, phrases, written, logits, states)
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
        embedded = self.model.embedding(data)
        rows = torch.full((len(data),), data.shape[1])
        packed = torch.nn.utils.rnn.pack_padded_sequence(embedded, rows, batch_first=True)
        _, state = self.model.rnn(packed)
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
                choice = logits[step] + self._noise[step] if self.decoding.temperature else logits[step]
                torch.argmax(choice, dim=1, out=chosen[step])
        return chosen, logits, states

    def _texts(self, written: IntArray) -> tuple[Array, Array]:
        """Output texts (B,), cut before the first stop string, and which symbols (B, T) were cut."""
        steps = written.shape[1]
        ends = np.full(len(written), steps)
        texts = np.array(self.space.decode_rows(written, ends), dtype=object)
        for stop in self.decoding.stop:
            found = np.array([text.find(stop) for text in texts])
            ends = np.where(found >= 0, np.minimum(ends, found), ends)
        if self.decoding.stop:
            texts = np.array([text[:end] for text, end in zip(texts, ends, strict=True)], dtype=object)
        return texts, np.arange(steps) >= ends[:, None]

    def _phrase_gaps(
        self, batch: Batch, names: Sequence[str], written: IntArray, logits: Tensor, states: States
    ) -> dict[str, FloatArray]:
        key = tuple(names)
        if key not in self._gaps:
            self._gaps[key] = PhraseGaps(names, self.space, self._stepper)
        last = batch.data[np.arange(len(batch)), batch.lengths - 1]
        return self._gaps[key](last, written, self.noisy(logits), states, self._noise)

    def _first_place(self, batch: Batch, flagged: Array) -> Array:
        """Where each flagged row first was not finite, found by running it again step by step."""
        places = np.full(len(batch), "", dtype=object)
        for row in np.flatnonzero(flagged).tolist():
            places[row] = self._walk(batch.row(row))
        return places

    def _walk(self, symbols: IntArray) -> str:
        hidden, cell = self._stepper.start(1)
        read, width = len(symbols), self._stepper.width
        queue = [int(s) for s in symbols]
        for step in range(read + self.decoding.max_new):
            where = (
                f"symbol {step + 1} of the prompt" if step < read else f"step {step - read + 1} of the output"
            )
            self._stepper.step(torch.tensor([queue[step]]), hidden, cell)
            for layer in range(self._stepper.layers):
                for name, state in (("hidden", hidden), ("cell", cell)):
                    if not state[:, layer * width : (layer + 1) * width].isfinite().all():
                        return f"layer {layer} {name}, {where}"
            logits = self._stepper.logits(hidden)
            if not logits.isfinite().all():
                return f"logits, {where}"
            if step >= read - 1 and len(queue) < read + self.decoding.max_new:
                noise = self._noise[step - read + 1] if self.decoding.temperature else 0
                queue.append(int((logits + noise).argmax()))
        return "in the batch only, not alone"


def endings(ended: Array) -> dict[str, Array]:
    """The channels ended and token_ends of characters, of which ``ended`` (B, T) came after a stop string."""
    ends = np.where(ended, PAD, np.arange(1, ended.shape[1] + 1)).astype(np.int32)
    return {"ended": np.any(ended, axis=1), "token_ends": ends}


def _distribution(logits: Tensor, tokens: Tensor, ended: Array) -> dict[str, FloatArray]:
    logs = torch.log_softmax(logits, dim=2)
    chosen = logs.gather(2, tokens[:, :, None])[:, :, 0].T.numpy()
    entropy = -(logs.exp() * logs).sum(dim=2).T.numpy()
    return {"logprob": np.where(ended, np.nan, chosen), "entropy": np.where(ended, np.nan, entropy)}


def _identity(model: CharRNN, decoding: Decoding) -> str:
    digest = hashlib.sha256(model.config.model_dump_json().encode() + decoding.key.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
