"""What advances a module of the user's own: by its state, or by reading the text again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmfuzz.targets.hooks import watching
from lmfuzz.targets.modules.calling import State
from lmfuzz.targets.modules.examine import Conduct
from lmfuzz.targets.stepping import KeepsAll, States
from lmfuzz.types import Batch, IntArray

CHUNK = 8  # symbols of a prompt that are read at once
ROOM = 64  # symbols that a text can grow by before it is copied


class ModuleStepper(KeepsAll):
    """Hold what all have in common: states that begin with logits, and what these are made from."""

    _memory = "state"

    def logits(self, states: States, out: Tensor | None = None) -> Tensor:
        """Return the logits float32 (B, V) for the symbol after the states."""
        return states[0] if out is None else out.copy_(states[0])

    def top(self, states: States) -> Tensor:
        """Return the input of the last linear layer (..., D), or the logits if there is no such layer."""
        return states[1]

    def carried(self, states: States) -> Tensor:
        """Return all numbers that the model remembers of the text, (B, N)."""
        return states[1]

    def broken(self, states: States) -> str:
        """Return which part of the first row's states is not finite, or ''."""
        return "" if self.carried(states)[0].isfinite().all() else self._memory


class CallingStepper(ModuleStepper):
    """Hold how a module is called, and see what goes into its last linear layer."""

    def __init__(self, module: nn.Module, conduct: Conduct) -> None:
        self._caller = conduct.caller
        self._layer = {conduct.layer: module.get_submodule(conduct.layer)} if conduct.layer else {}

    @contextmanager
    def _watching(self) -> Iterator[list[Tensor]]:
        """Collect what goes into the last linear layer within the block."""
        inputs: list[Tensor] = []
        with watching(self._layer, lambda _, given, __: inputs.append(given[0].detach())):
            yield inputs


class StateStepper(CallingStepper):
    """Advance a module that goes on from a state; its tensors follow, the axis of the rows first."""

    def __init__(self, module: nn.Module, conduct: Conduct) -> None:
        super().__init__(module, conduct)
        self._axes, self._at_once = conduct.axes, 1 if conduct.caller.single else CHUNK
        self._form: Any = None

    def read(self, batch: Batch) -> States:
        """Return the states after each prompt: its first symbol is read, then eight at once, then one by one.

        So what is computed for a row does not depend on the lengths of the others.
        """
        text = torch.from_numpy(batch.data.astype(np.int64))
        many, rest = np.divmod(batch.lengths - 1, self._at_once)
        states = self._call(text[:, :1], None)
        states = self._read_on(
            states, many, lambda rows, n: text[rows, 1 + n * self._at_once :][:, : self._at_once]
        )
        return self._read_on(
            states, rest, lambda rows, n: text[rows, (batch.lengths - rest)[rows] + n][:, None]
        )

    def _read_on(self, states: States, times: IntArray, part: Callable[[IntArray, int], Tensor]) -> States:
        """Read ``part`` of some rows, as often as ``times`` (B,) says."""
        order = np.argsort(-times, kind="stable")
        states, done = tuple(state[order] for state in states), list[States]()
        for n in range(int(times.max())):
            rows = int((times > n).sum())  # the others drop off the end
            if rows < len(states[0]):
                done.append(tuple(state[rows:] for state in states))
            states = self._go_on(part(order[:rows], n), tuple(state[:rows] for state in states))
        back = torch.from_numpy(np.argsort(order))
        return tuple(torch.cat(parts)[back] for parts in zip(states, *done[::-1], strict=True))

    def step(self, symbols: Tensor, states: States) -> States:
        """Return the states after ``symbols`` (B,), too."""
        return self._go_on(symbols[:, None], states)

    def _go_on(self, text: Tensor, states: States) -> States:
        leaves = [leaf.movedim(0, axis) for leaf, axis in zip(states[2:], self._axes, strict=True)]
        return self._call(text, pytree.tree_unflatten([*leaves], self._form))

    def carried(self, states: States) -> Tensor:
        """Return all numbers of the state, (B, N)."""
        return torch.cat([leaf.flatten(1).float() for leaf in states[2:]], dim=1)

    def _call(self, text: Tensor, state: State | None) -> States:
        with self._watching() as inputs:
            logits, after = self._caller(text, state)
        leaves, self._form = pytree.tree_flatten(after)
        last = logits[:, -1]
        top = at_place(inputs[-1], text.shape, -1) if inputs else None
        rows_first = (leaf.movedim(axis, 0) for leaf, axis in zip(leaves, self._axes, strict=True))
        return last, last if top is None else top, *rows_first


class TextStepper(CallingStepper):
    """Advance a module by reading every text again; its states hold the text (B, L) and the lengths (B,).

    The texts of a causal module are read together, padded on the right; others in groups of one length.
    """

    def __init__(self, module: nn.Module, conduct: Conduct) -> None:
        super().__init__(module, conduct)
        self._causal = conduct.reads == "causal"
        self._memory = f"input of {conduct.layer}" if conduct.layer else "logits"

    def read(self, batch: Batch) -> States:
        """Return the states after each prompt."""
        lengths = torch.from_numpy(batch.lengths.astype(np.int64))
        longest = int(lengths.max())
        text = torch.zeros((len(batch), longest + ROOM), dtype=torch.int64)
        text[:, :longest] = torch.from_numpy(batch.data[:, :longest].astype(np.int64))
        text[torch.arange(text.shape[1]) >= lengths[:, None]] = 0
        return self._run(text, lengths)

    def step(self, symbols: Tensor, states: States) -> States:
        """Return the states after ``symbols`` (B,), too."""
        _, _, text, lengths = states
        if int(lengths.max()) == text.shape[1]:
            text = torch.cat([text, text.new_zeros((len(text), ROOM))], dim=1)
        return self._run(text.scatter(1, lengths[:, None], symbols[:, None]), lengths + 1)

    def _run(self, text: Tensor, lengths: Tensor) -> States:
        if self._causal:
            logits, top = self._read(text[:, : int(lengths.max())], lengths)
            return logits, top, text, lengths
        groups = [torch.nonzero(lengths == length)[:, 0] for length in set(lengths.tolist())]
        parts = [self._read(text[rows, : int(lengths[rows[0]])], lengths[rows]) for rows in groups]
        back = torch.cat(groups).argsort()
        logits, top = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return logits, top, text, lengths

    def _read(self, text: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and what they are made from, at the end of each text."""
        with self._watching() as inputs:
            logits = self._caller.whole(text)
        last = at_place(logits, text.shape, lengths - 1)
        return last, at_place(inputs[-1], text.shape, lengths - 1) if inputs else last


def at_place(values: Tensor, shape: torch.Size, at: Tensor | int) -> Tensor:
    """Return float32 values (B, D) at a place of each text, of values (B, T, D) or (B x T, D).

    Of values for fewer places than T, such as (B, D), the last are returned.
    """
    whole = values.reshape(shape[0], -1, values.shape[-1]).float()
    if isinstance(at, int) or whole.shape[1] != shape[1]:
        return whole[:, -1]
    return whole[torch.arange(shape[0]), at]
