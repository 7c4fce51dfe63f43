"""The character-level recurrent language model: embedding, LSTM, GRU or RNN layers, linear."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

State = tuple[Tensor, Tensor] | Tensor  # LSTM: (hidden, cell), others: hidden; each (layers, B, hidden)
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class CharRNNConfig(BaseModel):
    """Describe the shape of a character RNN, and the alphabet that it reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["lmfuzz-char-rnn"] = "lmfuzz-char-rnn"
    version: Literal[1] = 1
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
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


class CharRNN(nn.Module):
    """Predict characters: embedding, recurrent layers, linear; symbol i is ``config.alphabet[i]``."""

    def __init__(self, config: CharRNNConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        symbols = len(config.alphabet)
        empty = torch.empty(symbols, config.embedding)  # drawing on "meta" would import torch's compiler
        self.embedding = nn.Embedding(symbols, config.embedding, _weight=empty if empty.is_meta else None)
        between = dropout if config.layers > 1 else 0.0
        self.rnn = CELLS[config.cell](
            config.embedding, config.hidden, config.layers, batch_first=True, dropout=between
        )
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(config.hidden, symbols)

    def forward(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return logits (B, T, V) after each of ``symbols`` (B, T), and the state after the last."""
        hidden, state = self.rnn(self.dropout(self.embedding(symbols)), state)
        return self.output(self.dropout(hidden)), state
