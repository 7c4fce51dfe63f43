"""A causal module that keeps no state, advanced one symbol at a time all the same.

The module is exported as a graph of operations (torch.export). After a text, a new symbol needs only its own
place in every operation, except where attention looks back: there the keys and values of earlier places are
kept, as a KV cache does. What depends on the length alone, such as masks and positions, is computed once for
all places, and each row takes its own. Whether this gives the module's logits is tried before it is used.
"""

import warnings
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node, map_arg

from lmfuzz.targets.modules.calling import Caller
from lmfuzz.targets.modules.examine import distance
from lmfuzz.targets.modules.steppers import ModuleStepper, at_place
from lmfuzz.targets.stepping import States
from lmfuzz.types import Batch

ROOM = 64  # places that are added when a text needs more
CLOSE = 1e-3  # standard deviations of the logits
_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = ("matmul", "bmm", "baddbmm", "einsum")  # their last operand is what they look back at
_LINEAR = ("linear", "addmm", "mm")
_SIZED = ("view", "reshape", "expand", "_unsafe_view")
Values = dict[Node, Any]


class Unsupported(Exception):  # noqa: N818  # nothing is wrong with the module
    """A graph has an operation that cannot be done place by place."""


@dataclass(frozen=True)
class Axes:
    """Say which axes of a tensor grow with the batch and the text.

    Attributes:
        rows: The axis of the rows.
        each: How many entries of that axis belong to one row, such as one for each head.
        place: The axis of the places; -1 if it is one with the rows.
        seen: In attention, the axis of the places that are looked at; -1 elsewhere.
    """

    rows: int
    each: int
    place: int
    seen: int


_SEVERAL = Axes(0, 1, -1, -1)  # of a tuple of tensors


class _Whole(nn.Module):
    """A module as its caller sees it: it gives (B, T, V)."""

    def __init__(self, module: nn.Module, caller: Caller) -> None:
        super().__init__()
        self.module, self.caller = module, caller

    def forward(self, symbols: Tensor) -> Tensor:
        return self.caller.whole(symbols)


