"""What the layers of a causal language model may see of a text: all before a token, a window, or a chunk."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Positions of queries (B, T, 1) and of keys (B, 1, K) -> which keys a query sees, bool (B, T, K).
Near = Callable[[Tensor, Tensor], Tensor]
Form = dict[str, Near | None] | Near | None  # for each type of layer, or for all; None: everything before


def passed(config: Any, most: int) -> int:
    """Return the longest window or chunk that a text of ``most`` tokens can pass, 0 if there is none."""
    named = [size for key, size in config.to_dict().items() if "window" in key or "chunk" in key]
    sizes = (size for size in [*named, *_sizes(config)] if isinstance(size, int))
    return max((size for size in sizes if 1 < size < most), default=0)


def forms(config: Any, most: int) -> list[Form]:
    """Return the masks that a model may want, the likeliest first; one if no text can pass a window.

    Args:
        config: The model's. Those with ``layer_types`` mostly take a mask for each type of layer.
        most: How long a text may become, in tokens.
    """
    kinds: dict[str, Near] = {}
    window, chunk = _sizes(config)
    if window and window < most:
        kinds["sliding_attention"] = lambda query, key: query - key < window
    if chunk and chunk < most:
        kinds["chunked_attention"] = lambda query, key: query // chunk == key // chunk
    layers = getattr(config, "layer_types", None) or ()
    several: list[Form] = [{layer: kinds.get(layer) for layer in sorted({*layers})}] if layers else []
    return [*(several if kinds else []), *kinds.values(), None]


def turns(config: Any, most: int) -> bool:
    """Return whether rotary frequencies depend on the longest text of a batch, and can change in a text.

    Longrope has other frequencies from a limit on. The dynamic kind does, too, but its limit is the most
    tokens that the model takes.
    """
    found = getattr(config, "rope_parameters", None) or {}
    each = [found, *(part for part in found.values() if isinstance(part, dict))]
    long = (part for part in each if part.get("rope_type") == "longrope")
    return any(part.get("original_max_position_embeddings", 0) < most for part in long)


def _sizes(config: Any) -> tuple[Any, Any]:
    return getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)


def shaped(mask: Tensor, form: Form, queries: Any, keys: Any) -> Any:
    """Return a mask in the form that a model wants: what lies too far away is hidden, too.

    Args:
        mask: float (B, 1, T, K), 0 if seen, else the least number.
        form: What the layers see.
        queries: Position ids int64 (B, T).
        keys: Position ids int64 (B, K or more), of padding whatever they are.
    """
    if form is None:
        return mask
    if isinstance(form, dict):
        return {layer: shaped(mask, near, queries, keys) for layer, near in form.items()}
    far = ~form(queries[:, :, None], keys[:, None, : mask.shape[3]])
    return mask.masked_fill(far[:, None], torch.finfo(mask.dtype).min)
