"""Decoding: which tokens follow from logits, and where a text ends.

A target asks a TokenSampler for its tokens, and for the scores of which they are the largest. A new way of
decoding is a field of Decoding and its effect on ``TokenSampler.scores``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.spec import Spec
from lmfuzz.types import PAD, Array, BoolArray, FloatArray, IntArray

CHANNELS = frozenset({
    "text", "tokens", "token_ends", "ended", "logprob", "entropy", "hidden_last", "hidden_mean",
    "hidden_steps", "magnitude", "nonfinite",
})  # fmt: skip
STEPWISE = frozenset({"hidden_mean", "hidden_steps"})  # computed from the states before every token
NEVER = 2**62  # the place of a stop string in a text that has none
_ALWAYS_HASHED = ("max_new", "temperature", "seed", "stop")
_IN_SPEC = {"seed": "decode_seed"}  # settings that have another name in a Spec
_IMPOSSIBLE = -1e4  # nats: a probability of 0, for which 0 log 0 is 0
_EXCLUDED = -1e4  # nats, more than noise adds: gaps still tell which of two excluded tokens is nearer
_MOST_KEPT = 2**24  # numbers of noise: 64 MiB


@dataclass(frozen=True)
class Decoding:
    """Hold the settings of decoding.

    Attributes:
        max_new: How many symbols to write.
        temperature: 0 is greedy decoding. Above 0, tokens are sampled with noise that depends on (seed, step)
            alone, so that the text is a function of the prompt.
        seed: The seed of the noise.
        stop: The output ends before the first of these strings.
        top_k: How many of the most likely tokens to sample from; 0 is all.
        top_p: Nucleus sampling (Holtzman et al. 2020, section 3.1): sample from the most likely tokens that
            have this probability together.
    """

    max_new: int = 50
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def of(cls, spec: Spec) -> "Decoding":
        """Return the settings of a spec."""
        settings: dict[str, Any] = {f.name: getattr(spec, _IN_SPEC.get(f.name, f.name)) for f in fields(cls)}
        return cls(**settings | {"stop": tuple(spec.stop)})

    @property
    def key(self) -> str:
        """Return what identities hash: the settings of 0.3.0, and later ones that are not the default.

        A target thus keeps its identity when a setting is added that it does not use.
        """
        shown = [f for f in fields(self) if f.name in _ALWAYS_HASHED or getattr(self, f.name) != f.default]
        return f"Decoding({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


class TokenSampler:
    """Choose the tokens of the largest scores: logits, to which noise is added for sampling.

    The noise is Gumbel noise: argmax(logits + temperature x noise) is an exact draw from the softmax of
    logits / temperature. It depends on (seed, step) alone, never on a row's place in a batch. One generator
    draws all of it at the start. If ``stepwise``, each step has its own generator, draws its noise when it
    needs it, and keeps it if the noise of all steps takes at most 64 MiB.
    """

    def __init__(
        self, decoding: Decoding, vocabulary: int, device: torch.device | str = "cpu", stepwise: bool = False
    ) -> None:
        self.decoding = decoding
        self._size, self._device = vocabulary, device
        self._kept: dict[int, Tensor] = {}  # step -> noise (V,)
        self._keeps = not stepwise or decoding.max_new * vocabulary <= _MOST_KEPT
        if decoding.temperature and not stepwise:
            self._kept |= enumerate(self._drawn(decoding.seed, (decoding.max_new, vocabulary)))

    def choose(self, step: int, logits: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the tokens int64 (B,) written at a step, from logits (B, V); ``rows`` are not needed."""
        return self.scores(logits, step).argmax(dim=1)

    def scores(self, logits: Tensor, steps: int | Tensor | None = None) -> Tensor:
        """Return the scores (..., V) of logits (..., V); decoding writes the token of the largest.

        Args:
            logits: Logits float32 (..., V).
            steps: The step of the logits: one for all, or one for each, (...). None: the first axis is steps.
        """
        if not self.decoding.temperature:
            return logits
        if steps is None:
            steps = torch.arange(len(logits), device=logits.device)[:, None]
        logits = self._restrict(logits)
        if isinstance(steps, int):
            return logits + self.noise(steps)
        distinct, back = torch.unique(steps, return_inverse=True)
        return logits + torch.stack([self.noise(step) for step in distinct.tolist()])[back]

    def _restrict(self, logits: Tensor) -> Tensor:
        """Lower the logits (..., V) of tokens that top_k and top_p exclude so far that none is chosen.

        The order is that of transformers' ``generate``: temperature, then top_k, then top_p of the rest.
        """
        top_k, top_p = self.decoding.top_k, self.decoding.top_p
        if not top_k and top_p == 1:
            return logits
        scaled = logits / self.decoding.temperature
        if 0 < top_k < scaled.shape[-1]:
            scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[..., -1:], -torch.inf)
        if top_p < 1:
            ordered, places = scaled.sort(dim=-1)  # the least likely first
            outside = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
            outside[..., -1] = False
            scaled = scaled.masked_fill(outside.scatter(-1, places, outside), -torch.inf)
        return logits + _EXCLUDED * scaled.isinf()

    def noise(self, step: int) -> Tensor:
        """Return the noise float32 (V,) of a step, multiplied by the temperature."""
        if step not in self._kept:
            if not self._keeps:
                self._kept.clear()
            self._kept[step] = self._drawn(np.random.SeedSequence([self.decoding.seed, step]), self._size)
        return self._kept[step]

    def _drawn(self, seed: int | np.random.SeedSequence, size: int | tuple[int, int]) -> Tensor:
        rng = np.random.Generator(np.random.PCG64(seed))
        drawn: FloatArray = rng.gumbel(size=size).astype(np.float32) * np.float32(self.decoding.temperature)
        return torch.from_numpy(drawn).to(self._device)


