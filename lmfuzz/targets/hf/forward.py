"""A causal language model as a function of tokens and a cache, whatever its family calls things."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from lmfuzz.errors import TargetError, UsageError
from lmfuzz.targets.hf.kv_cache import rooms

# How far padding may move logits, as a share of their spread; a wrong mask moves them by all of it.
_CLOSE, _CLOSE_IN_16_BITS = 0.02, 0.3


class Reader:
    """Reads tokens of B rows at once and says what may come next.

    layer: whose states are shown: that block's, from 1 on; 0 is what the output head reads. ``padded``
    says whether rows of different lengths can be read together, with a mask and position ids: tried out
    when it is made, on two rows. If not, rows must come in batches of one length, and the model makes its
    own cache (``own_cache``), or, where it cannot go on from that either, every text is read anew.

    TargetError where the model has no such block, or cannot be run.
    """

    def __init__(self, model: nn.Module, name: str, layer: int = 0, like: "Reader | None" = None) -> None:
        self.model = model
        taken = inspect.signature(model.forward).parameters
        # What transformers 5.24 renamed, and what models without attention call theirs.
        self._cache = next((n for n in ("cache", "past_key_values", "cache_params") if n in taken), "cache")
        self._keeps, self._positions = "logits_to_keep" in taken, "position_ids" in taken
        config: Any = model.config
        self.config: Any = config.get_text_config(decoder=True)
        self.layers = int(self.config.num_hidden_layers)
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        self.size = int(embedding.weight.shape[0])
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        if not self.dtype.is_floating_point:
            self.dtype = torch.get_default_dtype()
        self._place, self._before = self._placed(layer, name)
        self.padded: bool = like.padded if like else False
        self.own_cache: bool = like.own_cache if like else False
        try:
            with torch.inference_mode():
                self.width = self.read(self._examples(), None)[1].shape[1]  # of the states
            if like:
                return
            self.padded = self._agrees(self._padded)
            self.own_cache = not self.padded and self._agrees(self._stepped)
        except (TargetError, UsageError):
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise TargetError(f"{name} cannot be run on tokens: {type(error).__name__}: {said}") from error

    @property
    def window(self) -> int | None:
        """The most tokens that prompt and output may have together; None where nothing says so."""
        said = getattr(self.config, "max_position_embeddings", None)
        return int(said) if said else None

    def read(
        self, ids: Tensor, cache: Cache | None, positions: Tensor | None = None, mask: Tensor | None = None,
        keep: int = 1,
    ) -> tuple[Tensor, Tensor, Any]:  # fmt: skip
        """Logits float32 (B, keep, V) behind the last of ``ids`` (B, T), the last states (B, D), the cache.

        positions: int64 (B, T). mask: float (B, 1, T, all so far), 0 or the least number that there is.
        cache: what was read before; None: the model begins one.
        """
        more: dict[str, Any] = {"attention_mask": mask} if mask is not None else {}
        if self._keeps:
            more["logits_to_keep"] = keep
        if positions is not None and self._positions:
            more["position_ids"] = positions
        states: list[Tensor] = []
        if self._before:
            hook = self._place.register_forward_pre_hook(lambda _, inputs: states.append(_last(inputs[0])))
        else:
            hook = self._place.register_forward_hook(lambda _, __, output: states.append(_last(output)))
        try:
            out = self.model(input_ids=ids, use_cache=True, **{self._cache: cache}, **more)
        finally:
            hook.remove()  # so that no copy of the model, such as a twin, calls it
        made = next((out[n] for n in ("cache", "past_key_values", "cache_params") if n in out), None)
        return out.logits[:, -keep:, : self.size].float(), states[0].float(), made

    def _placed(self, layer: int, name: str) -> tuple[nn.Module, bool]:
        """The part of the model whose states are shown, and whether what it reads is meant, not gives."""
        if layer == 0:
            head: nn.Module | None = self.model.get_output_embeddings()  # type: ignore[operator]
            if head is None:
                raise TargetError(f"{name} has no output head, so it is no language model")
            return head, True
        blocks = [
            part
            for part in self.model.modules()
            if isinstance(part, nn.ModuleList) and len(part) == self.layers
        ]
        if not blocks or layer > self.layers:
            raise UsageError(
                f"{name} has {self.layers} layers; --layer takes 1 to {self.layers}, or 0: the head's"
            )
        return blocks[0][layer - 1], False

    # -- tried out when it is made --

    def _examples(self) -> Tensor:
        """Two rows of 6 tokens, of which the first has two of padding in front when read together."""
        return (torch.arange(12, device=self.device).view(2, 6) * 7 + 3) % self.size

    @torch.inference_mode()
    def _agrees(self, way: Any) -> bool:
        """Whether a way of reading gives what the model gives for each row alone and whole."""
        rows = self._examples()
        alone = [
            self.model(input_ids=row[None]).logits[0, -1, : self.size].float()
            for row in (rows[0, 2:], rows[1])
        ]
        try:
            found = way(rows)
        except Exception:  # of whatever kind: this way is not for this model
            return False
        close = _CLOSE if self.dtype in (torch.float32, torch.float64) else _CLOSE_IN_16_BITS
        return all(
            bool((one - other).abs().max() <= close * other.std() + 1e-4)
            for one, other in zip(found, alone, strict=True)
        )

    def _padded(self, rows: Tensor) -> Tensor:
        if not self._positions:
            raise ValueError("no position ids")
        pads = torch.tensor([2, 0], device=self.device)
        cache = rooms(self.layers, 6)
        mask = self.mask(pads, 0, 6)
        places = (torch.arange(6, device=self.device) - pads[:, None]).clamp(min=0)
        self.read(rows[:, :5], cache, places[:, :5], self.causal(mask[..., :5], 0))
        logits, _, _ = self.read(rows[:, 5:], cache, places[:, 5:], mask)
        return logits[:, 0]

    def _stepped(self, rows: Tensor) -> list[Tensor]:
        found = []
        for row in (rows[:1, 2:], rows[1:]):
            _, _, cache = self.read(row[:, :-1], None)
            if cache is None:
                raise ValueError("no cache")
            found.append(self.read(row[:, -1:], cache)[0][0, 0])
        return found

    def mask(self, pads: Tensor, prefix: int, size: int) -> Tensor:
        """Which of ``size`` places are seen, float (B, 1, 1, size): not the ``pads`` (B,) behind a prefix."""
        places = torch.arange(size, device=self.device)
        hidden = (places >= prefix) & (places < prefix + pads[:, None])
        return self.additive(~hidden)[:, None, None]

    def causal(self, mask: Tensor, prefix: int) -> Tensor:
        """``mask`` (B, 1, 1, prefix + T) for T queries (B, 1, T, prefix + T) that see nothing behind them."""
        places = torch.arange(mask.shape[3], device=self.device)
        seen = places <= places[prefix:, None]
        return torch.minimum(mask, self.additive(seen))

    def additive(self, seen: Tensor) -> Tensor:
        """0 where something is seen, the least number that there is elsewhere: NaN would spread from -inf."""
        least = torch.finfo(self.dtype).min
        return torch.zeros(seen.shape, dtype=self.dtype, device=self.device).masked_fill_(~seen, least)


def _last(shown: Any) -> Tensor:
    """What a block shows at the last place of each row."""
    state: Tensor = (shown[0] if isinstance(shown, tuple) else shown)[:, -1]
    return state


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of tokens int64 (B, T), those that are shorter behind padding, and how much of it, int64 (B,)."""
    longest = max(map(len, rows))
    data = [[0] * (longest - len(row)) + list(row) for row in rows]
    pads = [longest - len(row) for row in rows]
    return torch.tensor(data, device=device), torch.tensor(pads, device=device)
