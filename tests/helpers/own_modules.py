"""Torch modules as users write them, each called in another way."""

from typing import Any

import torch
from torch import Tensor, nn

from helpers.plain import ALPHABET, char_rnn

V = len(ALPHABET)


class Own(nn.Module):
    """The parts of a CharRNN, and a layer that keeps the fast kernels away."""

    alphabet = ALPHABET

    def __init__(self, cell: str = "lstm") -> None:
        super().__init__()
        self.inner = char_rnn(cell)
        self.scale = nn.Parameter(torch.ones(1))

    def run(self, symbols: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, state = self.inner(symbols, state)
        return logits * self.scale, state


class Stateful(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        return self.run(symbols, state)


class Nested(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        given = None if state is None else (state["layers"][0], state["layers"][1])
        logits, (hidden, cell) = self.run(symbols, given)
        return logits, {"layers": [hidden, cell]}


class Spread(Own):
    def forward(self, symbols: Tensor, hidden: Any = None, cell: Any = None) -> Any:
        logits, (hidden, cell) = self.run(symbols, None if hidden is None else (hidden, cell))
        return logits.reshape(-1, V), hidden, cell


class Asks(Own):
    """Must be given a state, which it makes itself."""

    def forward(self, symbols: Tensor, state: Any) -> Any:
        return self.run(symbols, state)

    def init_hidden(self, size: int) -> Any:
        shape = self.inner.config.layers, size, self.inner.config.hidden
        return torch.zeros(shape), torch.zeros(shape)


class Single(Asks):
    """Reads one symbol (B,) at a time, as char-rnn.pytorch's decoder does."""

    def forward(self, symbol: Tensor, state: Any) -> Any:
        logits, state = self.run(symbol.view(-1, 1), state)
        return logits[:, 0], state


class Stateless(Own):
    def forward(self, symbols: Tensor) -> Any:
        return {"logits": self.run(symbols)[0]}


class LastOnly(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return self.run(symbols)[0][:, -1]


class LastOnlyStateful(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        logits, state = self.run(symbols, state)
        return logits[:, -1], state


class Probabilities(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return self.run(symbols)[0].softmax(dim=-1)


class Small(nn.Module):
    """A GPT of one block with learned positions; ``causal=False`` makes it see all of the text."""

    alphabet = ALPHABET

    def __init__(self, *, causal: bool = True, longest: int = 80) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.symbols, self.places = nn.Embedding(V, 16), nn.Embedding(longest, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, V)
        self.causal = causal
        for weight in self.parameters():
            weight.data *= 2

    def forward(self, symbols: Tensor) -> Tensor:
        steps = symbols.shape[1]
        x = self.symbols(symbols) + self.places(torch.arange(steps))
        mask = nn.Transformer.generate_square_subsequent_mask(steps) if self.causal else None
        return self.head(self.block(x, src_mask=mask))


class Attentive(nn.Module):
    """A GPT as many write it: a mask in a buffer, positions by rotation, and a mean of all earlier places."""

    alphabet = ALPHABET

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.fused = fused
        self.symbols, self.gates, self.head = nn.Embedding(V, 16), nn.Linear(16, 48), nn.Linear(16, V)
        self.norm = nn.LayerNorm(16)
        self.register_buffer("mask", torch.ones(80, 80).tril().view(1, 1, 80, 80))
        for weight in self.parameters():
            weight.data *= 3

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])
        left, right = x.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)

    def forward(self, symbols: Tensor) -> Tensor:
        rows, steps = symbols.shape
        x = self.symbols(symbols)
        heads = (part.view(rows, steps, 2, 8).transpose(1, 2) for part in self.gates(x).split(16, dim=2))
        query, key, value = heads
        query, key = self.turned(query), self.turned(key)
        if self.fused:
            seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = (query @ key.transpose(-2, -1)) / 8**0.5
            scores = scores.masked_fill(self.mask[:, :, :steps, :steps] == 0, -torch.inf)
            seen = scores.softmax(dim=-1) @ value
        mean = self.mask[0, 0, :steps, :steps] @ x / torch.arange(1, steps + 1)[:, None]
        return self.head(self.norm(x + mean + seen.transpose(1, 2).reshape(rows, steps, 16)))


class Convolved(nn.Module):
    """Sees the last three symbols, through a convolution that is padded on the left."""

    alphabet = ALPHABET

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.symbols, self.layer, self.head = nn.Embedding(V, 16), nn.Conv1d(16, 16, 3), nn.Linear(16, V)
        for weight in self.parameters():
            weight.data *= 3

    def forward(self, symbols: Tensor) -> Tensor:
        x = nn.functional.pad(self.symbols(symbols).transpose(1, 2), (2, 0))
        return self.head(self.layer(x).transpose(1, 2).relu())


class Cropped(Small):
    """Reads the last 20 symbols only, which no short text shows."""

    def forward(self, symbols: Tensor) -> Tensor:
        before = symbols.shape[1] - 20
        if before <= 0:
            return super().forward(symbols)
        return torch.cat([torch.zeros(len(symbols), before, V), super().forward(symbols[:, -20:])], dim=1)
