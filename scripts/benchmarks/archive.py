"""What does an archive of 100 000 hidden states cost beside the model?"""

import statistics
import time

import numpy as np
import torch

from benchmarks.campaigns import corpus_text, window_prompts, windows
from benchmarks.figures import Measured, Options, Wrong, percent, spread
from benchmarks.speed import PROMPT, ROWS, bundled
from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.coverage.archive import Archive
from lmfuzz.spec import Spec
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.types import Array, Batch, BoolArray, FloatArray

TAIL = 16_384  # rows that wait before a graph is built: on average half of that many have none
EVERY = 4  # a state is taken after every fourth character


@torch.inference_mode()
def states(campaign: Campaign, rows: int, rng: np.random.Generator) -> FloatArray:
    """Points (rows x 13, 64): the states after prompts of 16, 20, ... 64 characters, shuffled.

    The prompts are windows of the bundled seed prompts with up to 8 characters replaced.
    """
    target = campaign.target
    assert isinstance(target, RNNTarget)
    text, stepper, points = corpus_text(campaign.space), target._stepper, []
    for _ in range(rows // 256):
        prompts = windows(text, 256, PROMPT, rng)
        changed = rng.random(prompts.shape) < rng.integers(0, 9, size=(256, 1)) / PROMPT
        prompts = np.where(changed, rng.integers(len(campaign.space.symbols), size=prompts.shape), prompts)
        hidden, cell = stepper.start(256)
        for place, symbols in enumerate(torch.from_numpy(prompts.T.astype(np.int64)).contiguous(), start=1):
            stepper.step(symbols, (hidden, cell))
            if place >= 16 and place % EVERY == 0:
                points.append(campaign.feature({"hidden_last": torch.cat([hidden, cell], dim=1).numpy()}))
    return rng.permutation(np.concatenate(points))


def distances(points: FloatArray, queries: FloatArray) -> Array:
    """Squared distances float64 (Q,) from each query to its nearest point, by products in float64."""
    points, nearest = points.astype(np.float64), []
    norms = (points * points).sum(axis=1)
    for start in range(0, len(queries), ROWS):
        some = queries[start : start + ROWS].astype(np.float64)
        nearest.append((norms - 2 * (some @ points.T)).min(axis=1) + (some * some).sum(axis=1))
    return np.concatenate(nearest)


def decisions(points: FloatArray, queries: FloatArray, radius: float) -> BoolArray:
    """Which queries (Q,) are novel, one after the other, each also against those admitted before it."""
    novel = distances(points, queries) > radius * radius
    admitted: list[FloatArray] = []
    for i in np.flatnonzero(novel):
        query = queries[i].astype(np.float64)
        novel[i] = all(((query - other) ** 2).sum() > radius * radius for other in admitted)
        if novel[i]:
            admitted.append(query)
    return novel


def filled(stream: FloatArray, radius: float, size: int) -> tuple[FloatArray, int]:
    """The first ``size`` points that an archive admits, and how much of the stream that took."""
    archive, place = Archive(radius, stream.shape[1]), 0
    while len(archive) < size and place < len(stream):
        some = stream[place : place + 512]
        archive.admit(some, np.ones(len(some), np.bool_))
        place += len(some)
    archive.close()
    if len(archive) < size:
        raise Wrong(f"only {len(archive)} points are farther than {radius:.3g} from one another")
    return archive.points()[:size], place


def asked(archive: FloatArray, stream: FloatArray, radius: float, count: int, share: float) -> FloatArray:
    """The next ``count`` points of the stream, of which ``share`` are novel."""
    novel = distances(archive, stream) > radius * radius
    few = np.flatnonzero(novel)[: round(count * share)]
    many = np.flatnonzero(~novel)[: count - len(few)]
    queries: FloatArray = stream[np.sort(np.concatenate([few, many]))]
    return queries


def built(points: FloatArray, radius: float, tail: int) -> Archive:
    """An archive whose graphs are built, but for half a tail of its points."""
    archive = Archive(radius, points.shape[1], tail=tail)
    graphs = archive._segments
    assert graphs is not None
    archive.restore(points[: -tail // 2])
    while graphs.covered < len(archive):
        if graphs._thread is None:  # too few are left for a graph of their own
            break
        graphs.wait()
        graphs.follow(archive._index.points)
    archive._append(points[-tail // 2 :])
    return archive


def model_seconds(target: RNNTarget, batch: Batch, turns: int) -> float:
    """Wall seconds for ``turns`` batches."""
    started = time.perf_counter()
    for _ in range(turns):
        target.run(batch, frozenset({"text", "hidden_last"}))
    return time.perf_counter() - started


def shares(
    archive: Archive, queries: FloatArray, target: RNNTarget, chunk: int, stop: bool = False
) -> tuple[list[float], BoolArray]:
    """Archive time over model time for every chunk of queries, and all decisions.

    stop: end when the graph under way is built.
    """
    space = target.space
    batch = Batch.of([space.encode(prompt) for prompt in window_prompts(space, ROWS, PROMPT)])
    everywhere = np.ones(ROWS, np.bool_)
    found: list[float] = []
    decided: list[BoolArray] = []
    for first in range(0, len(queries), chunk * ROWS):
        graphs = archive._segments
        if stop and found and graphs is not None and (graphs.segments or graphs._built):
            break
        some = queries[first : first + chunk * ROWS]
        started = time.perf_counter()
        decided += [archive.admit(some[i : i + ROWS], everywhere) for i in range(0, len(some), ROWS)]
        seconds = time.perf_counter() - started
        found.append(seconds / model_seconds(target, batch, len(some) // ROWS))
    return found, np.concatenate(decided)


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``archive_share_100k``: points of real hidden states, queries by the next ones."""
    size, chunk, chunks, tail = (1_024, 2, 2, 256) if options.quick else (100_000, 16, 8, TAIL)
    rng, target = np.random.default_rng(0), bundled()
    campaign = Campaign.begin(build(Spec(count=16 if options.quick else Spec().count)))
    stream = states(campaign, (256 if options.quick else 18_432), rng)
    # At the calibrated radius such states fill some thousand places: a radius that half of them pass.
    probe = rng.integers(size, len(stream), size=256)
    radius = float(np.sqrt(np.median(distances(stream[:size], stream[probe]))))
    points, used = filled(stream, radius, size)
    count = chunk * chunks * ROWS
    rest = stream[used : used + 3 * count]
    queries = asked(points, rest, radius, count, 0.01)
    if len(queries) < count:
        raise Wrong(f"the stream of states is too short: {len(queries)} queries of {count}")

    archive = built(points, radius, tail)
    with_graphs, decided = shares(archive, queries, target, chunk)
    archive.close()
    right = decisions(points, queries, radius)
    if not np.array_equal(decided, right):
        raise Wrong(f"{np.count_nonzero(decided != right)} of {count} decisions differ from the exact ones")

    plain = Archive(radius, points.shape[1], approximate=False)
    plain.restore(points)
    exact, decided = shares(plain, queries, target, chunk)
    fresh = Archive(radius, points.shape[1], tail=tail)
    fresh.restore(points)  # begins to build a graph
    meanwhile, building = shares(fresh, queries, target, 2, stop=True)
    fresh.close()
    if not (np.array_equal(decided, right) and np.array_equal(building, right[: len(building)])):
        raise Wrong("decisions differ from the exact ones while there is no graph")
    own = float((distances(points, rest[:1024]) > radius * radius).mean())
    next_ones, _ = shares(built(points, radius, tail), rest[: 4 * chunk * ROWS], target, chunk)
    calibrated = Archive(campaign.calibration.radius, points.shape[1], approximate=False)
    calibrated.admit(stream, np.ones(len(stream), np.bool_))
    lines = (
        f"{size} points, {tail // 2} of them not in a graph yet; {count} queries, {right.mean():.1%} novel: "
        f"{_line(with_graphs)}; all decisions equal to exact ones",
        f"exact search alone, no graph at all: {_line(exact)}",
        f"while the first graph is built: {_line(meanwhile)}",
        f"where {own:.0%} are novel, as among the points that came next: {_line(next_ones)}",
        f"real states, radius {radius:.2f}; at the calibrated {campaign.calibration.radius:.2f} "
        f"{len(stream)} of them fill {len(calibrated)} places",
    )
    return {keys[0]: Measured(statistics.median(with_graphs), lines)}


def _line(values: list[float]) -> str:
    return f"{percent(statistics.median(values))} ({spread(values, percent)} in {len(values)} chunks)"
