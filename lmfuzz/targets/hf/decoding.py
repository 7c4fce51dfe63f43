"""Decoding with a causal language model: batches by a budget of tokens, and one cache."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from lmfuzz.errors import Unfit
from lmfuzz.targets.hf.forward import Reader, pad
from lmfuzz.targets.hf.kv_cache import OpenBatch, preallocated
from lmfuzz.targets.hf.recorder import Record
from lmfuzz.types import PAD

MOST_TOKENS = {"cpu": 16_384, "cuda": 262_144}  # in a batch, if memory sets no limit
LEAST_TOKENS = 256
SHARE = 0.4  # of the free memory that a cache may take
FULL = 0.75  # a batch is made smaller when no more of its rows than this are still being written
EVERY = {"cpu": 1, "cuda": 8}  # steps between two checks of who has ended: each waits for the device
STOPS_EVERY = 8  # steps between two checks for stop strings, for which texts have to be decoded

Choose = Callable[[int, Tensor, Tensor], Tensor]  # step, logits (b, V), ids of rows (b,) -> tokens (b,)
Stopped = Callable[[Tensor, Tensor], Tensor]  # ids of rows (b,), their tokens (T, b) -> bool (b,)


class Writer:
    """Write after prompts with a Reader.

    Args:
        reader: What reads the tokens.
        prefix: Tokens with which most prompts begin; the model reads them once.
        ends: Tokens that end a text.
        batch_tokens: The most tokens, padding and output included, in a batch; None: as many as the free
            memory allows. If memory runs out nevertheless, it is halved.
    """

    def __init__(
        self, reader: Reader, prefix: Sequence[int], ends: Sequence[int], batch_tokens: int | None
    ) -> None:
        self.reader = reader
        self.prefix = list(prefix) if reader.padded else []
        self.ends = torch.tensor(list(ends), dtype=torch.int64, device=reader.device)
        self.batch_tokens = batch_tokens or self._affordable()

    def write(
        self, prompts: Sequence[list[int]], choose: Choose, record: Record, stopped: Stopped | None
    ) -> None:
        """Write after every prompt as many tokens as ``record`` has steps.

        Args:
            prompts: The tokens of each prompt.
            choose: What chooses the tokens of a step.
            record: What takes note of everything that is written.
            stopped: What tells which rows have written a stop string; None if there are no stop strings.

        Raises:
            Unfit: There is no memory for even one of the prompts.
        """
        steps = len(record.tokens)
        # Those that begin with the prefix first, the longest first among these.
        waiting = sorted(
            range(len(prompts)), key=lambda row: (not self._begins(prompts[row]), -len(prompts[row]))
        )
        while waiting:
            rows = self._batch(waiting, prompts, steps)
            try:
                self._write({row: prompts[row] for row in rows}, choose, record, stopped)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error, self.reader.device):
                    raise
                longest = len(prompts[rows[0]])
                if len(rows) == 1:
                    raise Unfit(f"there is no memory for {longest} + {steps} tokens") from error
                tried = len(rows) * (longest + steps)
                self.batch_tokens = max(LEAST_TOKENS // 8, min(self.batch_tokens, tried) // 2)
            else:
                waiting = waiting[len(rows) :]

    # -- batches --

    def _begins(self, prompt: list[int]) -> bool:
        return len(prompt) > len(self.prefix) and prompt[: len(self.prefix)] == self.prefix

    def _batch(self, waiting: list[int], prompts: Sequence[list[int]], steps: int) -> list[int]:
        """Return as many of the waiting rows as fit into one batch; the first is the longest."""
        first = prompts[waiting[0]]
        most = max(1, self.batch_tokens // (len(first) + steps))
        like = self._begins(first)
        rows = [row for row in waiting[:most] if self._begins(prompts[row]) is like]
        return rows if self.reader.padded else [row for row in rows if len(prompts[row]) == len(first)]

    def _affordable(self) -> int:
        """Return the number of tokens whose keys and values take a share of the free memory."""
        config, device = self.reader.config, self.reader.device
        heads = getattr(config, "num_attention_heads", None) or 1
        width = config.to_dict().get("head_dim") or config.hidden_size // heads
        kept = getattr(config, "num_key_value_heads", None) or heads
        size = 2 * self.reader.layers * kept * width * torch.finfo(self.reader.dtype).bits // 8
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = MOST_TOKENS.get(device.type, MOST_TOKENS["cpu"])
        return int(min(most, max(LEAST_TOKENS, SHARE * free // size)))

    # -- one batch --

    def _write(
        self, prompts: dict[int, list[int]], choose: Choose, record: Record, stopped: Stopped | None
    ) -> None:
        device, steps = self.reader.device, len(record.tokens)
        rows = torch.tensor(list(prompts), device=device)
        logits, states, batch = self._begin(list(prompts.values()), steps)
        record.begin(rows, states)
        done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        every = EVERY.get(device.type, 1)
        for step in range(steps):
            tokens = choose(step, logits, rows)
            record.step(step, rows, logits, states, tokens.masked_fill(done, PAD))
            done |= torch.isin(tokens, self.ends)
            if step == steps - 1:
                break
            if (step + 1) % every == 0:
                if stopped is not None and (step + 1) % STOPS_EVERY == 0:
                    done |= stopped(rows, record.tokens[: step + 1, rows])
                going = (~done).nonzero()[:, 0]
                if not len(going):
                    break
                if len(going) <= FULL * len(rows) and self.reader.padded:
                    gone = done.nonzero()[:, 0]
                    record.leave(rows[gone], gone, batch)
                    batch.keep(going)
                    rows, tokens, done = rows[going], tokens[going], done[going]
            logits, states = self._next(tokens, batch)
        record.leave(rows, torch.arange(len(rows), device=device), batch)

    def _begin(self, prompts: list[list[int]], steps: int) -> tuple[Tensor, Tensor, OpenBatch]:
        """Read prompts; return logits (b, V) and states (b, D) after them, and the batch to continue."""
        reader = self.reader
        prefix = len(self.prefix) if self._begins(prompts[0]) else 0
        ids, pads = pad([prompt[prefix:] for prompt in prompts], reader.device)
        width = ids.shape[1]
        size = prefix + width + steps
        places = reader.places(pads, prefix, size)
        if not reader.padded:
            logits, states, cache = reader.read(ids, None)
            return logits[:, -1], states, OpenBatch(cache, None, places, 0, width, ids)
        cache = preallocated(reader.layers, size, self._prefix_cache if prefix else None)
        hidden = reader.form is not None or bool((pads > 0).any())
        mask = reader.mask(pads, prefix, size) if hidden else None
        seen = None if mask is None else reader.causal(mask[..., : prefix + width], prefix)
        logits, states, _ = reader.read(ids, cache, places[:, prefix : prefix + width], seen, places)
        return logits[:, -1], states, OpenBatch(cache, mask, places, prefix, width)

    def _next(self, tokens: Tensor, batch: OpenBatch) -> tuple[Tensor, Tensor]:
        """Read the tokens written last; return logits (b, V) and states (b, D) after them."""
        reader = self.reader
        if reader.padded:
            size = batch.cache.get_seq_length() + 1
            mask = None if batch.mask is None else batch.mask[..., :size]
            place = batch.places[:, size - 1 : size]
            logits, states, _ = reader.read(tokens[:, None], batch.cache, place, mask, batch.places)
        else:
            batch.texts = torch.cat([batch.texts, tokens[:, None]], dim=1)
            logits, states, batch.cache = reader.follow(batch.texts, batch.cache)
        return logits[:, -1], states

    @cached_property
    def _prefix_cache(self) -> Cache:
        reader, size = self.reader, len(self.prefix)
        ids, pads = pad([self.prefix], reader.device)
        cache, places = preallocated(reader.layers, size), reader.places(pads, 0, size)
        seen = None if reader.form is None else reader.causal(reader.mask(pads, 0, size), 0)
        reader.read(ids, cache, places, seen, places)
        return cache


def out_of_memory(error: BaseException, device: torch.device) -> bool:
    """Return whether memory ran out, the device's or the host's, and free what torch keeps of a GPU's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