class CachedStepper(ModuleStepper):
    """Advance a causal module; its states are logits, their inputs, lengths, caches."""

    _memory = "input of the last layer"

    def __init__(self, module: nn.Module, caller: Caller, longest: int) -> None:
        self._longest = longest
        with warnings.catch_warnings(action="ignore"):
            sizes = {"symbols": dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)}
            example = (torch.zeros((3, 5), dtype=torch.int64),)
            program = torch.export.export(_Whole(module, caller), example, dynamic_shapes=sizes)
        self._fixed: Values = {}  # what depends on no size and no symbol
        self._timed: dict[Node, tuple[int, ...]] = {}  # what depends on sizes alone, and its axes of places
        self._numbers: Values = {}  # sizes, as expressions of those of the symbols
        self._data: dict[Node, Axes] = {}  # what depends on the symbols
        self._seen: dict[Node, list[Node]] = {}  # for each of these the operands that it looks back at
        self._names: dict[Node, str] = {}
        self._caches: list[Node] = []  # all operands that are looked back at
        self._frames: dict[tuple[int, int], Values] = {}
        self._sort(program)

    # -- the graph --------------------------------------------------------------------------------

    def _sort(self, program: Any) -> None:
        """Sort the operations by what they depend on."""
        signature = program.graph_signature
        stored = {**program.state_dict, **program.constants}
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        names |= signature.inputs_to_lifted_tensor_constants
        *nodes, output = program.graph.nodes
        for node in nodes:
            found = node.meta.get("val")
            if node.op == "placeholder" and node.name in names:
                self._fixed[node] = stored[names[node.name]]
            elif node.op == "placeholder":
                self._symbols = node
                self._sizes = tuple(size.node.expr for size in found.shape)
                self._data[node] = self._axes(found)
            elif node.op != "call_function":
                raise Unsupported(node.op)
            elif not isinstance(found, Tensor | tuple | list):
                self._numbers[node] = _expression(found)
            elif any(arg in self._data for arg in node.all_input_nodes):
                self._data[node] = self._axes(found) if isinstance(found, Tensor) else _SEVERAL
                self._seen[node], self._names[node] = self._seen_by(node), _name(node)
                self._caches += [arg for arg in self._seen[node] if arg not in self._caches]
            elif any(arg in self._timed or arg in self._numbers for arg in node.all_input_nodes):
                self._timed[node] = self._places(found) if isinstance(found, Tensor) else ()
            else:
                self._fixed[node] = _call(node, self._fixed.__getitem__)
        self._logits = output.args[0][0]
        self._top = self._source(self._logits)

    def _places(self, found: Tensor) -> tuple[int, ...]:
        return tuple(i for i, size in enumerate(found.shape) if _expression(size) == self._sizes[1])

    def _axes(self, found: Tensor) -> Axes:
        rows, time = self._sizes
        shares = [_expression(size) / rows for size in found.shape]
        own = [i for i, share in enumerate(shares) if getattr(share, "is_Integer", False)]
        if own and (places := self._places(found)):
            return Axes(own[0], int(shares[own[0]]), places[0], (*places, -1)[1])
        both = [i for i, share in enumerate(shares) if getattr(share / time, "is_Integer", False)]
        if not both:
            raise Unsupported("a tensor without an axis of places")
        return Axes(both[0], int(shares[both[0]] / time), -1, -1)

    def _seen_by(self, node: Node) -> list[Node]:
        """Return the operands of a node that need all places."""
        tensors = [arg for arg in _tensors(node) if arg in self._data]
        if _name(node) == _ATTENTION:
            return [arg for arg in tensors if arg in node.args[1:3]]
        if _name(node) in _PRODUCTS:
            return [arg for arg in tensors if arg is _tensors(node)[-1]]
        if self._data[node].seen < 0:
            return []
        short = [arg for arg in tensors if self._data[arg].seen < 0]
        return [
            arg for arg in short if self._data[arg].place + _rank(node) - _rank(arg) == self._data[node].seen
        ]

    def _source(self, node: Node) -> Node:
        """Return what goes into the last linear layer, or the node itself if there is none."""
        at = node
        while _name(at) not in _LINEAR:
            above = [arg for arg in at.all_input_nodes if arg in self._data]
            if len(above) != 1 or at is self._symbols:
                return node
            at = above[0]
        return next(arg for arg in at.all_input_nodes if arg in self._data)

    def _frame(self, rows: int, steps: int) -> Values:
        """Return all that depends on the sizes alone, for texts of ``steps`` places."""
        if (rows, steps) not in self._frames:
            if len(self._frames) > 8:
                self._frames.clear()
            sizes = dict(zip(self._sizes, (rows, steps), strict=True))
            values = {
                node: int(number.subs(sizes))
                for node, number in self._numbers.items()
                if hasattr(number, "subs")
            }
            for node in self._timed:
                values[node] = _call(node, ChainMap(values, self._fixed).__getitem__)
            self._frames[rows, steps] = values
        return self._frames[rows, steps]

    # -- reading and writing ----------------------------------------------------------------------

    def read(self, batch: Batch) -> States:
        """Return the states after each prompt."""
        lengths = torch.from_numpy(batch.lengths.astype(np.int64))
        longest = int(lengths.max())
        text = torch.from_numpy(batch.data[:, :longest].astype(np.int64))
        text[torch.arange(longest) >= lengths[:, None]] = 0
        values: Any = ChainMap({self._symbols: text}, self._frame(*text.shape), self._fixed)
        for node in self._data:
            if node is not self._symbols:
                values[node] = _call(node, values.__getitem__)
        width = max(longest + 1, min(longest + ROOM, self._longest))
        caches = [_widened(self._own_first(node, values[node]), width) for node in self._caches]
        logits, top = (at_place(values[node], text.shape, lengths - 1) for node in (self._logits, self._top))
        return logits, top, lengths, *caches

    def step(self, symbols: Tensor, states: States) -> States:
        """Return the states after ``symbols`` (B,), too; the caches change in place."""
        _, _, lengths, *caches = states
        rows, width = len(symbols), caches[0].shape[2] if caches else self._longest
        if int(lengths.max()) >= width:
            width += ROOM
            caches = [_widened(cache, width) for cache in caches]
        moment = _Moment(lengths, width, self._frame(rows, 1), self._frame(rows, width))
        values: Values = {self._symbols: symbols[:, None]}
        kept = dict(zip(self._caches, caches, strict=True))
        for node, axes in self._data.items():
            if node is not self._symbols:
                values[node] = self._placed(node, axes, values, kept, moment)
            if node in kept:
                kept[node][torch.arange(rows), :, lengths] = self._own_first(node, values[node])[:, :, 0]
        shape = symbols[:, None].shape
        logits, top = (at_place(values[node], shape, -1) for node in (self._logits, self._top))
        return logits, top, lengths + 1, *caches

    def _placed(
        self, node: Node, axes: Axes, values: Values, kept: dict[Node, Tensor], moment: "_Moment"
    ) -> Any:
        """Return what an operation gives for one place of each row."""
        seen, name = self._seen[node], self._names[node]
        at = _rank(node) - 2 if name == _ATTENTION else axes.place

        def value(arg: Node) -> Any:
            if arg in self._fixed:
                return self._fixed[arg]
            if arg in seen:
                own = self._data[arg]
                return kept[arg].flatten(0, 1).movedim((0, 1), (own.rows, own.place))
            if arg in values:
                return values[arg]
            if arg in self._numbers:
                return moment.sizes[arg]
            whole = moment.whole[arg]
            in_place = at >= 0 and at - _rank(node) + whole.ndim in self._timed[arg]
            return moment.own(whole, _rank(node), axes, at) if in_place else whole

        target: Any = node.target
        args, named = map_arg(node.args, value), map_arg(node.kwargs, value)
        if name == _ATTENTION:
            return _attention(args, named, lambda past: moment.own(past, _rank(node), axes, at), moment.width)
        if name in _SIZED and axes.seen >= 0:
            sizes: Any = args[1]
            args = args[0], [moment.width if i == axes.seen else n for i, n in enumerate(sizes)]
        return target(*args, **named)

    def _own_first(self, node: Node, value: Tensor) -> Tensor:
        """Return a value as caches have it: rows, entries of each row, places, the rest."""
        axes = self._data[node]
        first = value.movedim((axes.rows, axes.place), (0, 1))
        return first.reshape(-1, axes.each, *first.shape[1:])

    def keep(self, states: States) -> States:
        """Return the states without the caches."""
        return states[:3]

    def revive(self, kept: States, end: States, rows: Tensor) -> States:
        """Return earlier states, with the caches at the end, which begin with the same places."""
        return *kept, *(cache[rows] for cache in end[3:])


