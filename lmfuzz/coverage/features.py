"""Features that turn what a run showed into points with meaningful Euclidean distances.

The channels, for B rows, T steps of output and H units; what they hold after the end is not used:
- hidden_last float32 (B, D): all layers' hidden and cell states after the prompt;
- hidden_mean float32 (B, D): mean top hidden state over the generated symbols;
- hidden_steps float32 (B, T, H): top hidden state at each generated symbol;
- text (B,) str;
- tokens int32 (B, T), PAD after the end;
- entropy float32 (B, T), nats: of the distribution of the next symbol;
- logprob float32 (B, T), nats: of the symbol chosen from it.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from lmfuzz.plugins.bounds import Whole
from lmfuzz.types import PAD, Array, BoolArray, FloatArray, IntArray, Trace

_CLUSTERS = 1024  # at most, because the table of moves between them grows with the square
_TAIL = 256  # characters at the end of a text that are searched for loops and repetition


class Hidden:
    """Use a channel of hidden states (B, D) as points float32 (B, min(project, D)).

    Every unit is standardized with the seeds' statistics and clipped to +-6, since otherwise a few huge units
    would dominate the distance. Then an orthogonal map, the same on every machine, takes them to ``project``
    dimensions, unless that is 0 or there are no more units than that.
    """

    def __init__(self, channel: str, project: int) -> None:
        self.needs = frozenset({channel})
        self._channel, self._project = channel, project

    def fit(self, trace: Trace) -> None:
        """Learn mean and deviation of the seeds' finite rows."""
        self._mean, self._scale = _scale(_finite(trace[self._channel]))
        units = len(self._mean)
        self._basis = _orthogonal(units, self._project) if 0 < self._project < units else None

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, min(project, D)); NaN if a state is not finite."""
        states = trace[self._channel]
        with np.errstate(over="ignore"):
            z = np.clip((states - self._mean) / self._scale, -6, 6)
        z[~np.isfinite(states).all(axis=1)] = np.nan
        return z if self._basis is None else z @ self._basis


def hidden_last(project: Whole = 64) -> Hidden:
    """Use the complete state after the prompt: did the prompt lead somewhere new?"""
    return Hidden("hidden_last", project)


def hidden_mean(project: Whole = 64) -> Hidden:
    """Use the mean state over the output: did the model go through something new?"""
    return Hidden("hidden_mean", project)


class Trajectory:
    """Use the abstract states that the output went through, and their order (DeepStellar, Du et al. 2019).

    A step's abstract state is the nearest of ``clusters`` k-means centroids of the seeds' steps, or the cell
    "far" if it is farther from it than any seed's step was. The point is sqrt(share of the steps spent in
    each state), and sqrt(share of the moves) over 96 fixed groups of the (clusters + 1)^2 moves.

    The distance between square roots of shares is Hellinger's. It is bounded, and rows of different lengths
    can be compared. A first visit to a state weighs more than one more visit to a common one: 1 step of 50
    moves the point by 0.14, not by 0.02. Grouping moves can only bring points closer, so what is far is far.
    """

    needs = frozenset({"hidden_steps", "tokens"})
    groups = 96

    def __init__(self, clusters: Annotated[int, Field(ge=1, le=_CLUSTERS)] = 32) -> None:
        self._clusters = clusters
        self._cells = cells = clusters + 1  # the last one is "far"
        order = np.random.Generator(np.random.PCG64(0)).permutation(cells * cells)
        self._group = order % self.groups
        self._states: Callable[[FloatArray], IntArray]

    def fit(self, trace: Trace) -> None:
        """Learn centroids of the finite steps of the seeds' outputs."""
        shown = trace["hidden_steps"][trace["tokens"] != PAD]
        self._states = _nearest_centroid(shown, self._clusters)

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, clusters + 1 + 96); NaN if a step of the output is not finite."""
        hidden, shown = trace["hidden_steps"], trace["tokens"] != PAD
        rows, steps, units = hidden.shape
        states = self._states(hidden.reshape(-1, units)).reshape(rows, steps)
        lost = ((states < 0) & shown).any(axis=1) | (states[:, :1] < 0).any(axis=1)
        moves = self._group[states[:, :-1] * self._cells + states[:, 1:]]
        visits = _shares(states, shown & (states >= 0), self._cells)
        shares = np.concatenate([visits, _shares(moves, shown[:, 1:], self.groups)], axis=1)
        points: FloatArray = np.sqrt(shares).astype(np.float32)
        points[lost] = np.nan
        return points


class OutputCells:
    """Use cells of output behaviour, which need no more than the text of a black box.

    Coordinates are whole numbers: rows in one cell are at distance 0, others at least 1 apart, so that a
    radius of 0.5 makes every new cell novel. After arXiv 2512.05383, they are
    - the period of a loop at the end of the text (0 none, 1, 2, 3-4, 5-8, 9-16, 17-32 characters),
    - the length (0, 1, 2-3, 4-7 ... characters),
    - the share of 4-grams that repeat an earlier one (fifths),
    - with ``probabilities``, mean entropy (half nats, up to 12) and mean probability of the chosen symbols
      (fifths).
    """

    radius = 0.5

    def __init__(self, probabilities: bool = True) -> None:
        self._probabilities = probabilities
        self.needs = frozenset({"text", "tokens", "entropy", "logprob"} if probabilities else {"text"})

    def fit(self, trace: Trace) -> None:
        """Learn nothing: the cells are fixed."""

    def __call__(self, trace: Trace) -> FloatArray:
        """Return points float32 (B, 5), or (B, 3); NaN if entropy or probability is not finite."""
        tails, lengths = _tails(trace["text"])
        grams = _grams(tails)
        cells = [_period(tails, lengths, grams), np.frexp(lengths)[1], _fifths(_repetition(lengths, grams))]
        if not self._probabilities:
            return np.stack(cells, axis=1).astype(np.float32)
        shown, entropy, logprob = trace["tokens"] != PAD, trace["entropy"], trace["logprob"]
        lost = (shown & ~(np.isfinite(entropy) & np.isfinite(logprob))).any(axis=1)
        steps = np.maximum(shown.sum(axis=1), 1)
        unsure = np.where(shown, entropy, 0).sum(axis=1) / steps
        chosen = np.exp(logprob, where=shown, out=np.zeros_like(logprob)).sum(axis=1) / steps
        cells += [np.minimum(np.floor(2 * unsure), 24), _fifths(chosen)]
        points = np.stack(cells, axis=1).astype(np.float32)
        points[lost] = np.nan
        return points


def _scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation float32 (D,) of the rows of ``values`` (N, D), N >= 1.

    A unit that is constant but for rounding gets the median deviation of the others, or 1 if all are (one
    seed). Its own deviation would make the noise of a batch as large as a jump.
    """
    deviation = values.std(axis=0, dtype=np.float64)
    typical = np.median(deviation[deviation > 0]) if deviation.any() else 1.0
    scale = np.where(deviation > 1e-4 * typical, deviation, typical) + 1e-6
    return values.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32)


