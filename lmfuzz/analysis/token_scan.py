"""Which tokens a model hardly saw in training: an indicator says where to look, the model itself decides."""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.spec import Spec
from lmfuzz.targets.loading import load_target
from lmfuzz.text import columns, cut, escape, plural
from lmfuzz.types import FloatArray, IntArray

LEAST = 0.01  # a token of a smaller probability is one that the model cannot say
VERDICTS = UNDER_TRAINED, UNUSED, SUSPICIOUS, FINE = ("under-trained", "unused", "suspicious", "fine")
FIXED = {
    "level": "token",
    "template": "raw",
    "max_length": 1,
    "max_new": 1,
}  # of the spec: nothing is written
HEAD = ("id", "indicator", "norm", "probability", "verdict", "kind", "text")
_MUTE = 0.25  # share of ordinary tokens that a model cannot say, from which on that is the model's way
_TEXT = 24  # characters of a token that a line has room for


class Scan:
    """All tokens of the spec's model, which is asked about each of them as one iterates over this.

    Each turn is a batch, and gives how many tokens it had; ``len`` is how many there are. Then there are, in
    the order of ``ids``: ``indicators`` and ``norms`` (see Vocabulary), and ``probability`` float32 (N,), the
    largest with which the model says the token where it just read it again and again (see Repeating), NaN
    where it gives no number, or was not asked yet.

    UsageError where it is no Hugging Face causal language model, TargetError where it cannot be loaded.
    """

    def __init__(self, spec: Spec) -> None:
        from lmfuzz.targets.hf.repeat_probe import Repeating  # only where it is used: it loads torch

        target: Any = _loaded(spec)
        self.spec, self.vocabulary = spec, target.lexicon
        self.identity: str = target.identity
        self.ids: IntArray = self.vocabulary.ids
        self.probability: FloatArray = np.full(len(self.ids), np.nan, np.float32)
        self._repeating = Repeating(target.reader, self.vocabulary.tokens.prefix, spec.batch_tokens)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        done = 0
        for tokens, probability in self._repeating(self.ids):
            self.probability[done : done + len(tokens)] = probability
            done += len(tokens)
            yield len(tokens)

    @property
    def indicators(self) -> FloatArray:
        """Low where a token is suspicious, float32 (N,)."""
        found: FloatArray = self.vocabulary.indicator[self.ids]
        return found

    @property
    def norms(self) -> FloatArray:
        """Of the input embeddings, float32 (N,)."""
        found: FloatArray = self.vocabulary.norms[self.ids]
        return found

    @cached_property
    def verdicts(self) -> list[str]:
        """What is thought of each token, (N,), once all were asked about.

        suspicious: its indicator is among the lowest 2 % of ordinary tokens. under-trained: its probability
        is below 1 %, too; both limits are those of Land & Bartolo 2024 (arXiv 2405.05417). unused: that holds
        for a token that no text makes the tokenizer spell, or a special one: its makers may have meant it so.
        The paper leaves these out, and parts of characters, too, which texts do spell.
        """
        low = self.indicators <= self.vocabulary.threshold
        unsaid = ~(self.probability >= LEAST)
        never = set(self.vocabulary.unspelled.tolist())
        return [
            FINE if not a else SUSPICIOUS if not b else UNUSED if i in never else UNDER_TRAINED
            for i, a, b in zip(self.ids.tolist(), low, unsaid, strict=True)
        ]

    @property
    def found(self) -> int:
        """How many tokens are under-trained."""
        return self.verdicts.count(UNDER_TRAINED)

    @property
    def mute(self) -> float:
        """The share of ordinary tokens whose probability is below 1 %: where it is large that says little."""
        ordinary = np.array([self.vocabulary.kinds[i] == "ordinary" for i in self.ids])
        return float((~(self.probability[ordinary] >= LEAST)).mean()) if ordinary.any() else 0.0

    # -- what is shown --

    def record(self) -> dict[str, Any]:
        """Everything for machines: ``tokens`` by their ids."""
        counts = Counter(self.verdicts)
        columns = (self.ids, self.indicators, self.norms, self.probability, self.verdicts)
        return {
            "model": self.spec.model, "identity": self.identity, "indicator": self.vocabulary.measure,
            "threshold": _number(self.vocabulary.threshold), "repeats": self._repeating.repeats,
            "tied": self.vocabulary.tied, "known_unused": len(self.vocabulary.unused),
            "mute": _number(self.mute),
            "counts": {verdict: counts[verdict] for verdict in VERDICTS},
            "tokens": [
                {
                    "id": int(i), "name": self.vocabulary.names[i], "text": self.vocabulary.texts[i],
                    "kind": self.vocabulary.kinds[i], "indicator": _number(indicator), "norm": _number(norm),
                    "probability": _number(probability), "verdict": verdict,
                }
                for i, indicator, norm, probability, verdict in zip(*columns, strict=True)
            ],
        }  # fmt: skip

    def lines(self, top: int) -> Iterator[str]:
        """The ``top`` most suspicious tokens, for a person: under-trained first, then by the indicator."""
        counts, vocabulary = Counter(self.verdicts), self.vocabulary
        yield (
            f"{plural(len(self), 'token')}: {counts[UNDER_TRAINED]} under-trained, {counts[SUSPICIOUS]} more"
            f" suspicious, {counts[UNUSED]} unused on purpose or out of reach"
        )
        yield (
            f"indicator: {vocabulary.measure}, suspicious up to {vocabulary.threshold:.4g}; probability: the "
            f"largest of the token itself, read {self._repeating.repeats} times"
        )
        if self.mute > _MUTE:
            yield (
                f"the model cannot say {self.mute:.0%} of its ordinary tokens: it does not repeat what it"
                " reads, and under-trained rests on the indicator alone"
            )
        later = np.array([verdict != UNDER_TRAINED for verdict in self.verdicts])
        order = np.lexsort([self.indicators, later])[:top]
        if rows := [self._cells(place) for place in order.tolist()]:
            yield from (f"  {line}" for line in columns([HEAD, *rows], numbers=4))
        if top < len(self):
            yield f"and {len(self) - top} more (--top, --json)"

    def _cells(self, place: int) -> list[str]:
        i = int(self.ids[place])
        part = "\ufffd" in self.vocabulary.texts[i]  # of which only the tokenizer's name says more
        text = cut(escape((self.vocabulary.names if part else self.vocabulary.texts)[i]), _TEXT)
        return [
            str(i), f"{self.indicators[place]:.4f}", f"{self.norms[place]:.4f}",
            f"{self.probability[place]:.2e}", self.verdicts[place], self.vocabulary.kinds[i], f'"{text}"',
        ]  # fmt: skip


def _loaded(spec: Spec) -> Any:
    """The target; the spec says how to use a model of tokens, which no other kind of model understands."""
    odd = f"{spec.model} is no Hugging Face causal language model; lmfuzz tokens looks at the tokens of such"
    try:
        target = load_target(spec)
    except UsageError:
        raise UsageError(odd) from None
    from lmfuzz.targets.hf.target import CausalLM

    if not isinstance(target, CausalLM):
        raise UsageError(odd)
    return target


def _number(value: float) -> float | None:
    """For JSON, which has no NaN and no infinity; six digits are more than the model is sure of."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
