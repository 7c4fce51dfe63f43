"""The registered operators, ready to be made: a new one is in every contract test once it is in the table."""

from collections.abc import Callable
from functools import partial

from lmfuzz.operators import OPERATORS
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import Operator

NEEDS = {"dictionary": 'dictionary:entries=["A", "ab", "Badcab"]'}  # what cannot be made by its name alone


def making(text: str) -> Callable[[], Operator]:
    return partial(OPERATORS.build, parse(text))


def registered(*rows: str) -> dict[str, Callable[[], Operator]]:
    """Those for such rows, by name."""
    names = [name for name in OPERATORS.table if OPERATORS.find(name).rows in rows]
    return {name: making(NEEDS.get(name, name)) for name in names}
