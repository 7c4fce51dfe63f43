"""The shrinker: it removes what a finding's behaviour does not need, a whole round of tries at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.types import Array, Batch, BoolArray, Finding, IntArray, Minimal, Trace

AnyBad = Callable[[Sequence[IntArray]], BoolArray]
IsBad = Callable[[IntArray], bool]


def minimize(places: IntArray, bad: AnyBad, sure: IsBad) -> IntArray:
    """Return a part of ``places`` (N,) that is bad, but not without any single one of them.

    This is delta debugging (ddmin; Zeller & Hildebrandt 2002, section 3.2): first each piece alone, then all
    but one piece, then smaller pieces. A round is one batch; of the pieces that can be removed, as many as
    possible are removed together. Each success in a batch is checked alone, and so is the end result.

    Args:
        places: what may be removed; all of them together are bad.
        bad: returns which of some parts (B,) are bad, run in a batch.
        sure: returns whether one part is bad, run alone.
    """
    size = -(-len(places) // 2)
    while size:
        found = _smaller(places, size, bad, sure)
        if found is not None:
            places, size = found, min(size, -(-len(found) // 2))
        else:
            size = -(-size // 2) if size > 1 else 0
    return places


def _smaller(places: IntArray, size: int, bad: AnyBad, sure: IsBad) -> IntArray | None:
    """Fewer places that are bad, without some pieces of ``size``; None if there are none."""
    starts = range(0, len(places), size)
    rests = [np.delete(places, slice(start, start + size)) for start in starts]
    pieces = [places[start : start + size] for start in starts] if len(rests) > 2 else []
    hits = bad([*pieces, *rests])
    tries = [piece for piece, hit in zip(pieces, hits, strict=False) if hit]
    loose = np.flatnonzero(hits[len(pieces) :])
    piece_of = np.arange(len(places)) // size
    together = [places[~np.isin(piece_of, loose[:count])] for count in range(len(loose), 1, -1)]
    if not tries and together:
        tries = [rest for rest, hit in zip(together, bad(together), strict=True) if hit]
    tries += [rests[i] for i in (range(len(rests)) if size == 1 else loose)]
    return next((one for one in tries if sure(one)), None)


class Shrinker:
    """Shrink findings: remove symbols of a text, or set pixels of an image back to the seed's.

    Args:
        evaluator: what runs and judges rows.
        space: what a legal row is.
        seeds: the rows that the findings descend from.
        batch: how many rows run at once.
        edits: how far from its seed a text may be.
    """

    def __init__(
        self, evaluator: Evaluator, space: Space, seeds: Batch, batch: int, edits: int | None = None
    ) -> None:
        self.evaluator = evaluator
        self.space, self.seeds, self.batch, self.edits = space, seeds, batch, edits

    def __call__(self, finding: Finding) -> Minimal | None:
        """Return the minimal input, confirmed as often as the finding; None if that does not fail again."""
        tries, evaluator = _Tries(self, finding), self.evaluator
        before = evaluator.executor.executions
        if not tries.sure(tries.places):
            return None
        places = minimize(tries.places, tries.bad, tries.sure)
        one, column = tries.batch([tries.built(places)]), tries.column
        trace = evaluator.run(one)
        failed = evaluator.confirm(one, column, finding.runs).failed
        if not (tries.judged(one, trace)[0] and failed):
            return None
        by_text = evaluator.fails_by_text(one, column)
        row, output = one.row(0), str(trace["text"][0])
        distance = self.space.distance(row, self.seeds.row(finding.origin))
        prompt = self.space.name(row, finding.origin, distance)
        span = evaluator.objectives.evidence(one, trace, 0, column).span
        cost, sizes = evaluator.executor.executions - before, (len(places), len(tries.places))
        return Minimal(row, prompt, output, span, *sizes, failed, cost, by_text)


class _Tries:
    """Run rows that keep only some places of a finding, and judge whether they fail in its bucket.

    Attributes:
        column: the column of the margins that the finding is about.
        places: what can be removed: positions of a text, or pixels that differ from the seed.
    """

    def __init__(self, shrinker: Shrinker, finding: Finding) -> None:
        self._shrinker, self._finding = shrinker, finding
        self.column = shrinker.evaluator.objectives.targets.index(finding.objective)
        self._seed: Array = shrinker.seeds.row(finding.origin)
        self._known: dict[tuple[bool, bytes], bool] = {}  # whether alone, and the row -> whether it is bad
        if isinstance(shrinker.space, BoxSpace):
            apart = (finding.row != self._seed).reshape(self._pixels(finding.row).shape).any(axis=1)
            self.places: IntArray = np.flatnonzero(apart)
        else:
            self.places = np.arange(len(finding.row))

    def _pixels(self, row: Array) -> Array:
        """The values of a box, one pixel per line (N, C)."""
        space = self._shrinker.space
        colours = space.shape[2] if isinstance(space, BoxSpace) and space.image else 1
        return row.reshape(-1, colours)

    def built(self, places: IntArray) -> Array:
        """Return the row that keeps these places of the finding."""
        row = self._finding.row
        if not isinstance(self._shrinker.space, BoxSpace):
            return row[places]
        made = self._seed.copy()
        self._pixels(made)[places] = self._pixels(row)[places]
        return made

    def batch(self, rows: Sequence[Array]) -> Batch:
        """Return the rows as a batch, with the ancestors of the finding."""
        made, finding = self._shrinker.space.batch(rows), self._finding
        origin = np.full(len(rows), finding.origin, np.int64)
        return replace(made, origin=origin, parent=np.full(len(rows), finding.parent, np.int64))

    def judged(self, batch: Batch, trace: Trace) -> BoolArray:
        """Return which rows (B,) are bad in the finding's bucket."""
        objectives, column = self._shrinker.evaluator.objectives, self.column
        bad = objectives(batch, trace)[:, column] > 0
        for i in np.flatnonzero(bad).tolist():
            bad[i] = objectives.evidence(batch, trace, i, column).same(self._finding.evidence)
        return bad

    def bad(self, parts: Sequence[IntArray]) -> BoolArray:
        """Return which parts (B,) of the places are bad, run in batches."""
        return self._run(parts, self._shrinker.batch)

    def sure(self, part: IntArray) -> bool:
        """Return whether one part is bad, run alone."""
        return bool(self._run([part], 1)[0])

    def _run(self, parts: Sequence[IntArray], size: int) -> BoolArray:
        """Which parts (B,) are bad, run in batches of ``size`` unless they are illegal or ran before."""
        rows = [self.built(part) for part in parts]
        keys = [(size == 1, row.tobytes()) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        legal = [key for key, row in new.items() if self._legal(row)]
        self._known.update(dict.fromkeys(new, False))
        for start in range(0, len(legal), size):
            some = legal[start : start + size]
            batch = self.batch([new[key] for key in some])
            bad = self.judged(batch, self._shrinker.evaluator.run(batch))
            self._known.update(zip(some, bad.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], np.bool_)

    def _legal(self, row: Array) -> bool:
        space, edits = self._shrinker.space, self._shrinker.edits
        near = edits is None or space.distance(row, self._seed) <= edits
        return near and bool(space.legal(space.batch([row]))[0])
