"""What the layers of a causal language model may see of a text: all before a token, a window, or a chunk."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Near = Callable[[Tensor, Tensor], Tensor]  # positions of queries (B, T, 1) and keys (B, 1, K) -> bool (B, T, K)
Form = dict[str, Near | None] | Near | None  # for each type of layer, or for all; None: everything before


def limits(config: Any, most: int) -> list[int]:
    """Return the lengths of windows and chunks that a text of ``most`` tokens can pass."""
    named = (config.get(key) for key in config if "window" in key or "chunk" in key)
    return sorted({size for size in named if isinstance(size, int) and 1 < size < most})


def forms(config: Any, most: int) -> list[Form]:
    """Return the masks that a model may want, the likeliest first; one if no text can pass a window.

    Args:
        config: The model's. Those with ``layer_types`` mostly take a mask for each type of layer.
        most: How long a text may become, in tokens.
    """
    kinds: dict[str, Near] = {}
    window, chunk = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
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


def shaped(mask: Tensor, form: Form, queries: Tensor, keys: Tensor) -> Any:
    """Return a mask in the form that a model wants: what lies too far away is hidden, too.

    Args:
        mask: float (B, 1, T, K), 0 if seen, else the least number.
        form: What the layers see.
        queries: Position ids int64 (B, T).
        keys: Position ids int64 (B, K), those of padding of whatever size.
    """
    if form is None:
        return mask
    if isinstance(form, dict):
        return {layer: shaped(mask, near, queries, keys) for layer, near in form.items()}
    far = ~form(queries[:, :, None], keys[:, None])
    return mask.masked_fill(far[:, None], torch.finfo(mask.dtype).min)
