"""A model and its twin that disagree: other labels, other texts, other distributions.

In the trace of a pair, base/NAME is what the base shows; twin/NAME, or NAME alone, is what the twin shows.
The noise floor of each objective, ``noise``, is the largest difference of what it judges between two
batchings of the same rows. A disagreement that is not larger is not a finding.
"""

from os.path import commonprefix
from typing import Literal

import numpy as np

from lmfuzz.plugins.bounds import Positive
from lmfuzz.protocols import ForTexts
from lmfuzz.types import PAD, Array, Batch, BoolArray, Evidence, FloatArray, Trace

Measure = Literal["js", "kl"]
Over = Literal["max", "mean"]
Of = Literal["text", "labels"]
LOGITS = ("base/logits", "twin/logits")
AROUND = 16  # characters of a text shown on each side of the first difference
_NEARLY = -1e-6  # the largest margin of a row that is not a finding
_LEAST = 1e-6  # nats; smaller losses count as this


class LabelDisagreement:
    """Find inputs that the base and its twin label differently, graded by how near they are to that.

    Let a be the base's label and b the twin's. If they differ, the margin is the smaller of log p(a) - log
    p(b) of the base and log p(b) - log p(a) of the twin, less the noise floor. If they agree, it is minus
    the smaller of both models' gaps to their second class, so 0 if one of them is about to change its
    label. NaN if a label's logit is not finite. The signature is "a -> b".
    """

    needs = frozenset(LOGITS)
    targets = ("disagreement",)

    def __init__(self) -> None:
        self.noise = 0.0

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        base, twin = (trace[name].astype(np.float64) for name in LOGITS)
        rows, a, b = np.arange(len(base)), base.argmax(axis=1), twin.argmax(axis=1)
        with np.errstate(invalid="ignore"):  # inf - inf
            apart = np.minimum(base[rows, a] - base[rows, b], twin[rows, b] - twin[rows, a]) - self.noise
            margins = np.where(a == b, np.fmax(_below_second(base), _below_second(twin)), apart)
        scored = np.isfinite(base[rows, a]) & np.isfinite(twin[rows, b])
        return np.where(scored, margins, np.nan)[:, None]

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Learn how much the gap between the label and any other class changes, in either model."""
        self.noise = max(_change(*_gaps(one[name], other[name])) for name in LOGITS)

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return both labels, with their probabilities in both models."""
        return Evidence(*_labels(trace, row))


