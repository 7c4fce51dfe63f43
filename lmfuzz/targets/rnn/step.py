"""The in-place step of a recurrent network: one symbol for every row, without allocation.

Layer 0's input projection is folded into a table of one row per symbol, and every further layer is
one matrix product from the adjacent columns [hidden below | own hidden] of a single buffer.

A model in float16 or bfloat16 keeps its states, and the results of every product, in that type; its logits
become float32. Products of float16 are computed in float64 and rounded: torch's own kernel for them is 60
times as slow on a processor without such instructions, and float32, whose kernels differ with the number
of rows, would round a row differently alone than in a batch (4 of 400 texts changed).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.targets.stepping import KeepsAll, States
from lmfuzz.types import Batch


class RNNStepper(KeepsAll):
    """Advance the states of up to B rows through an embedding, nn.LSTM, nn.GRU or nn.RNN, and a linear layer.

    The states are hidden and cell, each (B, layers x width); only an LSTM has a cell, else it is (B, 0).

    Args:
        embedding: What stands for each symbol, (V, E); the identity for one-hot inputs.
        rnn: The recurrent layers, in one direction, without projections.
        output: The linear layer from the top hidden state to the logits.
    """

    def __init__(self, embedding: Tensor, rnn: nn.RNNBase, output: nn.Linear) -> None:
        self.layers, self.width = rnn.num_layers, rnn.hidden_size
        self._embedding, self._rnn = embedding, rnn
        self.lstm, self._gru = isinstance(rnn, nn.LSTM), isinstance(rnn, nn.GRU)
        self._activation = torch.relu_ if getattr(rnn, "nonlinearity", "tanh") == "relu" else torch.tanh_
        self.dtype = embedding.dtype
        self.exact = self.dtype == torch.float32
        self._products = torch.float64 if self.dtype == torch.float16 else self.dtype

        def gates(name: str, layer: int) -> Tensor:
            found: Any = getattr(rnn, f"{name}_l{layer}", None)
            if found is None:  # layers without biases
                found = torch.zeros(len(getattr(rnn, f"weight_hh_l{layer}")), dtype=self.dtype)
            parameter: Tensor = found.detach().to(self._products)
            if not self.lstm:
                return parameter
            into, keep, new, out = parameter.chunk(4)
            return torch.cat([into, keep, out, 2 * new if self.exact else new])

        self._below = [gates("weight_ih", i).T.contiguous() for i in range(self.layers)]
        self._own = [gates("weight_hh", i).T.contiguous() for i in range(self.layers)]
        self._bias_below = [gates("bias_ih", i) for i in range(self.layers)]
        self._bias_own = [gates("bias_hh", i) for i in range(self.layers)]
        bias = self._bias_below[0] + (self._bias_own[0] if self.lstm else 0)
        self.table = embedding.detach().to(self._products) @ self._below[0] + bias  # (V, gates)
        if self.lstm:
            self._both = [torch.cat(pair) for pair in zip(self._below, self._own, strict=True)]
            self._bias = [a + b for a, b in zip(self._bias_below, self._bias_own, strict=True)]
        self.readout = output.weight.detach().to(self._products).T.contiguous()
        self.readout_bias = torch.zeros(output.out_features, dtype=self._products)
        if output.bias is not None:
            self.readout_bias += output.bias.detach()

    def start(self, rows: int) -> States:
        """Return the zero state: hidden and cell, each (rows, layers x width)."""
        size = rows, self.layers * self.width
        hidden = torch.zeros(size, dtype=self.dtype)
        return hidden, torch.zeros(size if self.lstm else (rows, 0), dtype=self.dtype)

    def read(self, batch: Batch) -> States:
        """Return the states after each prompt."""
        lengths = torch.from_numpy(batch.lengths.astype(np.int64))
        longest, shortest = int(lengths.max()), int(lengths.min())
        if longest == shortest and self.exact:
            # Not in 16 bits, in which the fused pass rounds differently from the steps of a ragged batch:
            # a text would depend on the lengths of its neighbours.
            return self._read_equal(torch.from_numpy(batch.data[:, :longest]))
        order = lengths.argsort(descending=True)
        data = np.where(np.arange(longest) < batch.lengths[:, None], batch.data[:, :longest], 0)
        columns = torch.from_numpy(data)[order].T.contiguous()
        going = (lengths[None, :] > torch.arange(longest)[:, None]).sum(dim=1).tolist()
        hidden, cell = self.start(len(batch))
        for step, rows in enumerate(going):  # the longest prompts come first, so the others drop off the end
            self.step(columns[step, :rows], (hidden[:rows], cell[:rows]))
        back = order.argsort()
        return hidden[back], cell[back]

    def _read_equal(self, data: Tensor) -> States:
        """Do as ``read`` for prompts of one length, in the fused pass of nn.LSTM, nn.GRU or nn.RNN."""
        rows = torch.full((len(data),), data.shape[1])
        inputs = nn.functional.embedding(data, self._embedding)
        _, state = self._rnn(nn.utils.rnn.pack_padded_sequence(inputs, rows, batch_first=True))
        if self.lstm:
            hidden, cell = (torch.cat(list(part), dim=1) for part in state)
            return hidden, cell
        return torch.cat(list(state), dim=1), torch.zeros(len(data), 0)

    def logits(self, states: States, out: Tensor | None = None) -> Tensor:
        """Return the logits float32 (B, V) of the states."""
        top = self.top(states)
        if self.exact:
            return torch.addmm(self.readout_bias, top, self.readout, out=out)
        logits = torch.addmm(self.readout_bias, top.to(self._products), self.readout).to(self.dtype).float()
        return logits if out is None else out.copy_(logits)

    def top(self, states: States) -> Tensor:
        """Return the top hidden state (..., width), from which the logits are made."""
        return states[0][..., -self.width :]

    def carried(self, states: States) -> Tensor:
        """Return all layers' hidden and cell states (B, N)."""
        return torch.cat(states, dim=1)

    def broken(self, states: States) -> str:
        """Return which part of the first row's states is not finite, or ''."""
        for layer in range(self.layers):
            for name, state in zip(("hidden", "cell"), states, strict=True):
                if not state[0, layer * self.width : (layer + 1) * self.width].isfinite().all():
                    return f"layer {layer} {name}"
        return ""

    def step(self, symbols: Tensor, states: States) -> States:
        """Read ``symbols`` (B,); the states change in place, and are returned."""
        hidden, cell = states
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
                continue
            if i > 0:
                lower = hidden[:, (i - 1) * width : i * width]
                below = torch.addmm(self._bias_below[i], lower.to(products), self._below[i])
            above = torch.addmm(self._bias_own[i], own.to(products), self._own[i])
            if self._gru:
                _gru(below.to(self.dtype), above.to(self.dtype), own, width)
            else:
                own.copy_(self._activation(below.to(self.dtype).add_(above.to(self.dtype))))
        return states


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
