"""Operators: the mutations that make new rows from old ones."""

from typing import Any

from lmfuzz.inputs.spaces import Space
from lmfuzz.plugins.registry import Kind
from lmfuzz.protocols import Lexicon, Operator

_BUILT_IN = {
    "insert": "characters:Insert", "delete": "characters:Delete", "substitute": "characters:Substitute",
    "swap": "characters:Swap", "repeat": "characters:Repeat", "erase": "characters:Erase",
    "copy": "characters:Copy", "shift": "characters:Shift", "case": "characters:Case",
    "splice": "splice:Splice", "dictionary": "dictionary:Dictionary", "tail": "tail:Tail",
    "havoc": "havoc:Havoc",
    "neighbour": "tokens:Neighbour", "rare": "tokens:Rare", "respell": "tokens:Respell",
    "noise": "pixels:Noise", "step": "pixels:Step", "mix": "pixels:Mix",
    "gaussian_noise": "pixels:GaussianNoise", "salt_pepper": "pixels:SaltPepper",
    "multiplicative": "pixels:Multiplicative", "pixels": "pixels:Pixels", "brightness": "pixels:Brightness",
    "contrast": "pixels:Contrast", "cutout": "pixels:CutOut", "mean_blur": "pictures:MeanBlur",
    "gaussian_blur": "pictures:GaussianBlur", "median_blur": "pictures:MedianBlur", "move": "pictures:Move",
    "rotate": "pictures:Rotation",
}  # fmt: skip
OPERATORS = Kind("operator", "operators", __name__, Operator, _BUILT_IN, itself=(2,))


def suits(operator: Any, space: Space, lexicon: Lexicon | None) -> bool:
    """Return whether an operator, or a class of operators, fits such rows; without a declaration it does."""
    rows, by_lexicon = getattr(operator, "rows", None), getattr(operator, "needs_lexicon", False)
    return (not isinstance(rows, str) or rows in space.rows) and not (by_lexicon is True and lexicon is None)
