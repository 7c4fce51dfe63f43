"""The recipes of twins: ``fp16``, ``int8:per=tensor``, ``prune:0.5``; twins/compress.py makes them.

Nothing here needs torch, so that a wrong recipe is refused before a model is loaded.
"""

import re
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmfuzz.plugins.grammar import parse
from lmfuzz.plugins.registry import Kind

GROUP = 32  # inputs of a channel that share one step of int4
SMALLEST = 1024  # weights in a tensor; TFLite leaves those with fewer in float


@dataclass(frozen=True)
class Recipe:
    """Describe a compression; ``str()`` is its canonical text, which the identities of twins hold.

    Attributes:
        seeks: What it looks for.
        label: What a person reads it is called.
        how: What a person reads becomes of the tensors; ``{kept}`` is the precision that they keep.
    """

    seeks: ClassVar[str] = (
        "Linear, Conv, ConvTranspose, RNN, LSTM, GRU, MultiheadAttention and GPT-2's Conv1D layers"
    )
    label: ClassVar[str]
    how: ClassVar[str] = "rounded, computed in {kept}"

    def __str__(self) -> str:
        given = [
            str(value) if field.default is MISSING else f"{field.name}={value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return ":".join([type(self).__name__.lower(), *given])

    def words(self, kept: str) -> tuple[str, str]:
        """Return what it is called, and what became of the tensors."""
        return self.label.format(**vars(self)), self.how.format(kept=kept, **vars(self))


class Cast(Recipe):
    """Cast weights and activations to the ``dtype`` of torch."""

    dtype: ClassVar[str]
    seeks = "floating-point weights of another precision"
    how = "cast, and every activation"


class FP16(Cast):
    """Cast weights and activations to float16."""

    dtype, label = "float16", "fp16"


class BF16(Cast):
    """Cast weights and activations to bfloat16."""

    dtype, label = "bfloat16", "bf16"


class AtRunTime(Recipe):
    """Change how layers run."""


@dataclass(frozen=True)
class Int8(Recipe):
    """Round weights to 8 bits, and compute in float32."""

    per: Literal["channel", "tensor"] = "channel"
    label = "int8 per {per}"


class Int4(Recipe):
    """Round weights to 4 bits in groups of 32 inputs, and compute in float32."""

    label = f"int4 in groups of {GROUP}"


@dataclass(frozen=True)
class Round(Recipe):
    """Round the weights of each tensor to some bits (round:4), and compute in float32."""

    bits: Annotated[int, Field(ge=2, le=16)]
    label = "{bits} bits per tensor"


@dataclass(frozen=True)
class Prune(Recipe):
    """Set the smallest weights of each tensor to zero (prune:0.5 for half of them)."""

    share: Annotated[float, Field(gt=0, lt=1)]
    label, how = "l1 pruning", "with the smallest {share} of their weights set to zero"


@dataclass(frozen=True)
class TFLite(AtRunTime):
    """Round as TFLite's hybrid int8: large weights per tensor, inputs per example."""

    activations: Literal["symmetric", "asymmetric"] = "symmetric"
    seeks = f"Linear, Conv2d and GPT-2's Conv1D layers with {SMALLEST} weights or more"
    label, how = "TFLite's hybrid int8", "rounded per tensor, their inputs per example ({activations})"


class Dynamic(AtRunTime):
    """Use torch's int8 kernels for Linear, LSTM and GRU, whose inputs share one range per batch.

    A result then depends on the other inputs in the batch.
    """

    seeks = "Linear, LSTM, GRU and GPT-2's Conv1D layers inside the module"
    label, how = "torch's dynamic int8", "rounded, their inputs at run time over the whole batch"


@dataclass(frozen=True)
class TorchAO(AtRunTime):
    """Use torchao's kernels for Linear: weights in 8 bits, inputs, too (int8dq), or weights in 4 (int4)."""

    scheme: Literal["int8", "int8dq", "int4"] = "int8"
    seeks = "Linear and GPT-2's Conv1D layers"
    label = "torchao's {scheme}"

    def words(self, kept: str) -> tuple[str, str]:
        """Return what it is called, and what its scheme does."""
        how = {"int8": "per channel", "int8dq": "per channel, their inputs per row at run time"}
        return f"torchao's {self.scheme}", f"rounded {how.get(self.scheme, f'in groups of {GROUP} inputs')}"


_BUILT_IN = (FP16, BF16, Int8, Int4, Round, Prune, TFLite, Dynamic, TorchAO)
_TABLE = {one.__name__.lower(): f"recipes:{one.__name__}" for one in _BUILT_IN}
RECIPES = Kind("recipe", "recipes", "lmfuzz.targets.twins", Recipe, _TABLE)


def is_recipe(text: str) -> bool:
    """Return whether ``text`` begins as a recipe does, its parameter right or wrong, and is not a path."""
    return re.split(r"[:(]", text, maxsplit=1)[0].strip() in RECIPES.table


def read(text: str) -> Recipe:
    """Return the recipe that ``text`` names; raise UsageError if it is wrong."""
    call = parse(text)
    name, _, bare = call.name.partition(":")  # int8:tensor parses as if it were module:Class
    if bare:
        call = replace(call, name=name, parameters=(("", bare), *call.parameters))
    return RECIPES.build(call)
