"""A causal language model as a function of tokens and a cache, whatever the names in its family."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError, UsageError, explaining
from lmfuzz.targets.hf.kv_cache import preallocated
from lmfuzz.targets.hf.masks import Form, forms, passed, shaped, turns

_CACHES = ("cache", "past_key_values", "cache_params")  # of transformers 5.24, before, without attention
# How far padding may move logits, as a share of their spread; a wrong mask moves them by all of it.
_CLOSE, _CLOSE_IN_16_BITS = 0.002, 0.3
_SHORT = 6  # tokens of a row on which something is tried out, if no window asks for more


class Reader:
    """Read tokens of B rows at once, and tell what may come next.

    What the model can do is tried out at the start, on two rows that pass the windows of its layers, if a
    text can. If it is not ``padded``, rows must come in batches of one length, and the model makes its own
    cache; if it cannot continue from that either, every text is read again at each step.

    Args:
        model: The language model.
        name: What errors call it.
        layer: The block whose states are shown, from 1 on; 0 is what the output head reads.
        like: The reader of a similar model, such as a twin's base, which has tried it out.
        most: How long a text may become, in tokens; None: as long as the model allows.

    Attributes:
        padded: Whether rows of different lengths can be read together, with a mask and position ids.
        own_cache: Whether the model continues from its own cache.
        form: What the layers see, if rows are padded; None: everything before a token.

    Raises:
        TargetError: The model cannot be run.
        UsageError: The model has no such block.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        layer: int = 0,
        like: "Reader | None" = None,
        most: int | None = None,
    ) -> None:
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
        self._close = _CLOSE if self.dtype in (torch.float32, torch.float64) else _CLOSE_IN_16_BITS
        self._watch = self._watched(layer, name)
        self.padded: bool = bool(like and like.padded)
        self.own_cache: bool = bool(like and like.own_cache)
        self.form: Form = like.form if like else None
        with explaining(f"{name} cannot be run on tokens"), torch.inference_mode():
            _, self.width = self.read(self._examples(_SHORT), None)[1].shape  # of the states
            if like:
                return
            if self._looks_ahead():
                raise TargetError(f"{name} sees tokens that come later, so it is not a causal language model")
            self._try(min(most or 2**31, self.window or 2**31))

    @property
    def window(self) -> int | None:
        """The most tokens that prompt and output may have together; None if the model does not say."""
        most = getattr(self.config, "max_position_embeddings", None)
        return int(most) if most and most > 0 else None

    def read(
        self,
        ids: Tensor,
        cache: Any,
        places: Tensor | None = None,
        mask: Tensor | None = None,
        keys: Tensor | None = None,
        keep: int = 1,
    ) -> tuple[Tensor, Tensor, Any]:
        """Read tokens, and return what follows.

        Args:
            ids: Tokens int64 (B, T).
            cache: What was read before; None: the model begins a cache.
            places: Position ids int64 (B, T); None: from 0 on.
            mask: float (B, 1, T, all so far), 0 if seen, else the least number of the model's precision.
            keys: Position ids int64 (B, all so far or more), if there is a mask.
            keep: After how many of the last tokens logits are wanted.

        Returns:
            Logits float32 (B, keep, V), the states float32 (B, D) of the last token, and the cache.
        """
        more: dict[str, Any] = {}
        if mask is not None:
            more["attention_mask"] = shaped(mask, self.form, places, keys)
        if self._keeps:
            more["logits_to_keep"] = keep
        if self._positions:
            more["position_ids"] = self._counted(ids.shape[1]) if places is None else places
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

    def follow(self, texts: Tensor, cache: Any) -> tuple[Tensor, Tensor, Any]:
        """Read the last tokens of texts that are all of one length, as the model's ``generate`` does.

        Args:
            texts: All tokens so far, int64 (B, T).
            cache: What ``read`` or this returned for all but the last. The model may begin another.
        """
        if not self.own_cache:
            return self.read(texts, None)
        given = {self._cache: cache, "next_sequence_length": 1}
        made: Any = self.model.prepare_inputs_for_generation(texts, **given)  # type: ignore[operator]
        ids = made["input_ids"]
        return self.read(ids, made.get(self._cache), self._counted(texts.shape[1])[:, -ids.shape[1] :])

    def _counted(self, size: int) -> Tensor:
        return torch.arange(size, device=self.device)[None]

    # -- tried out at the start --

    def _try(self, most: int) -> None:
        """Find out how the model can be run on texts of up to ``most`` tokens."""
        window = passed(self.config, most)
        long = min(most, window + window // 2 + 8) if window else _SHORT
        self.own_cache = True
        mixes = self._positions and not turns(self.config, most)
        if mixes and (not window or self._agrees(self._stepped, long)):  # the window may be the cache's own
            for form in forms(self.config, most):
                self.form = form
                if self._agrees(self._padded, long):
                    self.padded, self.own_cache = True, False
                    return
        self.form, self.own_cache = None, self._agrees(self._stepped, _SHORT)

    def _examples(self, length: int) -> Tensor:
        """Return two rows of tokens, int64 (2, length)."""
        return (torch.arange(2 * length, device=self.device).view(2, length) * 7 + 3) % self.size

    @torch.inference_mode()
    def _agrees(self, way: Callable[[Tensor, Tensor], Tensor], length: int) -> bool:
        """Return whether a way of reading gives what the model gives for each row alone and whole."""
        long, missing, cut = self._examples(length), max(2, length // 6), _cut(length)
        short = torch.cat([long[0, :cut], long[0, cut + missing :]])
        logits = [self.read(row[None], None)[0][0, 0] for row in (short, long[1])]
        alone = torch.stack(logits)
        try:
            off = (way(short, long[1]) - alone).abs().amax(dim=1)
        except Exception:  # of whatever kind: this way is not for this model
            return False
        return bool((off <= self._close * alone.std(dim=1) + 1e-4).all())

    def _looks_ahead(self) -> bool:
        """Return whether what comes after a token changes what the model says there."""
        rows = self._examples(_SHORT)
        cut, whole = self.read(rows[:, :-1], None)[0][:, 0], self.read(rows, None, keep=2)[0][:, 0]
        off = (whole - cut).abs().amax(dim=1)
        return bool((off > self._close * cut.std(dim=1) + 1e-4).all())  # not if NaN

    def _padded(self, short: Tensor, long: Tensor) -> Tensor:
        """Read two rows together, in parts; the padding of the short one stands after the first."""
        size, cut = len(long), _cut(len(long))
        pads = torch.tensor([size - len(short), 0], device=self.device)
        rows = torch.stack([torch.cat([short[:cut], long[: size - len(short)], short[cut:]]), long])
        mask, places = self.mask(pads, cut, size), self.places(pads, cut, size)
        cache = preallocated(self.layers, size)
        for start, end in ((0, cut), (cut, size - 1), (size - 1, size)):
            seen = self.causal(mask[..., :end], start)
            logits, _, _ = self.read(rows[:, start:end], cache, places[:, start:end], seen, places)
        return logits[:, 0]

    def _stepped(self, *rows: Tensor) -> Tensor:
        found = []
        for row in rows:
            _, _, cache = self.read(row[None, :-1], None)
            found.append(self.follow(row[None], cache)[0][0, 0])
        return torch.stack(found)

    # -- positions and masks --

    def places(self, pads: Tensor, prefix: int, size: int) -> Tensor:
        """Return position ids (B, size) of rows with ``pads`` (B,) after a prefix."""
        places = torch.arange(size, device=self.device)
        return torch.where(places < prefix, places, (places - pads[:, None]).clamp(min=prefix))

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


def _cut(length: int) -> int:
    """Return after how many tokens padding stands: what a window or chunk shows depends on it."""
    return 2 * length // 5


def _last(seen: Any) -> Tensor:
    """Return what a block reads or gives at the last place of each row."""
    return (seen[0] if isinstance(seen, tuple) else seen)[:, -1]


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows of tokens int64 (B, T), padded at the left, and how much padding each has, int64 (B,)."""
    longest = max(map(len, rows))
    pads = [longest - len(row) for row in rows]
    data = [[0] * missing + list(row) for missing, row in zip(pads, rows, strict=True)]
    return torch.tensor(data, device=device), torch.tensor(pads, device=device)
