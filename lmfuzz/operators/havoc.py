"""Stacked changes: AFL's havoc stage on batches."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.operators.characters import Case, Copy, Delete, Erase, Insert, Repeat, Shift, Substitute, Swap
from lmfuzz.operators.dictionary import Dictionary
from lmfuzz.operators.splice import Splice
from lmfuzz.protocols import ForTexts, MutationContext, Operator
from lmfuzz.types import Batch

GROUP = 32  # rows that share the choice of an operator: fewer mean more variety in a batch, and more time
Depth = Annotated[int, Field(ge=0, le=10)]


def stack() -> list[Operator]:
    """The operators that Havoc draws from unless told; the small changes stand in it several times."""
    small: list[Operator] = [Insert(), Delete(), Substitute()]
    return [*small * 3, Swap(), Case(), Repeat(), Erase(), Copy(), Shift(), Splice()]


class Havoc(ForTexts):
    """Stacks 1, 2, 4 ... up to 2^``depth`` changes by other operators on a row, as AFL's havoc does.

    ``parts`` are the operators to draw from, one named twice being drawn twice as often; ``dictionary``
    is a file whose entries are used, too, in about one change of four.
    """

    def __init__(self, depth: Depth = 2, dictionary: str = "", parts: Sequence[Operator] = ()) -> None:
        self.depth = depth
        self._operators = list(parts) or stack()
        if dictionary:
            self._operators += [Dictionary(dictionary)] * -(-len(self._operators) // 3)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Changed copies of ``rows``.

        The rows are shuffled, so that each round can change a slice from the front, as many rows as still
        have changes left, in groups of which each draws one operator.
        """
        order = context.rng.permutation(len(rows))
        width = max(rows.data.shape[1], context.text.max_length)
        data = np.zeros((len(rows), width), np.int32)
        data[:, : rows.data.shape[1]] = rows.data[order]
        work = rows[order].changed(data)
        changes = 2 ** context.rng.integers(self.depth + 1, size=len(rows))
        for done in range(2**self.depth):
            active = int((changes > done).sum())
            groups = -(-active // GROUP)
            for i in range(groups):
                self._change(work, slice(active * i // groups, active * (i + 1) // groups), context)
        back = np.argsort(order)
        return rows.changed(work.data[back], work.lengths[back])

    def _change(self, work: Batch, group: slice, context: MutationContext) -> None:
        """Change the rows of ``group`` in place."""
        operator = self._operators[int(context.rng.integers(len(self._operators)))]
        changed = operator(work[group], context)
        work.data[group, : changed.data.shape[1]] = changed.data
        work.lengths[group] = changed.lengths
