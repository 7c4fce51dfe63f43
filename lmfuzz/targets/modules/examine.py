"""What a module of the user's own does with its inputs, found out by trying."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmfuzz.errors import TargetError, explaining, one_line
from lmfuzz.targets.hooks import submodules, watching
from lmfuzz.targets.modules.calling import Caller, Misshapen, State, find_caller, tensors

GROSS = 0.1  # standard deviations of the logits: rounding of quantized activations is less
ROWS, STEPS = 3, 7


@dataclass(frozen=True)
class Conduct:
    """Describe how a module behaves.

    Attributes:
        caller: How it is called.
        reads: "states" if it goes on from a state that it gave, "causal" if a place depends on none after it,
            "whole" if all of a text must be read for its last place.
        axes: The axis of the rows in each tensor of a state.
        layer: The linear layer that gives the logits, '' if none does.
        notes: Lines for a person.
    """

    caller: Caller
    reads: Literal["states", "causal", "whole"]
    axes: tuple[int, ...]
    layer: str
    notes: tuple[str, ...]


@torch.inference_mode()
def examine(module: nn.Module, name: str, size: int, longest: int) -> Conduct:
    """Return how a module behaves that reads and writes ``size`` symbols, up to ``longest`` in a text.

    Raises:
        TargetError: It cannot be called, or what it gives for a text is not a function of that text.
    """
    caller = find_caller(module, name, size)
    try:
        with explaining(f"{name}: the module cannot be run on symbols"):
            return _examine(caller, module, name, size, longest)
    except TargetError as error:
        if isinstance(error.__cause__, Misshapen):
            raise TargetError(f"{name}: {error.__cause__}") from None
        raise


def _examine(caller: Caller, module: nn.Module, name: str, size: int, longest: int) -> Conduct:
    symbols = torch.randint(size, (ROWS, STEPS), generator=torch.Generator().manual_seed(0))
    first = caller.whole(symbols)
    notes = []
    if caller.learn_scale(first):
        notes.append("the module gives probabilities; their logarithms are taken as its logits")
        first = caller.whole(symbols)
    if distance(first, caller.whole(symbols)) > GROSS:
        raise TargetError(
            f"{name}: the module gives other logits when it reads the same symbols again: it keeps a"
            " state between calls, or draws random numbers; take the state as an argument and return it, and"
            " drop out only in training"
        )
    if distance(first[-1:], caller.whole(symbols[-1:])) > GROSS:
        raise TargetError(
            f"{name}: what the module gives for a row depends on the other rows of the batch, as with an"
            " nn.LSTM without batch_first=True; its input is (B, T)"
        )
    axes = _row_axes(caller, symbols)
    layer = _output_layer(module, caller, symbols, size)
    tight = 1e-3 if exact(module) else GROSS
    if axes and distance(first[:, -1], _stepped(caller, symbols, name)) <= tight:
        return Conduct(caller, "states", axes, layer, tuple(notes))
    if caller.single:
        raise TargetError(
            f"{name}: the module reads one symbol at a time, but gives no state that it can go on from"
        )
    _require_lengths(caller, name, size, longest)
    if first.shape[1] == STEPS and _causal(caller, symbols, first, longest, tight):
        return Conduct(caller, "causal", (), layer, tuple(notes))
    why = (
        "gives logits for the last place only"
        if first.shape[1] == 1
        else "is not causal: what it gives for a symbol depends on later ones"
    )
    notes.append(
        f"slow: the module {why}, so that texts are read in groups of one length, again for every symbol"
    )
    return Conduct(caller, "whole", (), layer, tuple(notes))


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of logits, in standard deviations of the first ones."""
    if a.shape != b.shape:
        return torch.inf
    same = (a == b) | (a.isnan() & b.isnan())
    apart = (a - b).abs().masked_fill(same, 0).nan_to_num(nan=torch.inf)
    spread = float(a[a.isfinite()].std(correction=0)) if a.isfinite().any() else 0.0
    return float(apart.max()) / (spread or 1.0)


def exact(module: nn.Module) -> bool:
    """Return whether the module computes in float32 or better."""
    return all(weight.dtype not in (torch.float16, torch.bfloat16) for weight in module.parameters())


def _row_axes(caller: Caller, symbols: Tensor) -> tuple[int, ...]:
    """Return the axis of the rows in each tensor of the state, () if the module has no state of that kind.

    The state must be the same size after every text, and be made of tensors alone.
    """

    def read(rows: int, steps: int) -> list[Tensor]:
        state: State | None = None
        part = symbols[:rows, :steps]
        for column in part.T[:, :, None] if caller.single else [part]:
            state = caller(column, state)[1]
        return pytree.tree_leaves(state)

    three, two, shorter = read(3, 4), read(2, 4), read(3, 2)
    if not three or not all(isinstance(leaf, Tensor) for leaf in three):
        return ()
    axes = []
    for a, b, c in zip(three, two, shorter, strict=True):
        differ = [i for i, (n, m) in enumerate(zip(a.shape, b.shape, strict=True)) if n != m]
        if len(differ) != 1 or a.shape != c.shape or a.shape[differ[0]] != 3:
            return ()
        axes.append(differ[0])
    return tuple(axes)


def _stepped(caller: Caller, symbols: Tensor, name: str) -> Tensor:
    """Return the last logits (B, V) when the symbols are read one by one; empty if a state is not taken."""
    state: State | None = None
    logits = torch.empty(0)
    for column in symbols.T[:, :, None]:
        before = [leaf.clone() for leaf in tensors(state)]
        try:
            logits, after = caller(column, state)
        except Misshapen as error:
            raise TargetError(
                f"{name}: the module gives {error.args[0]} for symbols {tuple(column.shape)}"
            ) from None
        except Exception:  # of any kind: the second argument may be something else than a state
            return torch.empty(0)
        if any(distance(old.float(), new.float()) for old, new in zip(before, tensors(state), strict=True)):
            raise TargetError(
                f"{name}: the module changes the state that it is given in place; it must return a new one"
            )
        state = after
    return logits[:, -1]


def _output_layer(module: nn.Module, caller: Caller, symbols: Tensor, size: int) -> str:
    """Return the name of the last linear layer to run, '' if it does not give the logits."""
    ran: list[str] = []
    linear = {
        name: part for name, part in submodules(module).items()
        if isinstance(part, nn.Linear) and part.out_features == size
    }  # fmt: skip
    with watching(linear, lambda name, _, __: ran.append(name)):
        caller.whole(symbols)
    return ran[-1] if ran else ""


def _causal(caller: Caller, symbols: Tensor, logits: Tensor, longest: int, tight: float) -> bool:
    """Return whether the logits of a place depend on no later symbol, and not on how many there are."""
    half = STEPS // 2
    before, start = logits[:, :half], symbols[:, :half]
    other = torch.cat([start, symbols[:, half:].flip(0)], dim=1)
    much = torch.cat([start, symbols[:, half:].repeat(1, 1 + longest // (STEPS - half))], dim=1)[:, :longest]
    return max(distance(before, caller.whole(x)[:, :half]) for x in (start, other, much)) <= tight


def _require_lengths(caller: Caller, name: str, size: int, longest: int) -> None:
    """Raise TargetError unless the module reads texts of one symbol, and of the longest prompt and output."""
    for steps in (1, longest):
        symbols = torch.arange(steps)[None] % size
        try:
            caller.whole(symbols)
        except Misshapen:
            raise
        except Exception as error:
            raise TargetError(
                f"{name}: the module cannot read {steps} symbols, which a prompt and its output can have"
                f" together: {one_line(error)}; give a smaller --max-length or --max-new"
            ) from error
