"""Findings made minimal: what their behaviour does not need is left out, whole rounds of tries in a batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.types import Array, Batch, BoolArray, Finding, IntArray, Minimal, Trace


def minimise(
    places: IntArray, bad: Callable[[Sequence[IntArray]], BoolArray], sure: Callable[[IntArray], bool]
) -> IntArray:
    """A part of ``places`` (N,) that is bad, and is not without any one of them.

    bad: which of some parts are (B,), in a batch; sure: whether one is, alone. The places given are.
    Delta debugging (ddmin; Zeller & Hildebrandt 2002, section 3.2): pieces alone, all but a piece, then
    smaller pieces. A round is one batch; of all pieces that could go by themselves as many go together as
    can. What a batch says is checked alone, and so is, at the end, that no place could go.
    """
    size = -(-len(places) // 2)
    while size:
        found = _smaller(places, size, bad, sure)
        if found is not None:
            places, size = found, min(size, -(-len(found) // 2))
        else:
            size = -(-size // 2) if size > 1 else 0
    return places


def _smaller(
    places: IntArray, size: int, bad: Callable[[Sequence[IntArray]], BoolArray],
    sure: Callable[[IntArray], bool],
) -> IntArray | None:  # fmt: skip
    """Fewer places that are bad, by leaving out pieces of ``size``; None where there are none."""
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
    """Makes findings minimal: symbols of a text are left out, pixels (values) of a box are the seed's again.

    space: what is legal. seeds: what findings descend from, and ``edits``, how far from them texts may be.
    batch: rows run at once.
    """

    def __init__(
        self, evaluator: Evaluator, space: Space, seeds: Batch, batch: int, edits: int | None = None
    ) -> None:
        self.evaluator = evaluator
        self.space, self.seeds, self.batch, self.edits = space, seeds, batch, edits

    def __call__(self, finding: Finding) -> Minimal | None:
        """The minimal row, run again alone as often as the finding; None where that one does not fail."""
        tries, evaluator = _Tries(self, finding), self.evaluator
        before = evaluator.executor.executions
        if not tries.sure(tries.places):
            return None
        places = minimise(tries.places, tries.bad, tries.sure)
        one, column = tries.batch([tries.built(places)]), tries.column
        trace = evaluator.run(one)
        again = evaluator.confirm(one, column, finding.runs)
        if not (tries.judged(one, trace)[0] and again.failed):
            return None
        alone = evaluator.fails_by_text(one, column)
        row = one.row(0)
        distance = self.space.distance(row, self.seeds.row(finding.origin))
        return Minimal(
            row, self.space.name(row, finding.origin, distance), str(trace["text"][0]),
            evaluator.objectives.evidence(one, trace, 0, column).span, len(places), len(tries.places),
            again.failed, evaluator.executor.executions - before, alone,
        )  # fmt: skip


class _Tries:
    """Rows with some of the places of a finding's, run and judged: are they bad in its bucket?"""

    def __init__(self, means: Shrinker, finding: Finding) -> None:
        self._means, self._finding = means, finding
        self.column = means.evaluator.objectives.targets.index(finding.objective)
        self._signature = _plain(finding.evidence.signature)
        self._seed: Array = means.seeds.row(finding.origin)
        self._known: dict[tuple[bool, bytes], bool] = {}  # whether alone, and the row: whether it is bad
        if isinstance(means.space, BoxSpace):
            apart = (finding.row != self._seed).reshape(self._pixels(finding.row).shape).any(axis=1)
            self.places: IntArray = np.flatnonzero(apart)
        else:
            self.places = np.arange(len(finding.row))

    def _pixels(self, row: Array) -> Array:
        """The values of a box, those of a pixel side by side (N, C)."""
        space = self._means.space
        colours = space.shape[2] if isinstance(space, BoxSpace) and space.image else 1
        return row.reshape(-1, colours)

    def built(self, places: IntArray) -> Array:
        """The row that keeps these places of the finding's."""
        row = self._finding.row
        if not isinstance(self._means.space, BoxSpace):
            return row[places]
        made = self._seed.copy()
        self._pixels(made)[places] = self._pixels(row)[places]
        return made

    def batch(self, rows: Sequence[Array]) -> Batch:
        """The rows, descending from where the finding does."""
        made, finding = self._means.space.batch(rows), self._finding
        origin = np.full(len(rows), finding.origin, np.int64)
        return replace(made, origin=origin, parent=np.full(len(rows), finding.parent, np.int64))

    def judged(self, batch: Batch, trace: Trace) -> BoolArray:
        """Which rows (B,) are bad in the finding's bucket."""
        objective, column = self._means.evaluator.objectives, self.column
        bad = objective(batch, trace)[:, column] > 0
        for i in np.flatnonzero(bad).tolist():
            bad[i] = _plain(objective.evidence(batch, trace, i, column).signature) == self._signature
        return bad

    def bad(self, parts: Sequence[IntArray]) -> BoolArray:
        """Which parts (B,) of the places are, run with one another."""
        return self._run(parts, self._means.batch)

    def sure(self, part: IntArray) -> bool:
        """Whether one part is, run alone."""
        return bool(self._run([part], 1)[0])

    def _run(self, parts: Sequence[IntArray], size: int) -> BoolArray:
        """size: rows in a batch. What was run before is known; what is not legal is not bad."""
        means, rows = self._means, [self.built(part) for part in parts]
        keys = [(size == 1, row.tobytes()) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        legal = [key for key, row in new.items() if self._legal(row)]
        self._known.update(dict.fromkeys(new, False))
        for start in range(0, len(legal), size):
            some = legal[start : start + size]
            batch = self.batch([new[key] for key in some])
            bad = self.judged(batch, means.evaluator.run(batch))
            self._known.update(zip(some, bad.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], np.bool_)

    def _legal(self, row: Array) -> bool:
        space, edits = self._means.space, self._means.edits
        near = edits is None or space.distance(row, self._seed) <= edits
        return near and bool(space.legal(space.batch([row]))[0])


def _plain(signature: str) -> bytes:
    """A signature as it reads back from the database."""
    return signature.encode("utf-8", "backslashreplace")
