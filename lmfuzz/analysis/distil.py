"""The fewest inputs that cover what a campaign's archive holds: seeds for other campaigns."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from lmfuzz import files
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.types import Array, FloatArray, IntArray

_TILE = 1024  # points on each side of a matrix of distances, a multiple of 8


@dataclass(frozen=True, slots=True)
class Distilled:
    """Hold what was written.

    Attributes:
        rows: how many seeds were written.
        states: how many states they cover.
        radius: the distance within which they cover them.
        corpus: how many rows the corpus has.
        respelled: how many prompts of tokens the tokenizer makes other tokens of.
        left_out: how many of those are left out, since the other tokens are not a legal input.
    """

    rows: int
    states: int
    radius: float
    corpus: int
    respelled: int
    left_out: int


def distil(directory: Path, file: Path, radius: float | None = None) -> Distilled:
    """Write the fewest rows that cover the archive within ``radius``, those that cover most first.

    Rows and points are those stored when the states were new: no model is run. The default radius is the
    campaign's own. Any two states are farther apart than that, so each needs its own row, and only what the
    corpus holds besides is dropped.

    Args:
        directory: the campaign.
        file: the file to write; .jsonl for prompts, .npy for images and numbers.
        radius: how near a row must be to a state that it covers.

    Raises:
        UsageError: the archive is empty, the radius is not a distance, or --seeds could not read the file.
    """
    files.check(file)
    record = CampaignRecord.read(directory)
    states, space, own = record.states, record.space, record.calibration["radius"]
    radius = own if radius is None else float(radius)
    if not (math.isfinite(radius) and radius >= 0):
        raise UsageError(f"the radius must be a finite distance of at least 0, not {radius:g}")
    ending = ".npy" if isinstance(space, BoxSpace) else ".jsonl"
    if file.suffix != ending:
        raise UsageError(f"-o {file} does not end in {ending}, which --seeds needs for inputs of this kind")
    if not states.rows:
        raise UsageError(f"the archive of the campaign in {directory} is empty: there is nothing to distil")
    every = np.arange(len(states.rows))
    chosen = cover(states.places, radius, states.seeds) if radius > own else every
    rows, respelled = [states.rows[i] for i in chosen.tolist()], 0
    if isinstance(space, BoxSpace):
        np.save(content := BytesIO(), np.stack(rows))
        files.write(content.getvalue(), file)
    else:
        rows, respelled = _legible(rows, space)
        lines = [json.dumps({"prompt": space.decode(row)}) + "\n" for row in rows]
        files.write("".join(lines), file)
    return Distilled(len(rows), len(every), radius, record.corpus_size, respelled, len(chosen) - len(rows))


def _legible(rows: Sequence[Array], space: TextSpace) -> tuple[list[Array], int]:
    """The rows whose texts are legal, and of how many the tokenizer makes other tokens."""
    spelled = [(row, space.respelled(row)) for row in rows]
    kept = [row for row, other in spelled if other is None or space.legal(space.batch([other]))[0]]
    return kept, sum(other is not None for _, other in spelled)


def cover(points: FloatArray, radius: float, groups: Array) -> IntArray:
    """Return which of the points (N, D) together are within ``radius`` of all, those that cover most first.

    A point covers itself, and others of its own group (``groups`` (N,)). Greedy set cover (Chvatal 1979)
    takes the point that covers most of what is left, the earliest of several: at most 1 + ln N times as many
    as the fewest. Needs N * N / 8 bytes.
    """
    near = _near(points, radius, groups)
    gains = np.bitwise_count(near).sum(axis=1, dtype=np.int32)
    left = np.ones(len(points), np.bool_)
    chosen: list[int] = []
    while gains[best := int(gains.argmax())] > 1:
        chosen.append(best)
        covered = np.flatnonzero(_bits(near, best) & left)
        for i in covered.tolist():  # near is symmetric: what i is near to covered it
            gains -= _bits(near, i)
        left[covered] = False
    return np.concatenate([np.array(chosen, np.int64), np.flatnonzero(left)])  # each by itself


def _near(points: FloatArray, radius: float, groups: Array) -> Array:
    """Which points are near which, a bit each: uint8 (N, N / 8), symmetric, each near itself.

    Points that rounding leaves in doubt are not near: that costs a row, but everything is covered.
    """
    exact = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    halves = ((exact * exact).sum(axis=1) - radius * radius / 2) / 2
    halves += 2.1 * (points.shape[1] + 8) * max(halves.max(), radius * radius) * 2.0**-53  # of rounding
    near = np.empty((len(points), -(-len(points) // 8)), np.uint8)
    tiles = [slice(start, start + _TILE) for start in range(0, len(points), _TILE)]
    for i, rows in enumerate(tiles):
        for columns in tiles[i:]:
            bits = exact[rows] @ exact[columns].T - halves[rows, None] >= halves[columns]
            bits &= groups[rows, None] == groups[columns]
            if rows == columns:
                bits &= bits.T
                np.fill_diagonal(bits, True)
            near[rows, columns.start // 8 : columns.stop // 8] = np.packbits(bits, axis=1)
            near[columns, rows.start // 8 : rows.stop // 8] = np.packbits(bits, axis=0).T
    return near


def _bits(near: Array, i: int) -> Array:
    return np.unpackbits(near[i], count=len(near)).view(np.bool_)
