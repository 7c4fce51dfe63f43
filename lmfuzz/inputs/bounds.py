"""How far a row may be from the seed it descends from: a bound moves it back within reach."""

import math

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import Batch


class Linf:
    """No value of a box differs from the seed's by more than ``most`` (L-infinity).

    UsageError where that is less than the space's step, so that no value could change, or all there is.
    """

    def __init__(self, most: float, space: BoxSpace, seeds: Batch) -> None:
        if space.step and most < space.step * 0.999:
            raise UsageError(
                f"a bound of {most:g} is below the pixel step of {space.step:.4g} (1/{1 / space.step:.0f}): "
                "nothing may change; give --linf at least that, or --resolution float"
            )
        if most >= space.high - space.low:
            raise UsageError(
                f"a bound of {most:g} bounds nothing: values go from {space.low:g} to {space.high:g}"
            )
        whole = math.floor(most / space.step + 1e-3) * space.step if space.step else most
        self.most, self._space, self._seeds = np.float32(whole), space, seeds.data

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """The rows with every value clipped to what is allowed around its seed's."""
        seeds = self._seeds[rows.origin]
        return rows.changed(self._space.settle(np.clip(rows.data, seeds - self.most, seeds + self.most)))


class Edits:
    """No text is more than ``most`` edits (Levenshtein: insert, delete, substitute) from its seed.

    Of a row that has more, as many edits as are allowed are kept, drawn at random, and the others undone.
    """

    def __init__(self, most: int, space: TextSpace, seeds: Batch) -> None:
        self.most, self._space, self._seeds = most, space, seeds

    def hold(self, rows: Batch, rng: np.random.Generator) -> Batch:
        """The rows, those too far away with some of their edits undone."""
        from rapidfuzz.distance import Levenshtein  # only where it is used

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
    """The seed with some of the edits that lead from it to ``row``: (kind, place in seed, place in row)."""
    text, done = [], 0
    for kind, at, there in edits:
        text += seed[done:at]
        text += [] if kind == "delete" else [row[there]]
        done = at + (kind != "insert")
    return text + seed[done:]
