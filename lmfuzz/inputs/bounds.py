"""Bounds on how far a row may be from the seed it descends from."""

import math

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import Batch


class Linf:
    """Bound how much any value of a box differs from the seed's (L-infinity).

    Raises UsageError if the bound is less than the space's step, so that no value could change, or not less
    than the whole range.
    """

    def __init__(self, most: float, space: BoxSpace, seeds: Batch) -> None:
        if space.step and most < space.step * 0.999:
            wrong = f"a bound of {most:g} is below the pixel step, {space.step:.4g} (1/{1 / space.step:.0f})"
            raise UsageError(f"{wrong}: nothing may change; give a larger --linf, or --resolution float")
        if most >= space.high - space.low:
            wrong = f"a bound of {most:g} bounds nothing: values go from {space.low:g} to {space.high:g}"
            raise UsageError(f"{wrong}; give a smaller --linf")
        whole = math.floor(most / space.step + 1e-3) * space.step if space.step else most
        self.most, self._space, self._seeds = np.float32(whole), space, seeds.data

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """Return the rows with every value clipped to what is allowed around its seed's."""
        seeds = self._seeds[rows.origin]
        return rows.changed(self._space.settle(np.clip(rows.data, seeds - self.most, seeds + self.most)))


class Edits:
    """Bound how many edits a text is from its seed (Levenshtein: insert, delete, substitute).

    Of a row that has more, as many edits as are allowed are kept, drawn at random; the others are undone.
    """

    def __init__(self, most: int, space: TextSpace, seeds: Batch) -> None:
        self.most, self._space, self._seeds = most, space, seeds

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """Return the rows; those too far away have some of their edits undone."""
        from rapidfuzz.distance import Levenshtein  # only here: most campaigns do without

        data, lengths = rows.data.copy(), rows.lengths.copy()
        for i, origin in enumerate(rows.origin.tolist()):
            seed, row = self._seeds.row(origin).tolist(), rows.row(i).tolist()
            if Levenshtein.distance(seed, row, score_cutoff=self.most) <= self.most:
                continue
            edits = [tuple(edit) for edit in Levenshtein.editops(seed, row)]
            kept = sorted(rng.choice(len(edits), self.most, replace=False).tolist())
            row = _edited(seed, row, [edits[k] for k in kept])
            row = row if self._space.min_length <= len(row) <= self._space.max_length else seed
            if len(row) > data.shape[1]:
                data = np.pad(data, [(0, 0), (0, len(row) - data.shape[1])])
            data[i, : len(row)], lengths[i] = row, len(row)
        return rows.changed(data, lengths)


def _edited(seed: list[int], row: list[int], edits: list[tuple[str, int, int]]) -> list[int]:
    """Return the seed with some edits that lead from it to ``row``: (kind, place in seed, place in row)."""
    text, done = [], 0
    for kind, at, there in edits:
        text += seed[done:at]
        text += [] if kind == "delete" else [row[there]]
        done = at + (kind != "insert")
    return text + seed[done:]
