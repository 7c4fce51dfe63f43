"""Stacked mutations: AFL's havoc stage on batches."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.characters import Case, Copy, Delete, Erase, Insert, Repeat, Shift, Substitute, Swap
from lmfuzz.operators.dictionary import Dictionary
from lmfuzz.operators.splice import Splice
from lmfuzz.protocols import ForTexts, MutationContext, Operator
from lmfuzz.types import Batch

GROUP = 32  # rows that share the choice of an operator; fewer give a batch more variety and take longer
Depth = Annotated[int, Field(ge=0, le=10)]


def stack() -> list[Operator]:
    """Return the operators that Havoc draws from by default, small changes three times each."""
    small: list[Operator] = [Insert(), Delete(), Substitute()]
    return [*small * 3, Swap(), Case(), Repeat(), Erase(), Copy(), Shift(), Splice()]


class Havoc(ForTexts):
    """Stack 1, 2, 4 ... up to 2^``depth`` mutations by other operators, as AFL's havoc stage does.

    Args:
        depth: logarithm of the largest number of mutations.
        dictionary: file of a dictionary whose entries about one mutation in four uses; "" for none.
        parts: operators to draw from; one that is given twice is drawn twice as often.

    Raises:
        UsageError: if the dictionary cannot be read or has no entry.
    """

    def __init__(self, depth: Depth = 2, dictionary: str = "", parts: Sequence[Operator] = ()) -> None:
        self.depth = depth
        self._operators = list(parts) or stack()
        if dictionary:
            self._operators += [Dictionary(dictionary)] * -(-len(self._operators) // 3)

    def __call__(self, rows: Batch, context: MutationContext) -> Batch:
        """Return changed copies of ``rows``.

        The rows are shuffled. Each round changes as many rows from the front as have mutations left, in
        groups that draw one operator each.
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

    def notes(self, space: TextSpace, steps: int | None = None) -> list[str]:
        """Return what the dictionary's notes are."""
        last = self._operators[-1]
        return last.notes(space) if isinstance(last, Dictionary) else []

    def _change(self, work: Batch, group: slice, context: MutationContext) -> None:
        """Change the rows of ``group`` in place."""
        operator = self._operators[int(context.rng.integers(len(self._operators)))]
        changed = operator(work[group], context)
        work.data[group, : changed.data.shape[1]] = changed.data
        work.lengths[group] = changed.lengths