class TextDisagreement(ForTexts):
    """Find prompts at which the twin leaves the base's output although the base is sure of itself.

    The parting is the first step at which the two would write different symbols. Its margin is the lead of
    the base's symbol over its second there (its top-two gap, in nats), less ``gap`` and the noise floor:
    nearly every prompt leads to some parting, and an unsure one is not a finding. Other rows are graded by
    how much of its lead the base's symbol loses in the twin, at the step up to the parting at which that is
    most: all of it at an unsure parting, otherwise the base's lead less the twin's. For m nats lost the
    margin is gap log(m / gap): twice as much is always the same step up, whether a twin is coarse or fine.
    NaN if a step up to the parting has no numbers. The signature is the kinds of what the base and the twin
    write, such as "letter -> blank"; its variant is what they write, such as "'e' -> ' '".

    Measured with ``directed``, 8 000 executions, at most 3 edits of 200 natural prompts, gap=3, on the
    bundled model: the largest gap at a parting from an int4 twin was 4.8 to 5.2 nats in three trials; it
    was 2.2 to 2.9 when rows that part were graded by their gap and the others by the twin's lead, and 2.3
    to 3.7 for ``walk``.
    """

    needs = frozenset({
        "base_gap", "twin_lead", "parting", "parting_symbols", "text", "base/text", "base/tokens",
        "token_ends",
    })  # fmt: skip
    targets = ("parting",)

    def __init__(self, gap: Positive = 1.0) -> None:
        self.gap, self.noise = gap, 0.0

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        gaps, leads, parting = trace["base_gap"], trace["twin_lead"], trace["parting"]
        rows, steps = np.arange(len(gaps)), np.arange(gaps.shape[1])
        parted, at = parting >= 0, np.maximum(parting, 0)
        upto = steps <= np.where(parted, parting, len(steps))[:, None]
        losses = gaps - np.maximum(leads, 0)
        most = np.max(losses, axis=1, where=upto & ~np.isnan(losses), initial=_LEAST)
        near = np.minimum(self.gap * np.log(most / self.gap), _NEARLY)
        sure = gaps[rows, at] - self.gap - self.noise
        # If the twin's own lead is within the noise, it has not parted for certain.
        hit = parted & (leads[rows, at] < -self.noise) & (sure > 0)
        lost = np.isnan(losses) & upto & (trace["base/tokens"] != PAD)
        return np.where(lost.any(axis=1), np.nan, np.where(hit, sure, near))[:, None]

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Learn how much the lead of a symbol changes, in either model."""
        self.noise = max(_change_along(one, other, name) for name in ("base_gap", "twin_lead"))

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return both symbols, how sure each model is of its own, and both texts; the span is the twin's."""
        step = int(trace["parting"][row])
        base, twin = (str(symbol) for symbol in trace["parting_symbols"][row])
        texts = str(trace["base/text"][row]), str(trace["text"][row])
        place = len(commonprefix(texts))  # noqa: RUF071
        shown = [text[max(0, place - AROUND) : place + AROUND] for text in texts]
        words = (
            f"at step {step + 1} the base writes '{base}', ahead by {trace['base_gap'][row, step]:.2f} nats:"
            f" '{shown[0]}'; the twin '{twin}', by {-trace['twin_lead'][row, step]:.2f}: '{shown[1]}'"
        )
        ends = trace["token_ends"][row]
        span = (int(ends[step - 1]) if step else 0, min(int(ends[step]), len(texts[1])))
        bad = span if span[0] < span[1] else None
        return Evidence(f"{kind_of(base)} -> {kind_of(twin)}", words, bad, f"'{base}' -> '{twin}'")


class Divergence:
    """Find inputs for which the distributions of base and twin differ by more than ``threshold`` nats.

    The margin is (d - threshold) / (d + threshold) for the divergence d less the noise floor, so it is
    between -1 and 1. NaN if a step, or a class, has no number, unless another step hits.

    Args:
        threshold: the divergence that is not a finding yet, in nats.
        measure: "js", the Jensen-Shannon divergence, which is at most ln 2 = 0.69 nats; or "kl",
            KL(base || twin), which has no limit.
        over: "max", the largest divergence of the steps, or "mean", their average.
        of: "text" compares the distributions of every step along the base's own output; "labels" compares
            those of the classes.
    """

    targets = ("divergence",)

    def __init__(
        self, threshold: Positive = 0.1, measure: Measure = "js", over: Over = "max", of: Of = "text"
    ) -> None:
        self.threshold, self.measure, self.over, self.of = threshold, measure, over, of
        self.needs = frozenset({measure, "base/text", "base/tokens"} if of == "text" else LOGITS)
        self.noise = 0.0

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        distance = np.maximum(self._distance(trace).astype(np.float64) - self.noise, 0)
        margins = 1 - 2 * self.threshold / (distance + self.threshold)
        if self.of == "text":
            lost = (np.isnan(trace[self.measure]) & (trace["base/tokens"] != PAD)).any(axis=1)
            margins = np.where(lost & ~(margins > 0), np.nan, margins)
        return margins[:, None]

    def measure_noise(self, one: Trace, other: Trace) -> None:
        """Learn how much the divergence of a step, or of the classes, changes."""
        if self.of == "text":
            self.noise = _change_along(one, other, self.measure)
        else:
            self.noise = _change(self._distance(one), self._distance(other))

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return how much the distributions differ, and for the largest divergence, where."""
        distance = float(self._distance({name: trace[name][row : row + 1] for name in self.needs})[0])
        words = f"{self.measure} {distance:.3g} nats"
        if self.of == "labels":
            signature, labels = _labels(trace, row)
            return Evidence(signature, f"{words}; {labels}")
        if self.over == "mean":
            return Evidence(f"mean {self.measure}", f"{words} on average over the base's output")
        step, text = int(np.nanargmax(trace[self.measure][row])), str(trace["base/text"][row])
        if len(text) != (trace["base/tokens"][row] != PAD).sum() or step >= len(text):
            return Evidence(self.measure, f"{words} at step {step + 1} of the base's output")
        place = f"where the base writes '{text[step]}' after '{text[max(0, step - AROUND) : step]}'"
        return Evidence(self.measure, f"{words} at step {step + 1}, {place}", variant=f"at '{text[step]}'")

    def _distance(self, trace: Trace) -> FloatArray:
        """Return the divergence (B,) to judge by."""
        if self.of == "labels":
            return _divergence(trace[LOGITS[0]], trace[LOGITS[1]], self.measure)
        steps = trace[self.measure]
        if self.over == "max":
            return np.asarray(np.fmax.reduce(steps, axis=1))
        known = ~np.isnan(steps)
        count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        return np.asarray(np.sum(steps, axis=1, where=known, dtype=np.float64) / count)


def kind_of(symbol: str) -> str:
    """Return what a symbol is: a word, letter, digit, blank, mark, line end, or the end of the text."""
    if not (bare := symbol.strip()):
        return "end of text" if not symbol else "line end" if "\n" in symbol else "blank"
    if not bare[0].isalpha():
        return "digit" if bare[0].isdigit() else "mark"
    return "letter" if len(symbol) == 1 else "word"


def _below_second(logits: FloatArray) -> FloatArray:
    """Return the second largest logit (B,) less the largest, of (B, C); -inf if there is only one class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), -np.inf)
    largest = np.partition(logits, -2, axis=1)
    return np.subtract(largest[:, -2], largest[:, -1])


