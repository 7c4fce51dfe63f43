"""Tokens that a model hardly saw in training: an indicator says where to look, the model itself decides."""

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

LEAST = 0.01  # a model cannot say a token of a smaller probability
VERDICTS = UNDER_TRAINED, UNUSED, SUSPICIOUS, FINE = ("under-trained", "unused", "suspicious", "fine")
FIXED = {"level": "token", "template": "raw", "max_length": 1, "max_new": 1}  # settings of every scan
HEAD = ("id", "indicator", "norm", "probability", "verdict", "kind", "text")
_MUTE = 0.25  # share of ordinary tokens; a model that cannot say more of them does not repeat what it reads
_FORMS = ("{:.4f}", "{:.4f}", "{:.2e}")  # of the columns of numbers
_TEXT = 24  # characters of a token on a line


class Scan:
    """Ask the spec's model about each of its tokens, while one iterates over this.

    Each turn is a batch, and yields how many tokens it had; ``len`` is how many there are.

    Attributes:
        ids: the tokens, int (N,); all arrays below have their order.
        indicators: low for suspicious tokens, float32 (N,); see Vocabulary.
        norms: the norms of the input embeddings, float32 (N,).
        probability: the largest probability of the token after it was read again and again, float32 (N,); see
            Repeating. NaN if the model gives no number, or was not asked yet.

    Raises:
        UsageError: the model is not a Hugging Face causal language model.
        TargetError: the model cannot be loaded.
    """

    def __init__(self, spec: Spec) -> None:
        from lmfuzz.targets.hf.repeat_probe import Repeating  # only when it is used: it loads torch

        target: Any = _loaded(spec)
        self.spec, self.vocabulary = spec, target.lexicon
        self.identity: str = target.identity
        self.ids: IntArray = self.vocabulary.ids
        self.indicators: FloatArray = self.vocabulary.indicator[self.ids]
        self.norms: FloatArray = self.vocabulary.norms[self.ids]
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

    @cached_property
    def verdicts(self) -> list[str]:
        """The verdict on each token (N,), once the model was asked about all of them.

        suspicious: the indicator is among the lowest 2 % of ordinary tokens. under-trained: the probability
        is below 1 % too; both limits are those of Land & Bartolo 2024 (arXiv 2405.05417). unused: both hold
        for a special token, or for one that the tokenizer makes of no text; it may be meant to be so. The
        paper leaves these out, and also parts of characters, which the tokenizer does make of texts.
        """
        fine, said = self.indicators > self.vocabulary.threshold, self.probability >= LEAST
        never = np.isin(self.ids, self.vocabulary.unspelled)
        return np.select([fine, said, never], [FINE, SUSPICIOUS, UNUSED], UNDER_TRAINED).tolist()

    @property
    def found(self) -> int:
        """How many tokens are under-trained."""
        return self.verdicts.count(UNDER_TRAINED)

    @property
    def mute(self) -> float:
        """The share of ordinary tokens whose probability is below 1 %; if it is large, that says little."""
        ordinary = np.array([self.vocabulary.kinds[i] == "ordinary" for i in self.ids])
        return float((~(self.probability[ordinary] >= LEAST)).mean()) if ordinary.any() else 0.0

    # -- what is shown --

    def record(self) -> dict[str, Any]:
        """Return everything for machines: ``tokens`` by their ids."""
        counts, known = Counter(self.verdicts), self.vocabulary
        numbers = (self.indicators, self.norms, self.probability)
        values = zip(self.ids.tolist(), *numbers, self.verdicts, strict=True)
        return {
            "model": self.spec.model, "identity": self.identity, "indicator": known.measure,
            "threshold": _number(known.threshold), "repeats": self._repeating.repeats,
            "tied": known.tied, "known_unused": len(known.unused), "mute": _number(self.mute),
            "counts": {verdict: counts[verdict] for verdict in VERDICTS},
            "tokens": [
                {
                    "id": i, "name": known.names[i], "text": known.texts[i], "kind": known.kinds[i],
                    "indicator": _number(indicator), "norm": _number(norm),
                    "probability": _number(probability), "verdict": verdict,
                }
                for i, indicator, norm, probability, verdict in values
            ],
        }  # fmt: skip

    def lines(self, top: int) -> Iterator[str]:
        """Yield the ``top`` most suspicious tokens, for a person: under-trained first, then by indicator."""
        counts = Counter(self.verdicts)
        yield (
            f"{plural(len(self), 'token')}: {counts[UNDER_TRAINED]} under-trained, {counts[SUSPICIOUS]} more"
            f" suspicious, {counts[UNUSED]} unused on purpose or out of reach"
        )
        yield (
            f"indicator: {self.vocabulary.measure}, suspicious up to {self.vocabulary.threshold:.4g};"
            f" probability: the largest one of the token after up to {self._repeating.repeats} readings of it"
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
            yield f"and {len(self) - top} more (--top {len(self)} or --json shows all)"

    def _cells(self, place: int) -> list[str]:
        i, known = int(self.ids[place]), self.vocabulary
        part = "\ufffd" in known.texts[i]  # a part of a character: the tokenizer's own name says more
        text = cut(escape(known.names[i] if part else known.texts[i]), _TEXT)
        values = (self.indicators[place], self.norms[place], self.probability[place])
        numbers = [form.format(value) for form, value in zip(_FORMS, values, strict=True)]
        return [str(i), *numbers, self.verdicts[place], known.kinds[i], f'"{text}"']


def _loaded(spec: Spec) -> Any:
    """The target; settings of models of tokens are refused by any other kind of model."""
    odd = f"{spec.model} is not a Hugging Face causal language model; lmfuzz tokens reads only those"
    try:
        target = load_target(spec)
    except UsageError:
        raise UsageError(odd) from None
    from lmfuzz.targets.hf.target import CausalLM

    if not isinstance(target, CausalLM):
        raise UsageError(odd)
    return target


def _number(value: float) -> float | None:
    """For JSON, which has no NaN and no infinity; the model is not sure of more than six digits."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