@dataclass(frozen=True)
class _Moment:
    """Hold where the rows are: at ``places`` (B,), in texts of ``width`` places."""

    places: Tensor
    width: int
    sizes: Values  # for texts of one place
    whole: Values  # for texts of all places

    def own(self, whole: Tensor, rank: int, axes: Axes, at: int) -> Tensor:
        """Return each row's own place on the axis ``at`` of a tensor for all places."""
        whole = whole[(None,) * (rank - whole.ndim)].movedim((axes.rows, at), (0, 1))
        places = self.places.repeat_interleave(axes.each)
        rows = torch.arange(len(places)) if len(whole) > 1 else torch.zeros_like(places)
        return whole[rows, places].unsqueeze(1).movedim((0, 1), (axes.rows, at))


def _attention(args: Any, named: Any, own: Callable[[Tensor], Tensor], width: int) -> Tensor:
    """Return attention from one place of each row to those that it sees, its own place included."""
    names = "query", "key", "value", "attn_mask", "dropout_p", "is_causal"
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **named}
    if given.pop("is_causal", False):
        given["attn_mask"] = own(torch.ones((width, width), dtype=torch.bool).tril())
    return nn.functional.scaled_dot_product_attention(**given)


def _call(node: Node, value: Callable[[Node], Any]) -> Any:
    target: Any = node.target
    return target(*map_arg(node.args, value), **map_arg(node.kwargs, value))


def _name(node: Node) -> str:
    """Return the name of an operation without its overload."""
    return str(getattr(node.target, "overloadpacket", node.target)).removeprefix("aten.")


def _rank(node: Node) -> int:
    """Return how many axes a tensor has."""
    return int(node.meta["val"].ndim)


def _tensors(node: Node) -> list[Node]:
    """Return the tensors that an operation is given."""
    return [arg for arg in node.all_input_nodes if isinstance(arg.meta.get("val"), Tensor)]


def _expression(size: Any) -> Any:
    """Return a size as sympy has it, or as the number it is."""
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _widened(cache: Tensor, width: int) -> Tensor:
    """Return a cache (B, N, W, ...) with room for ``width`` places."""
    wide = cache.new_zeros((*cache.shape[:2], width, *cache.shape[3:]))
    wide[:, :, : cache.shape[2]] = cache
    return wide


@torch.inference_mode()
def cached(module: nn.Module, caller: Caller, size: int, longest: int) -> CachedStepper | None:
    """Return what advances a causal module place by place; None unless it gives the module's logits."""
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        return None
    rng = np.random.Generator(np.random.PCG64(0))
    try:
        stepper = CachedStepper(module, caller, longest)
        for lengths in ((5, 1, 7), (4,), (max(1, longest - 4), 2)):
            text = torch.from_numpy(rng.integers(size, size=(len(lengths), max(lengths) + 3)))
            own = [row[:n].numpy().astype(np.int32) for row, n in zip(text, lengths, strict=True)]
            states = stepper.read(Batch.of(own))
            for step in range(4):
                at = torch.tensor(lengths) + step
                whole = caller.whole(text)[torch.arange(len(at)), at - 1]
                if not distance(whole, stepper.logits(states)) <= CLOSE:
                    return None
                if step < 3:
                    states = stepper.step(text[torch.arange(len(at)), at], states)
    except Exception:  # of any kind: most of torch has a part in it, and there is another way
        return None
    return stepper
