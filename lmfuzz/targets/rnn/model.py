"""The character-level recurrent language model: embedding, LSTM or GRU layers, linear."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

State = tuple[Tensor, Tensor] | Tensor  # LSTM: (hidden, cell), GRU: hidden; each (layers, B, hidden)


class CharRNNConfig(BaseModel):
    """The shape of a character RNN and the alphabet it reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lmfuzz-char-rnn"] = "lmfuzz-char-rnn"
    version: Literal[1] = 1
    cell: Literal["lstm", "gru"] = "lstm"
    alphabet: str
    embedding: int = Field(default=128, gt=0, le=2**20)
    hidden: int = Field(default=128, gt=0, le=2**20)
    layers: int = Field(default=2, gt=0, le=1000)

    @field_validator("alphabet")
    @classmethod
    def _distinct(cls, alphabet: str) -> str:
        if len(alphabet) < 2 or len(set(alphabet)) != len(alphabet):
            raise ValueError("must hold at least two characters, each of them once")
        return alphabet


def shapes(config: CharRNNConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a checkpoint of this configuration, by name."""
    symbols, hidden = len(config.alphabet), config.hidden
    gates = {"lstm": 4, "gru": 3}[config.cell] * hidden
    layers: dict[str, tuple[int, ...]] = {}
    for i in range(config.layers):
        below = config.hidden if i else config.embedding
        layers |= {f"rnn.weight_ih_l{i}": (gates, below), f"rnn.weight_hh_l{i}": (gates, hidden)}
        layers |= {f"rnn.bias_ih_l{i}": (gates,), f"rnn.bias_hh_l{i}": (gates,)}
    ends = {"output.weight": (symbols, hidden), "output.bias": (symbols,)}
    return {"embedding.weight": (symbols, config.embedding), **layers, **ends}


class CharRNN(nn.Module):
    """Embedding + nn.LSTM or nn.GRU + linear; symbol i is ``config.alphabet[i]``."""

    def __init__(self, config: CharRNNConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        symbols = len(config.alphabet)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell]
        self.embedding = nn.Embedding(symbols, config.embedding)
        self.rnn = kind(
            config.embedding,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(config.hidden, symbols)

    def forward(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, T, V) after each of ``symbols`` (B, T), and the state after the last."""
        hidden, state = self.rnn(self.dropout(self.embedding(symbols)), state)
        return self.output(self.dropout(hidden)), state
