"""Decoding with a causal language model: batches by a budget of tokens, one cache, rows that end leave it."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from lmfuzz.errors import Unfit
from lmfuzz.targets.hf.forward import Reader, padded
from lmfuzz.targets.hf.kv_cache import chosen, rooms

MOST_TOKENS = {"cpu": 16_384, "cuda": 262_144}  # in a batch, where memory sets no limit
LEAST_TOKENS = 256
SHARE = 0.4  # of the free memory that a cache may take
FULL = 0.75  # a batch is made smaller when no more of its rows than this are still being written
EVERY = {"cpu": 1, "cuda": 8}  # steps between two looks at who has ended: each look waits for the device

Choose = Callable[[int, Tensor, Tensor], Tensor]  # step, logits (b, V), ids of rows (b,) -> tokens (b,)


class Notes(Protocol):
    """Who takes note of what is written; ``rows`` (b,) are ids of the rows that are being written."""

    def begin(self, rows: Tensor, states: Tensor) -> None:
        """States float32 (b, D) after the prompts."""

    def step(self, step: int, rows: Tensor, logits: Tensor, states: Tensor, tokens: Tensor) -> None:
        """What was written at a step, int64 (b,), its logits (b, V) and the states (b, D) before it."""

    def leave(self, rows: Tensor, places: Tensor, begun: "Begun") -> None:
        """The rows at ``places`` (b,) of a batch are done, and leave its cache."""

    def stopped(self, rows: Tensor, step: int) -> Tensor:
        """Which rows (b,) bool are at their end by what their text says, such as a stop string."""


class Begun:
    """A batch that is being written: the cache, what of it can be seen, and where each row stands."""

    def __init__(self, cache: Any, mask: Tensor | None, positions: Tensor, prefix: int, width: int) -> None:
        self.rows = len(positions)  # at first
        self.cache: Any = cache  # tokens so far, int64 (b, T), where the model has none
        self.mask = mask  # float (b, 1, 1, size), None where everything can be seen
        self.positions = positions  # int64 (b, 1), of the token read last
        self.prefix, self.width = prefix, width  # places of the prefix, and of the padded prompts behind it

    def keep(self, places: Tensor) -> None:
        """Only the rows at ``places`` from now on."""
        self.cache = chosen(self.cache, places)
        self.mask = None if self.mask is None else self.mask[places]
        self.positions = self.positions[places]


class Writer:
    """Writes behind prompts with a Reader.

    prefix: tokens with which most prompts begin; what the model makes of them is computed once. ends: tokens
    that end a text. batch_tokens: the most tokens, padding and output included, that a batch may have; None
    is found out from the free memory. When memory runs out nevertheless, it is halved.
    """

    def __init__(
        self,
        reader: Reader,
        prefix: Sequence[int] = (),
        ends: Sequence[int] = (),
        batch_tokens: int | None = None,
    ) -> None:
        self.reader = reader
        self.prefix = list(prefix) if reader.padded else []
        self.ends = torch.tensor(list(ends), dtype=torch.int64, device=reader.device)
        self.batch_tokens = batch_tokens or self._affordable()
        self._kept: Cache | None = None

    def write(self, prompts: Sequence[list[int]], steps: int, choose: Choose, notes: Notes) -> None:
        """Up to ``steps`` tokens behind every prompt, chosen by ``choose``; ``notes`` is told of all.

        Unfit where there is no memory for even one of the rows.
        """
        waiting = self._sorted(prompts)
        while waiting:
            rows = self._batch(waiting, prompts, steps)
            try:
                self._write(rows, [prompts[row] for row in rows], steps, choose, notes)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise Unfit(f"there is no memory for {len(prompts[rows[0]])} + {steps} tokens") from error
                tried = len(rows) * (len(prompts[rows[0]]) + steps)
                self.batch_tokens = max(LEAST_TOKENS // 8, min(self.batch_tokens, tried) // 2)
                if self.reader.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            waiting = waiting[len(rows) :]

    # -- batches --

    def _sorted(self, prompts: Sequence[list[int]]) -> list[int]:
        """The rows, those that begin with the prefix first, the longest first among these."""
        return sorted(
            range(len(prompts)), key=lambda row: (not self._begins(prompts[row]), -len(prompts[row]))
        )

    def _begins(self, prompt: list[int]) -> bool:
        return len(prompt) > len(self.prefix) and prompt[: len(self.prefix)] == self.prefix

    def _batch(self, waiting: list[int], prompts: Sequence[list[int]], steps: int) -> list[int]:
        """As many of the rows that wait as fit into one batch; the first is the longest."""
        first = prompts[waiting[0]]
        most = max(1, self.batch_tokens // (len(first) + steps))
        like = self._begins(first)
        rows = [row for row in waiting[:most] if self._begins(prompts[row]) is like]
        return rows if self.reader.padded else [row for row in rows if len(prompts[row]) == len(first)]

    def _affordable(self) -> int:
        """Tokens whose keys and values take a part of the memory that is free."""
        config, device = self.reader.config, self.reader.device
        heads = getattr(config, "num_attention_heads", None) or 1
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
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
        self, ids: list[int], prompts: list[list[int]], steps: int, choose: Choose, notes: Notes
    ) -> None:
        device = self.reader.device
        rows = torch.tensor(ids, device=device)
        logits, states, begun = self._begin(prompts, steps)
        notes.begin(rows, states)
        done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        every = EVERY.get(device.type, 1)
        for step in range(steps):
            tokens = choose(step, logits, rows)
            notes.step(step, rows, logits, states, tokens.masked_fill(done, -1))
            done |= torch.isin(tokens, self.ends)
            if step == steps - 1:
                break
            if (step + 1) % every == 0:
                done |= notes.stopped(rows, step)
                going = (~done).nonzero()[:, 0]
                if not len(going):
                    break
                if len(going) <= FULL * len(rows) and self.reader.padded:
                    gone = done.nonzero()[:, 0]
                    notes.leave(rows[gone], gone, begun)
                    begun.keep(going)
                    rows, tokens, done = rows[going], tokens[going], done[going]
            logits, states = self._next(tokens, begun)
        notes.leave(rows, torch.arange(len(rows), device=device), begun)

    def _begin(self, prompts: list[list[int]], steps: int) -> tuple[Tensor, Tensor, Begun]:
        """Read the prompts: logits (b, V) and states (b, D) after them, and all that writing needs."""
        reader = self.reader
        prefix = len(self.prefix) if self._begins(prompts[0]) else 0
        ids, pads = padded([prompt[prefix:] for prompt in prompts], reader.device)
        width = ids.shape[1]
        positions = prefix + (torch.arange(width, device=reader.device) - pads[:, None]).clamp(min=0)
        if not reader.padded:
            logits, states, cache = reader.read(ids, None)
            begun = Begun(cache if reader.own_cache else ids, None, positions[:, -1:], 0, width)
            return logits[:, -1], states, begun
        cache = rooms(reader.layers, prefix + width + steps, self._read_prefix() if prefix else None)
        mask = reader.mask(pads, prefix, prefix + width + steps) if bool((pads > 0).any()) else None
        seen = None if mask is None else reader.causal(mask[..., : prefix + width], prefix)
        logits, states, _ = reader.read(ids, cache, positions, seen)
        return logits[:, -1], states, Begun(cache, mask, positions[:, -1:], prefix, width)

    def _next(self, tokens: Tensor, begun: Begun) -> tuple[Tensor, Tensor]:
        """Read what was written last."""
        reader = self.reader
        begun.positions = begun.positions + 1
        if reader.padded:
            size = begun.cache.get_seq_length() + 1
            mask = None if begun.mask is None else begun.mask[..., :size]
            logits, states, _ = reader.read(tokens[:, None], begun.cache, begun.positions, mask)
        elif reader.own_cache:
            logits, states, begun.cache = reader.read(tokens[:, None], begun.cache)
        else:
            begun.cache = torch.cat([begun.cache, tokens[:, None]], dim=1)
            logits, states, _ = reader.read(begun.cache, None)
        return logits[:, -1], states

    def _read_prefix(self) -> Cache:
        if self._kept is None:
            kept = rooms(self.reader.layers, len(self.prefix))
            self.reader.read(torch.tensor([self.prefix], device=self.reader.device), kept)
            self._kept = kept
        return self._kept


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the device's or the host's."""
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
