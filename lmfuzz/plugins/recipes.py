"""How a twin is ordered: ``fp16``, ``int8:per=tensor``, ``prune:0.5``; targets/twins/compress makes it.

Nothing here needs torch, so that a wrong recipe is refused before a model is loaded.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lmfuzz.errors import UsageError, nearest
from lmfuzz.plugins.grammar import parse, spell

RECIPES: Mapping[str, str] = {
    "fp16": "weights and activations in float16",
    "bf16": "weights and activations in bfloat16",
    "int8": "weights rounded to 8 bits (per=channel or tensor), computed in float32",
    "int4": "weights rounded to 4 bits in groups of 32 inputs, computed in float32",
    "round": "weights of each tensor rounded to 2 to 16 bits (round:4), computed in float32",
    "prune": "the smallest weights of each tensor set to zero (prune:0.5 for half of them)",
    "tflite": "TFLite's hybrid int8: large weights per tensor, inputs per example (activations=symmetric or"
    " asymmetric)",
    "dynamic": "torch's int8 kernels for Linear, LSTM and GRU, whose inputs share one range per batch: a"
    " row's result depends on its neighbours",
    "torchao": "torchao's kernels for Linear: weights in 8 bits (scheme=int8), inputs, too (int8dq), or"
    " weights in 4 (int4)",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A compression and the value of its one parameter, checked; ``str()`` is its canonical text."""

    name: str
    value: str | float | None = None

    def __str__(self) -> str:
        parameter = _PARAMETERS.get(self.name)
        if parameter is None or self.value == parameter.default:
            return self.name
        return (
            f"{self.name}:{parameter.name}={self.value}" if parameter.default else f"{self.name}:{self.value}"
        )


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    right: str  # what a value must be, for a person
    convert: Callable[[str], str | float]  # ValueError when it is not that
    default: str | None = None


def is_recipe(text: str) -> bool:
    """Whether ``text`` begins as a recipe does, its parameter right or wrong, and is no path."""
    return re.split(r"[:(]", text, maxsplit=1)[0].strip() in RECIPES


def read(text: str) -> Recipe:
    """The recipe that ``text`` spells; UsageError says what is wrong with it."""
    call = parse(text)
    name, _, bare = call.name.partition(":")  # int8:tensor parses as if it were module:Class
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}{nearest(name, RECIPES)} (there are {', '.join(RECIPES)})")
    if call.parts:
        raise UsageError(f"{name} is not made of others; leave out what stands in parentheses")
    given = [*([("", bare)] if bare else []), *call.parameters]
    parameter = _PARAMETERS.get(name)
    if parameter is None:
        if given:
            raise UsageError(f"{name} takes no parameters; write {name} alone")
        return Recipe(name)
    if unknown := next((given_name for given_name, _ in given if given_name not in ("", parameter.name)), ""):
        raise UsageError(f"{name} has no parameter {unknown!r}; it takes {parameter.name}")
    if len(given) > 1:
        raise UsageError(f"{name} takes one parameter, {parameter.name}, and it is given twice")
    if not given:
        if parameter.default is None:
            raise UsageError(
                f"{name} needs {parameter.name} ({parameter.right}): {name}:{parameter.name}=..."
            )
        return Recipe(name, parameter.default)
    value = given[0][1]
    try:
        return Recipe(name, parameter.convert(str(value)))
    except ValueError:
        raise UsageError(f"{name}: {parameter.name} must be {parameter.right}, not {spell(value)}") from None


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return convert


def _bits(text: str) -> int:
    if not 2 <= (bits := int(text)) <= 16:
        raise ValueError(text)
    return bits


def _share(text: str) -> float:
    if not 0 < (share := float(text)) < 1:
        raise ValueError(text)
    return share


_PARAMETERS = {
    "int8": _Parameter("per", "channel or tensor", _one_of("channel", "tensor"), "channel"),
    "round": _Parameter("bits", "a whole number from 2 to 16", _bits),
    "prune": _Parameter("share", "a number between 0 and 1", _share),
    "tflite": _Parameter(
        "activations", "symmetric or asymmetric", _one_of("symmetric", "asymmetric"), "symmetric"
    ),
    "torchao": _Parameter("scheme", "int8, int8dq or int4", _one_of("int8", "int8dq", "int4"), "int8"),
}
