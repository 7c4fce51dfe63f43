"""A key-value cache that allocates its memory once, and can lose rows while it fills."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Hold a layer's keys and values, (B, heads, size, width) each, of which the first ``length`` are there.

    Measured against torch.cat at every step, as in DynamicLayer: 1.15 to 1.4 times as fast at 4 layers of
    width 128.

    Args:
        size: How many places to allocate.
        prefix: Keys and values (1, heads, N, width) with which every row begins.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, size: int, prefix: "PreallocatedLayer | None" = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self._prefix = size, prefix
        self.length: int = prefix.length if prefix is not None else 0

    def allocate(self, keys: Tensor, values: Tensor) -> None:
        """Allocate memory for as many rows, heads and numbers as ``keys`` and ``values`` have."""
        rows, heads = keys.shape[:2]
        self.dtype, self.device = keys.dtype, keys.device
        self.keys = keys.new_empty((rows, heads, self.size, keys.shape[3]))
        self.values = values.new_empty((rows, heads, self.size, values.shape[3]))
        self.is_initialized = True

    def fill(self, other: "PreallocatedLayer", rows: Tensor | slice) -> None:
        """Copy some ``rows`` of another layer to the places that are there."""
        self.keys[:, :, : self.length] = other.keys[rows, :, : self.length]
        self.values[:, :, : self.length] = other.values[rows, :, : self.length]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the memory when the first keys show how many rows there are."""
        self.allocate(key_states, value_states)
        if self._prefix is not None and self.length:
            self.fill(self._prefix, slice(None))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return all that are there now."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Return how many places are filled."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys there will be with ``query_length`` more, and the place of the first, 0."""
        return self.length + query_length, 0


def preallocated(layers: int, size: int, prefix: Cache | None = None) -> Cache:
    """Return an empty cache of ``size`` places, the first of them those of ``prefix``."""
    first: Sequence[Any] = [None] * layers if prefix is None else prefix.layers
    made: list[Any] = [PreallocatedLayer(size, layer) for layer in first]
    return Cache(layers=made)


def select_rows(cache: Cache, rows: Tensor, more: int | None = None) -> Cache:
    """Return a copy of some ``rows``, int64 (N,), with as many places, or as the filled ones and ``more``."""
    selected: list[Any] = []
    layers: Any = cache.layers
    for layer in layers:
        copy = PreallocatedLayer(layer.size if more is None else layer.length + more)
        copy.length = layer.length
        copy.allocate(layer.keys[:1].expand(len(rows), -1, -1, -1), layer.values[:1])
        copy.fill(layer, rows)
        selected.append(copy)
    return Cache(layers=selected)


class OpenBatch:
    """Hold a batch that is being written.

    Attributes:
        rows: How many rows it had at first.
        cache: The cache.
        mask: float (b, 1, 1, size), None if everything can be seen.
        places: int64 (b, size), the position ids of all places of the cache.
        prefix: How many places of the cache the prefix takes.
        width: How many places the padded prompts after it take.
        texts: int64 (b, T), all tokens so far, if rows are not padded.
    """

    def __init__(
        self, cache: Any, mask: Tensor | None, places: Tensor, prefix: int, width: int, texts: Any = None
    ) -> None:
        self.rows = len(places)
        self.cache, self.mask, self.places = cache, mask, places
        self.prefix, self.width, self.texts = prefix, width, texts

    def keep(self, places: Tensor) -> None:
        """Keep only the rows at ``places``."""
        self.cache = select_rows(self.cache, places)
        self.mask = None if self.mask is None else self.mask[places]
        self.places = self.places[places]
