"""The in-place step of a recurrent network: one symbol for every row, without allocation.

Layer 0's input projection is folded into a table of one row per symbol, and every further layer is
one matrix product from the adjacent columns [hidden below | own hidden] of a single buffer.

A model in float16 or bfloat16 keeps its states, and the results of every product, in that type; its logits
become float32. Products of float16 are computed in float64 and rounded: torch's own kernel for them is 60
times as slow on a processor without such instructions, and float32, whose kernels differ with the number
of rows, would round a row differently alone than in a batch (4 of 400 texts changed).
"""

import torch
from torch import Tensor

from lmfuzz.targets.rnn.model import CharRNN

States = tuple[Tensor, Tensor]  # hidden and cell, each (..., layers x width); a GRU's cell is (..., 0)


class Stepper:
    """Advance the states of up to B rows through a CharRNN, and write logits on demand."""

    def __init__(self, model: CharRNN) -> None:
        config = model.config
        self.layers, self.width = config.layers, config.hidden
        self.lstm = config.cell == "lstm"
        self.dtype = model.embedding.weight.dtype
        self.exact = self.dtype == torch.float32
        self._products = torch.float64 if self.dtype == torch.float16 else self.dtype
        rnn = model.rnn

        def gates(name: str, layer: int) -> Tensor:
            parameter: Tensor = getattr(rnn, f"{name}_l{layer}").detach().to(self._products)
            if not self.lstm:
                return parameter
            into, keep, new, out = parameter.chunk(4)
            return torch.cat([into, keep, out, 2 * new if self.exact else new])

        self._below = [gates("weight_ih", i).T.contiguous() for i in range(self.layers)]
        self._own = [gates("weight_hh", i).T.contiguous() for i in range(self.layers)]
        self._bias_below = [gates("bias_ih", i) for i in range(self.layers)]
        self._bias_own = [gates("bias_hh", i) for i in range(self.layers)]
        bias = self._bias_below[0] + (self._bias_own[0] if self.lstm else 0)
        self.table = model.embedding.weight.detach().to(self._products) @ self._below[0] + bias  # (V, gates)
        if self.lstm:
            self._both = [torch.cat(pair) for pair in zip(self._below, self._own, strict=True)]
            self._bias = [a + b for a, b in zip(self._bias_below, self._bias_own, strict=True)]
        self.readout = model.output.weight.detach().to(self._products).T.contiguous()
        self.readout_bias = model.output.bias.detach().to(self._products)

    def start(self, rows: int) -> States:
        """Return the zero state: hidden and cell, each (rows, layers x width)."""
        size = rows, self.layers * self.width
        hidden = torch.zeros(size, dtype=self.dtype)
        return hidden, torch.zeros(size if self.lstm else (rows, 0), dtype=self.dtype)

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the logits float32 (B, V) of the states ``hidden`` (B, layers x width)."""
        top = hidden[:, -self.width :]
        if self.exact:
            return torch.addmm(self.readout_bias, top, self.readout, out=out)
        logits = torch.addmm(self.readout_bias, top.to(self._products), self.readout).to(self.dtype).float()
        return logits if out is None else out.copy_(logits)

    def step(self, symbols: Tensor, hidden: Tensor, cell: Tensor) -> None:
        """Read ``symbols`` (B,), and change ``hidden`` and ``cell`` in place."""
        width, products = self.width, self._products
        below = torch.index_select(self.table, 0, symbols)
        for i in range(self.layers):
            own = hidden[:, i * width : (i + 1) * width]
            if self.lstm:
                if i == 0:
                    gates = below.addmm_(own.to(products), self._own[0])
                else:
                    both = hidden[:, (i - 1) * width : (i + 1) * width]
                    gates = torch.addmm(self._bias[i], both.to(products), self._both[i])
                change = _lstm if self.exact else _lstm_rounded
                change(gates.to(self.dtype), own, cell[:, i * width : (i + 1) * width])
            else:
                if i > 0:
                    lower = hidden[:, (i - 1) * width : i * width]
                    below = torch.addmm(self._bias_below[i], lower.to(products), self._below[i])
                above = torch.addmm(self._bias_own[i], own.to(products), self._own[i])
                _gru(below.to(self.dtype), above.to(self.dtype), own, width)


def _lstm(gates: Tensor, hidden: Tensor, cell: Tensor) -> None:
    # tanh(x) = 2 sigmoid(2x) - 1, with the 2x folded into the weights: torch's sigmoid is 8 times
    # as fast as its tanh on a CPU (0.3 against 2.6 ns per number).
    into, keep, out, new = gates.sigmoid_().chunk(4, dim=1)
    cell.mul_(keep).addcmul_(into, new, value=2).sub_(into)
    torch.mul(out, (cell * 2).sigmoid_().mul_(2).sub_(1), out=hidden)


def _lstm_rounded(gates: Tensor, hidden: Tensor, cell: Tensor) -> None:
    # In 16 bits 2 sigmoid(2x) - 1 would lose the digits of small x that tanh keeps.
    width = hidden.shape[1]
    into, keep, out = gates[:, : 3 * width].sigmoid_().chunk(3, dim=1)
    cell.mul_(keep).addcmul_(into, gates[:, 3 * width :].tanh_())
    torch.mul(out, cell.tanh(), out=hidden)


def _gru(below: Tensor, own: Tensor, hidden: Tensor, width: int) -> None:
    both = below[:, : 2 * width].add_(own[:, : 2 * width]).sigmoid_()
    reset, update = both.chunk(2, dim=1)
    new = below[:, 2 * width :].addcmul_(reset, own[:, 2 * width :]).tanh_()
    torch.lerp(new, hidden, update, out=hidden)
