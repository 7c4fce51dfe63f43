"""How a torch module of the user's own is called: on symbols, with or without a state."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmfuzz.errors import TargetError, one_line

State = tuple[Any, ...]  # what follows the symbols in a call
_MAKERS = ("init_hidden", "initHidden", "init_state", "initial_state", "begin_state", "zero_state")


class Misshapen(ValueError):  # noqa: N818  # what a module gives, not what went wrong in it
    """What a module gives has no logit for each symbol."""


class Caller:
    """Call a module that reads symbols int64 (B, T), or one symbol (B,) at a time, and gives logits.

    It gives logits (B, T, V), (B x T, V), or (B, V) of the last place only: alone, as the first of several
    results, or as ``logits`` of a mapping or object. The results after the logits are its state.
    Probabilities become their logarithms.

    Attributes:
        single: Whether it reads one symbol at a time.
        begin: The method that makes the first state, "None" if that is None, '' if none is given.
    """

    def __init__(self, module: nn.Module, size: int, single: bool, begin: str) -> None:
        self.single, self.begin = single, begin
        self._module, self._size, self._probabilities = module, size, False

    def __call__(self, symbols: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the logits float32 (B, T, V), or (B, 1, V), and the state after ``symbols`` (B, T)."""
        rows, steps = symbols.shape
        more = self._first(rows) if state is None else state
        given = symbols[:, 0] if self.single else symbols
        out = self._module(given.contiguous(), *more)  # for those that call view
        after = tuple(out[1:]) if isinstance(out, tuple | list) else ()
        return self._logits(out, rows, steps), after

    def whole(self, symbols: Tensor) -> Tensor:
        """Return the logits (B, T, V), or of the last place (B, 1, V), of texts that are read at once."""
        if not self.single:
            return self(symbols)[0]
        logits, state = [], None
        for column in symbols.T:
            one, state = self(column[:, None], state)
            logits.append(one)
        return torch.cat(logits, dim=1)

    def learn_scale(self, logits: Tensor) -> bool:
        """Return whether these logits are probabilities; from now on, their logarithms are given."""
        sums = logits.sum(dim=-1)
        self._probabilities = bool((logits >= 0).all()) and torch.allclose(
            sums, torch.ones_like(sums), atol=1e-3
        )
        return self._probabilities

    def _first(self, rows: int) -> State:
        if not self.begin:
            return ()
        if self.begin == "None":
            return (None,)
        make = getattr(self._module, self.begin)
        try:
            return (make(rows),)
        except TypeError:
            return (make(),)

    def _logits(self, out: Any, rows: int, steps: int) -> Tensor:
        found = out
        if isinstance(out, tuple | list) and out:
            found = out[0]
        elif isinstance(out, Mapping):
            found = out.get("logits")
        else:
            found = getattr(out, "logits", out)
        whole = rows, steps, self._size
        allowed = whole, (rows * steps, self._size), (rows, 1, self._size), (rows, self._size)
        if not isinstance(found, Tensor) or tuple(found.shape) not in allowed:
            what = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise Misshapen(
                f"the module gives {what} for symbols {whole[:2]}; it must give {whole}, a logit for each"
                " symbol of its alphabet"
            )
        logits = found.float()
        logits = logits.reshape(whole if logits.numel() == rows * steps * self._size else (rows, 1, -1))
        return logits.clamp(min=torch.finfo(torch.float32).tiny).log() if self._probabilities else logits


def find_caller(module: nn.Module, name: str, size: int) -> Caller:
    """Return how to call a module whose alphabet has ``size`` symbols; TargetError if no way works."""
    wrong: list[Exception] = []
    for caller in _callers(module, size):
        try:
            sizes = [_sizes(caller, steps) for steps in ((1,) if caller.single else (3, 1))]
        except Exception as error:  # of any kind: it is the user's code
            wrong.append(error)
            continue
        if (2, 6) not in zip(sizes[-1], sizes[0], strict=False):  # it would take all symbols for rows
            return caller
    if shapes := [error for error in wrong if isinstance(error, Misshapen)]:
        raise TargetError(f"{name}: {shapes[0]}")
    raise TargetError(f"{name}: the module cannot be run on symbols: {one_line(wrong[0])}") from wrong[0]


def _sizes(caller: Caller, steps: int) -> list[int]:
    """Return the sizes of all axes of the state after two rows of ``steps`` symbols."""
    _, state = caller(torch.zeros((2, steps), dtype=torch.int64))
    return [size for tensor in tensors(state) for size in tensor.shape]


def _callers(module: nn.Module, size: int) -> Iterator[Caller]:
    makers = [name for name in _MAKERS if callable(getattr(module, name, None))]
    for single in (False, True):
        for begin in ("", *makers, "None"):
            yield Caller(module, size, single, begin)


def tensors(state: State | None) -> list[Tensor]:
    """Return the tensors of a state."""
    return [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]