def _finite(values: FloatArray) -> FloatArray:
    """Return the finite rows of ``values`` (N, D), or one of zeros if there is none."""
    finite = values[np.isfinite(values).all(axis=1)]
    return finite if len(finite) else np.zeros((1, values.shape[1]), values.dtype)


def _orthogonal(units: int, dimensions: int) -> FloatArray:
    """Return orthonormal columns float32 (units, dimensions), equal on all machines but for rounding."""
    normal = np.random.Generator(np.random.PCG64(0)).standard_normal((units, dimensions))
    columns, triangle = np.linalg.qr(normal)
    signs = np.sign(np.diag(triangle))  # which LAPACK may choose freely
    return (columns * signs).astype(np.float32)


def _nearest_centroid(steps: FloatArray, clusters: int) -> Callable[[FloatArray], IntArray]:
    """Return a map from states (N, H) to their nearest centroids: ``clusters`` if far, -1 if not finite."""
    steps = _finite(steps)
    mean, scale = _scale(steps)
    rng = np.random.Generator(np.random.PCG64(0))
    z = (steps[rng.permutation(len(steps))[:20_000]] - mean) / scale
    centroids = _kmeans(z, clusters, rng)
    half = (centroids**2).sum(axis=1) / 2

    def nearest(hidden: FloatArray) -> tuple[IntArray, FloatArray]:
        z = hidden - mean
        z /= scale
        scores = z @ centroids.T
        scores -= half
        best = scores.argmax(axis=1)
        return best, np.vecdot(z, z) - 2 * scores[np.arange(len(z)), best]

    reach = nearest(steps)[1].max() * 1.001 + 1e-3  # so that rounding moves no step of a seed out of it

    def states(hidden: FloatArray) -> IntArray:
        with np.errstate(over="ignore", invalid="ignore"):
            best, squared = nearest(hidden)
        best[squared > reach] = clusters
        best[~np.isfinite(squared)] = -1
        return best

    return states