def first_stop(texts: Sequence[str], stops: Sequence[str], past: bool = False) -> IntArray:
    """Return where the first of the ``stops`` begins, or ends if ``past``, in each text, int64 (B,)."""
    places = np.full(len(texts), NEVER)
    for stop in stops:
        found = np.array([text.find(stop) for text in texts])
        places = np.where(found >= 0, np.minimum(places, found + past * len(stop)), places)
    return places


def phrases(wants: Collection[str]) -> tuple[str, ...]:
    """Return the channels of phrase gaps among ``wants``, sorted."""
    return tuple(sorted(name for name in wants if name.startswith("phrase_gap/")))


def spans(symbols: Sequence[str], written: IntArray) -> tuple[IntArray, IntArray]:
    """Return where in the text each of the symbols (B, T) begins and ends, int64 (B, T)."""
    sizes = np.array([len(symbol) for symbol in symbols])[written]
    ends = sizes.cumsum(axis=1)
    return ends - sizes, ends


def characters(
    space: TextSpace, written: IntArray, stops: Sequence[str], end: int | None = None
) -> tuple[dict[str, Array], BoolArray]:
    """Return the channels of text that was written symbol by symbol, and where it had ended.

    Args:
        space: The space whose symbols were written.
        written: What was written, symbols (B, T).
        stops: The stop strings.
        end: The symbol that ends a text.

    Returns:
        The channels text, tokens, ended and token_ends; and bool (B, T), whether a symbol came after the
        beginning of a stop string, or ended the text.
    """
    texts = space.decode_rows(written, np.full(len(written), written.shape[1]))
    starts, ends = spans(space.symbols, written)
    stop = first_stop(texts, stops)
    if end is not None:
        stop = np.minimum(stop, np.where(written == end, starts, NEVER).min(axis=1))
    ended: BoolArray = starts >= stop[:, None]
    trace: dict[str, Array] = {
        "text": np.array([text[:end] for text, end in zip(texts, stop.tolist(), strict=True)], dtype=object),
        "tokens": np.where(ended, PAD, written).astype(np.int32),
        "ended": np.any(ended, axis=1),
        "token_ends": np.where(ended, PAD, np.minimum(ends, stop[:, None])).astype(np.int32),
    }
    return trace, ended


def distribution(
    logits: Tensor, tokens: Tensor, names: Collection[str], ends: Tensor | None = None
) -> dict[str, Tensor]:
    """Return channels of the model's distribution at temperature 1, each float32 (...), in nats.

    Args:
        logits: Logits (..., V).
        tokens: The tokens int64 (...) that were written.
        names: Which of logprob (of the tokens), entropy and end_logprob (of any of the ``ends``) to return;
            other names are ignored.
        ends: The tokens that end a text.
    """
    shown: dict[str, Tensor] = {}
    if not {"logprob", "entropy", "end_logprob"} & set(names):
        return shown
    logs = torch.log_softmax(logits, dim=-1)
    if "logprob" in names:
        shown["logprob"] = logs.gather(-1, tokens[..., None])[..., 0]
    if "entropy" in names:
        shown["entropy"] = -(logs.exp() * logs.clamp(min=_IMPOSSIBLE)).sum(dim=-1)
    if "end_logprob" in names:
        shown["end_logprob"] = logs[..., ends].logsumexp(dim=-1)
    return shown
