"""A causal language model as a function of tokens and a cache, whatever the names in its family."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError, UsageError, explaining
from lmfuzz.targets.hf.kv_cache import preallocated

_CACHES = ("cache", "past_key_values", "cache_params")  # of transformers 5.24, before, without attention
# How far padding may move logits, as a share of their spread; a wrong mask moves them by all of it.
_CLOSE, _CLOSE_IN_16_BITS = 0.02, 0.3


class Reader:
    """Read tokens of B rows at once, and tell what may come next.

    What the model can do is tried out at the start, on two rows. If it is not ``padded``, rows must come in
    batches of one length, and the model makes its own cache; if it cannot continue from that either, every
    text is read again at each step.

    Args:
        model: The language model.
        name: What errors call it.
        layer: The block whose states are shown, from 1 on; 0 is what the output head reads.
        like: The reader of a similar model, such as a twin's base, which has tried it out.

    Attributes:
        padded: Whether rows of different lengths can be read together, with a mask and position ids.
        own_cache: Whether the model continues from its own cache.

    Raises:
        TargetError: The model cannot be run.
        UsageError: The model has no such block.
    """

    def __init__(self, model: nn.Module, name: str, layer: int = 0, like: "Reader | None" = None) -> None:
        self.model = model
        taken = inspect.signature(model.forward).parameters
        self._cache = next((name for name in _CACHES if name in taken), "cache")
        self._keeps, self._positions = "logits_to_keep" in taken, "position_ids" in taken
        config: Any = model.config
        self.config: Any = config.get_text_config(decoder=True)
        self.layers = int(self.config.num_hidden_layers)
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        self.size = int(embedding.weight.shape[0])
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        if not self.dtype.is_floating_point:
            self.dtype = torch.get_default_dtype()
        self._watch = self._watched(layer, name)
        self.padded: bool = bool(like and like.padded)
        self.own_cache: bool = bool(like and like.own_cache)
        with explaining(f"{name} cannot be run on tokens"), torch.inference_mode():
            self.width = self.read(self._examples(), None)[1].shape[1]  # of the states
            if like:
                return
            self.padded = self._positions and self._agrees(self._padded)
            self.own_cache = not self.padded and self._agrees(self._stepped)

    @property
    def window(self) -> int | None:
        """The most tokens that prompt and output may have together; None if the model does not say."""
        most = getattr(self.config, "max_position_embeddings", None)
        return int(most) if most else None

    def read(
        self, ids: Tensor, cache: Any, places: Tensor | None = None, mask: Tensor | None = None, keep: int = 1
    ) -> tuple[Tensor, Tensor, Any]:
        """Read tokens, and return what follows.

        Args:
            ids: Tokens int64 (B, T).
            cache: What was read before; None: the model begins a cache.
            places: Position ids int64 (B, T).
            mask: float (B, 1, T, all so far), 0 if seen, else the least number of the model's precision.
            keep: After how many of the last tokens logits are wanted.

        Returns:
            Logits float32 (B, keep, V), the states float32 (B, D) of the last token, and the cache.
        """
        more: dict[str, Any] = {"attention_mask": mask} if mask is not None else {}
        if self._keeps:
            more["logits_to_keep"] = keep
        if places is not None and self._positions:
            more["position_ids"] = places
        states: list[Tensor] = []
        with self._watch(lambda *seen: states.append(_last(seen[-1]))):  # removed again: twins copy the model
            out = self.model(input_ids=ids, use_cache=True, **{self._cache: cache}, **more)
        made = next((out[name] for name in _CACHES if name in out), None)
        return out.logits[:, -keep:, : self.size].float(), states[0].float(), made

    def _watched(self, layer: int, name: str) -> Callable[..., Any]:
        """Return what registers a hook that sees the states of a layer, as its last argument."""
        if layer == 0:
            head: nn.Module | None = self.model.get_output_embeddings()  # type: ignore[operator]
            if head is None:
                raise TargetError(f"{name} has no output head, so it is not a language model")
            return head.register_forward_pre_hook
        lists = (part for part in self.model.modules() if isinstance(part, nn.ModuleList))
        blocks: Any = next((part for part in lists if len(part) == self.layers), ())
        if layer > len(blocks):
            raise UsageError(
                f"{name} has {self.layers} layers; --layer takes 1 to {self.layers}, or 0 for the output head"
            )
        return blocks[layer - 1].register_forward_hook

    # -- tried out at the start --

    def _examples(self) -> Tensor:
        """Return two rows of 6 tokens; when they are read together, two of the first are padding."""
        return (torch.arange(12, device=self.device).view(2, 6) * 7 + 3) % self.size

    @torch.inference_mode()
    def _agrees(self, way: Any) -> bool:
        """Return whether a way of reading gives what the model gives for each row alone and whole."""
        rows = self._examples()
        logits = [self.model(input_ids=row[None]).logits for row in (rows[0, 2:], rows[1])]
        alone = torch.stack([each[0, -1, : self.size].float() for each in logits])
        try:
            off = (way(rows) - alone).abs().amax(dim=1)
        except Exception:  # of whatever kind: this way is not for this model
            return False
        close = _CLOSE if self.dtype in (torch.float32, torch.float64) else _CLOSE_IN_16_BITS
        return bool((off <= close * alone.std(dim=1) + 1e-4).all())

    def _padded(self, rows: Tensor) -> Tensor:
        pads = torch.tensor([2, 0], device=self.device)
        cache = preallocated(self.layers, 6)
        mask = self.mask(pads, 0, 6)
        places = (torch.arange(6, device=self.device) - pads[:, None]).clamp(min=0)
        self.read(rows[:, :5], cache, places[:, :5], self.causal(mask[..., :5], 0))
        logits, _, _ = self.read(rows[:, 5:], cache, places[:, 5:], mask)
        return logits[:, 0]

    def _stepped(self, rows: Tensor) -> Tensor:
        found = []
        for row in (rows[:1, 2:], rows[1:]):
            _, _, cache = self.read(row[:, :-1], None)
            found.append(self.read(row[:, -1:], cache)[0][0, 0])
        return torch.stack(found)

    def mask(self, pads: Tensor, prefix: int, size: int) -> Tensor:
        """Return a mask float (B, 1, 1, size) that hides the ``pads`` (B,) after a prefix of places."""
        places = torch.arange(size, device=self.device)
        hidden = (places >= prefix) & (places < prefix + pads[:, None])
        return self.additive(~hidden)[:, None, None]

    def causal(self, mask: Tensor, prefix: int) -> Tensor:
        """Return a mask (B, 1, T, prefix + T) that hides the future of T queries, too."""
        places = torch.arange(mask.shape[3], device=self.device)
        seen = places <= places[prefix:, None]
        return torch.minimum(mask, self.additive(seen))

    def additive(self, seen: Tensor) -> Tensor:
        """Return 0 for what is seen, else the least finite number, since -inf could become NaN."""
        least = torch.finfo(self.dtype).min
        return torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill_(~seen, least)


def _last(seen: Any) -> Tensor:
    """Return what a block reads or gives at the last place of each row."""
    return (seen[0] if isinstance(seen, tuple) else seen)[:, -1]


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows of tokens int64 (B, T), padded at the left, and how much padding each has, int64 (B,)."""
    longest = max(map(len, rows))
    pads = [longest - len(row) for row in rows]
    data = [[0] * missing + list(row) for missing, row in zip(pads, rows, strict=True)]
    return torch.tensor(data, device=device), torch.tensor(pads, device=device)