def _kmeans(z: FloatArray, clusters: int, rng: np.random.Generator) -> FloatArray:
    """Return centroids float32 (clusters, H) of points (N, H): k-means++, then 25 rounds of Lloyd at most."""
    centroids = z[rng.integers(len(z), size=1)]
    squared = np.full(len(z), np.inf)
    for _ in range(clusters - 1):
        squared = np.minimum(squared, ((z - centroids[-1]) ** 2).sum(axis=1))
        weights = np.cumsum(squared, dtype=np.float64)
        chosen = min(int(np.searchsorted(weights, rng.random() * weights[-1], side="right")), len(z) - 1)
        centroids = np.concatenate([centroids, z[chosen : chosen + 1]])
    before = np.full(len(z), -1)
    for _ in range(25):
        best = (z @ centroids.T - (centroids**2).sum(axis=1) / 2).argmax(axis=1)
        if (best == before).all():
            break
        before = best
        member = np.eye(clusters, dtype=np.float32)[best]
        sizes = member.sum(axis=0)
        centroids[sizes > 0] = (member.T @ z)[sizes > 0] / sizes[sizes > 0, None]
    return centroids


def _shares(cells: IntArray, counted: BoolArray, number: int) -> FloatArray:
    """Return the shares (B, number) of each cell among the ``counted`` steps of ``cells`` (B, T)."""
    flat = (cells + number * np.arange(len(cells))[:, None])[counted]
    counts = np.bincount(flat, minlength=number * len(cells)).reshape(len(cells), number)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _tails(texts: Array) -> tuple[IntArray, IntArray]:
    """Return code points uint32 (B, W) of the ends of texts, NUL in front, and the lengths (B,)."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    width = int(min(max(lengths.max(initial=0), 4), _TAIL))
    ends = np.array([text[-width:].rjust(width, "\0") for text in texts], dtype=f"U{width}")
    return ends.view(np.uint32).reshape(len(texts), width), lengths


def _grams(tails: IntArray) -> IntArray:
    """Return a hash uint64 (B, W - 3) of the four characters at each place."""
    codes, count = tails.astype(np.uint64), tails.shape[1] - 3
    grams = codes[:, :count]
    for i in range(1, 4):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + codes[:, i : i + count]
    return grams


def _period(tails: IntArray, lengths: IntArray, grams: IntArray) -> IntArray:
    """Return the class (B,) of the shortest period at the end of a text: 0 none, 1, 2, 3-4, ... characters.

    A loop must last for three periods, and for 12 characters more than one period.
    """
    width, period = tails.shape[1], np.zeros(len(tails), np.int64)
    again = (grams[:, -33:-1] == grams[:, -1:]).any(axis=0)  # most periods fail on the last 4-gram
    for p in (len(again) - np.flatnonzero(again)).tolist():  # the longest first
        same = max(2 * p, 12)
        if same + p <= width:
            loop = (tails[:, -same:] == tails[:, width - same - p : width - p]).all(axis=1)
            period[loop & (lengths >= same + p)] = (p - 1).bit_length() + 1
    return period


def _repetition(lengths: IntArray, grams: IntArray) -> FloatArray:
    """Return the share (B,) of the 4-grams at the end of a text that occur earlier in it."""
    count = grams.shape[1]
    grams = np.where(np.arange(count) < count + 3 - lengths[:, None], np.uint64(0), grams)
    grams.sort(axis=1)
    new = (grams[:, 1:] != grams[:, :-1]).sum(axis=1) + (grams[:, 0] != 0)
    total = np.clip(lengths - 3, 1, count)
    return np.asarray(np.where(lengths > 3, 1 - new / total, 0))


def _fifths(shares: FloatArray) -> FloatArray:
    return np.clip(np.floor(5 * shares), 0, 4)
