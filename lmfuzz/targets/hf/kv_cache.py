"""A key-value cache whose memory is laid out once, and can lose rows while it fills."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, (B, heads, size, width) each, of which the first ``length`` are there.

    prefix: keys and values (1, heads, N, width) with which every row begins; None is none. Measured against
    torch.cat at every step, which DynamicLayer does: 1.15 to 1.4 times as fast at 4 layers of width 128.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, size: int, prefix: "PreallocatedLayer | None" = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self._prefix = size, prefix
        self.length: int = prefix.length if prefix is not None else 0

    def lay_out(self, keys: Tensor, values: Tensor) -> None:
        """Take memory for as many rows, heads and numbers as ``keys`` and ``values`` have."""
        rows, heads = keys.shape[:2]
        self.dtype, self.device = keys.dtype, keys.device
        self.keys = keys.new_empty((rows, heads, self.size, keys.shape[3]))
        self.values = values.new_empty((rows, heads, self.size, values.shape[3]))
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory, when the first rows show how many there are."""
        self.lay_out(key_states, value_states)
        if self._prefix is not None and self.length:
            self.keys[:, :, : self.length] = self._prefix.keys[:, :, : self.length]
            self.values[:, :, : self.length] = self._prefix.values[:, :, : self.length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        """Put in what comes next; all keys and values that are there now."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """How many places are filled."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys there will be with ``query_length`` more, and that the first is at place 0."""
        return self.length + query_length, 0


def rooms(layers: int, size: int, prefix: Cache | None = None) -> Cache:
    """An empty cache of ``size`` places, the first of them those of ``prefix``."""
    begun: Sequence[Any] = [None] * layers if prefix is None else prefix.layers
    made: list[Any] = [PreallocatedLayer(size, first) for first in begun]
    return Cache(layers=made)


def chosen(cache: Cache, rows: Tensor, more: int | None = None) -> Cache:
    """A copy of some ``rows``, ids int64 (N,), with room for ``more`` tokens; None: for as many as before."""
    picked: list[Any] = []
    layers: Any = cache.layers
    for layer in layers:
        room = PreallocatedLayer(layer.size if more is None else layer.length + more)
        room.length = layer.length
        room.lay_out(layer.keys[:1].expand(len(rows), -1, -1, -1), layer.values[:1])
        room.keys[:, :, : layer.length] = layer.keys[rows, :, : layer.length]
        room.values[:, :, : layer.length] = layer.values[rows, :, : layer.length]
        picked.append(room)
    return Cache(layers=picked)
