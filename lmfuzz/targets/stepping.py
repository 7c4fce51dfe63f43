"""Reading and writing with a model symbol by symbol, for all rows at once."""

from typing import Protocol

from torch import Tensor

from lmfuzz.types import Batch

States = tuple[Tensor, ...]  # each (B, ...), so that rows can be selected, repeated and stacked


class Stepper(Protocol):
    """Advance the states of B rows through a model."""

    def read(self, batch: Batch) -> States:
        """Return the states after each prompt."""

    def step(self, symbols: Tensor, states: States) -> States:
        """Return the states after ``symbols`` (B,) int64, too; those that are given may change in place."""

    def logits(self, states: States, out: Tensor | None = None) -> Tensor:
        """Return the logits float32 (B, V) for the symbol after the states."""

    def top(self, states: States) -> Tensor:
        """Return what the logits are made from, (..., D)."""

    def carried(self, states: States) -> Tensor:
        """Return all numbers that the model remembers of the text, (B, N)."""

    def broken(self, states: States) -> str:
        """Return which part of the first row's states is not finite, or ''."""

    def keep(self, states: States) -> States:
        """Return what must be kept of states to go on from them when the text has gone on."""

    def revive(self, kept: States, end: States, rows: Tensor) -> States:
        """Return the states that ``kept`` (N, ...) is of, as new tensors.

        Args:
            kept: What ``keep`` gave for earlier states of some rows.
            end: The states (B, ...) at the end of the text.
            rows: Which of these each of the N belongs to.
        """


class KeepsAll:
    """Keep states whole, as is right where they are small."""

    def keep(self, states: States) -> States:
        """Return the states."""
        return states

    def revive(self, kept: States, end: States, rows: Tensor) -> States:
        """Return what was kept."""
        return kept