def _gaps(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the logits (B, C) of two runs, each less that of the first run's label."""
    rows, label = np.arange(len(one)), one.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        return one - one[rows, label][:, None], other - other[rows, label][:, None]


def _softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities float64 along the last axis."""
    from scipy.special import softmax  # only here: it takes long to load

    with np.errstate(invalid="ignore"):
        return np.asarray(softmax(logits.astype(np.float64), axis=-1))


def _divergence(base: FloatArray, twin: FloatArray, measure: str) -> FloatArray:
    """Return KL(base || twin), or their Jensen-Shannon divergence, in nats (B,), of logits (B, C)."""
    from scipy.special import rel_entr

    p, q = _softmax(base), _softmax(twin)
    if measure == "kl":
        return np.asarray(rel_entr(p, q).sum(axis=1))
    middle = (p + q) / 2
    return np.asarray((rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2)


def _change(one: FloatArray, other: FloatArray, where: BoolArray | bool = True) -> float:
    """Return the largest difference of two arrays, where both are finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(one.astype(np.float64) - other)
    return float(np.max(difference, where=where & np.isfinite(difference), initial=0))


def _change_along(one: Trace, other: Trace, channel: str) -> float:
    """Return the largest change of a channel (B, T) while the base writes the same in both runs."""
    steps = min(one[channel].shape[1], other[channel].shape[1])
    same: Array = one["base/tokens"][:, :steps] == other["base/tokens"][:, :steps]
    same = np.logical_and.accumulate(np.pad(same[:, :-1], [(0, 0), (1, 0)], constant_values=True), axis=1)
    return _change(one[channel][:, :steps], other[channel][:, :steps], same)


def _labels(trace: Trace, row: int) -> tuple[str, str]:
    """Return signature and words for the labels of both models."""
    base, twin = (_softmax(trace[name][row]) for name in LOGITS)
    a, b = int(base.argmax()), int(twin.argmax())
    seconds = [b, a] if a != b else [int(part.argsort()[-2:][0]) for part in (base, twin)]
    said = [
        f"{name}: {label} {part[label]:.2f}, {second} {part[second]:.2f}"
        for name, part, label, second in zip(("base", "twin"), (base, twin), (a, b), seconds, strict=True)
    ]
    return f"{a} -> {b}", "; ".join(said)
