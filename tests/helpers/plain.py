"""The obvious, slow way: a CharRNN called symbol by symbol, one row at a time."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig
from lmfuzz.types import Batch

ALPHABET = "aAbBcC d_E9.\n"
SYMBOLS = len(ALPHABET)


@dataclass(frozen=True)
class Written:
    """What one row led to, before each of T written symbols."""

    tokens: list[int]
    logits: Tensor  # (T, V), without noise
    hidden: Tensor  # (T, layers, width)
    cell: Tensor  # (T, layers, width), zeros for a GRU


def char_rnn(cell="lstm", layers=2, hidden=20, embedding=9, alphabet=ALPHABET, seed=0, scale=3.0):
    """A model of random weights, large enough that what it writes depends on the prompt."""
    torch.manual_seed(seed)
    config = CharRNNConfig(cell=cell, alphabet=alphabet, embedding=embedding, hidden=hidden, layers=layers)
    model = CharRNN(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        model.output.weight.mul_(scale)
    return model


def gumbel(seed, steps, symbols, temperature):
    """The noise (T, V) that belongs to a decoding seed; findings are replayed with it, so it stays."""
    draws = np.random.Generator(np.random.PCG64(seed)).gumbel(size=(steps, symbols))
    return torch.from_numpy(draws.astype(np.float32)) * temperature


@torch.inference_mode()
def write(model, symbols, steps, noise=None):
    """Read ``symbols``, then write ``steps`` more."""
    state, tokens, rows = None, [], []
    for symbol in symbols:
        logits, state = model(torch.tensor([[int(symbol)]]), state)
    for step in range(steps):
        hidden, cell = state if model.config.cell == "lstm" else (state, torch.zeros_like(state))
        rows.append((logits[0, 0], hidden[:, 0], cell[:, 0]))
        choice = logits[0, 0] if noise is None else logits[0, 0] + noise[step]
        tokens.append(int(choice.argmax()))
        logits, state = model(torch.tensor([[tokens[-1]]]), state)
    return Written(tokens, *(torch.stack(part) for part in zip(*rows, strict=True)))


def rows(lengths, symbols=SYMBOLS, seed=0):
    """Random prompts of these lengths."""
    rng = np.random.default_rng(seed)
    return Batch.of([rng.integers(symbols, size=n, dtype=np.int32) for n in lengths])
