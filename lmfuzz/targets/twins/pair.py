"""Two models that should behave the same, as one target."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import Space, TextSpace
from lmfuzz.protocols import Classifier, Differentiable, HasLexicon, Sampler, Target
from lmfuzz.targets.capabilities import Followable, Written
from lmfuzz.types import Array, Batch, FloatArray, IntArray, Trace

BASE, TWIN = "base/", "twin/"
LARGEST = 2**26  # logits at once: rows beyond that come in parts
CHANNELS = frozenset({"base_gap", "twin_lead", "kl", "js", "parting", "parting_symbols"})  # of a TextPair


class Pair:
    """The twin is the model under test, the base its reference; both see the same rows.

    Channels: all of the base's as base/NAME, of the twin's as twin/NAME, and, without a prefix, the
    twin's again; families, too (base/phrase_gap/...). text is the twin's, or of two classifiers such as
    "base 7 (0.52), twin 3 (0.51)". A model runs once where something of it is wanted, else not at all.

    info, sample and lexicon: the base's, where it has them. margin_gradients: those of both models added
    up, where both have them, else of the one that has, else None. words: how the twin was made, for a note.
    TargetError when the two do not take the same rows, or have not as many classes.
    """

    def __init__(self, base: Target, twin: Target, words: str = "") -> None:
        _same_rows(base.space, twin.space)
        classes = [len(model.classes) if isinstance(model, Classifier) else 0 for model in (base, twin)]
        if classes[0] != classes[1]:
            raise TargetError(
                f"the twin has {classes[1]} classes, its base {classes[0]}; a pair needs the same in both"
            )
        self.base, self.twin, self.space = base, twin, base.space
        made = (f"the twin: {words}",) if words else ()
        self.info = replace(base.info, notes=(*base.info.notes, *made))
        self.channels = twin.channels | {BASE + n for n in base.channels} | {TWIN + n for n in twin.channels}
        self.identity = hashlib.sha256(f"{base.identity} {twin.identity}".encode()).hexdigest()[:16]
        self._labels = all({"label", "text"} <= model.channels for model in (base, twin))
        self._smooth = [model for model in (base, twin) if isinstance(model, Differentiable)]
        self.margin_gradients = self._margin_gradients if self._smooth else None
        self.sample = base.sample if isinstance(base, Sampler) else None
        if isinstance(base, HasLexicon):  # None would not do, as for a method
            self.lexicon = base.lexicon

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""
        both = self._labels and "text" in wants
        of_base, of_twin = split(wants | ({f"{BASE}text"} if both else set()))
        trace: dict[str, Array] = {}
        if of_base:
            trace |= prefixed(self.base.run(batch, of_base), BASE)
        if of_twin:
            shown = self.twin.run(batch, of_twin)
            trace |= {**shown, **prefixed(shown, TWIN)}
        if both:
            trace["text"] = "base " + trace[f"{BASE}text"] + ", twin " + trace[f"{TWIN}text"]
        return {name: trace[name] for name in wants}

    def _margin_gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        values, gradients = zip(
            *(model.margin_gradients(batch, labels) for model in self._smooth), strict=True
        )
        return np.sum(values, axis=0), np.sum(gradients, axis=0)


class TextPair(Pair):
    """A Pair of language models, and what the twin would do along what the base writes.

    Channels besides Pair's, for B prompts and T = max_new steps, all in nats, from one teacher-forced
    pass of the twin along the base's own output (greedy, or sampled with the noise of the decoding):
    base_gap float32 (B, T): the logit of the base's symbol less its next largest; twin_lead (B, T): the
    twin's logit of the same symbol less its largest other, below 0 where it prefers that (both with the
    noise, where there is any); kl, js (B, T): KL(base || twin) and the Jensen-Shannon divergence of the
    distributions at temperature 1; NaN after a stop string. parting int64 (B,): the first step at which
    the twin writes another symbol, -1 where there is none: what the twin writes by itself is the same up
    to there. parting_symbols (B, 2) str: what the base and the twin write there, or ''.

    TargetError when the two do not read the same rows, or do not decode in the same way.
    """

    base: Followable
    twin: Followable

    def __init__(self, base: Followable, twin: Followable, words: str = "") -> None:
        super().__init__(base, twin, words)
        for name, one, other in _differing(base.sampler.decoding, twin.sampler.decoding):
            raise TargetError(
                f"the twin decodes with {name} {other!r}, its base with {one!r}; a pair needs the same"
                " decoding in both"
            )
        self.channels |= CHANNELS

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""
        own = wants & CHANNELS
        if not own:
            return super().run(batch, wants)
        size = max(1, LARGEST // (self.base.sampler.decoding.max_new * len(self.base.vocabulary)))
        parts = [self._run(batch[i : i + size], wants - own, own) for i in range(0, len(batch), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in wants}

    def _run(self, batch: Batch, wants: frozenset[str], own: frozenset[str]) -> Trace:
        of_base, of_twin = split(wants)
        written = self.base.decode(batch, of_base | {"logits"})
        trace: dict[str, Array] = {**prefixed(self.base.show(batch, written, of_base), BASE)}
        prompt = None
        if of_twin:
            free = self.twin.decode(batch, of_twin)
            shown, prompt = self.twin.show(batch, free, of_twin), free.prompt
            trace |= {**shown, **prefixed(shown, TWIN)}
        return trace | self._along(written, self.twin.follow(batch, written.tokens, prompt), own)

    def _along(self, written: Written, followed: Tensor, own: frozenset[str]) -> dict[str, Array]:
        """The ``own`` channels: ``followed`` (T, B, V) are the twin's logits along what was written."""
        tokens, going = written.tokens, self.base.going(written.tokens)
        choice = self.twin.sampler.scores(followed)
        steps: dict[str, Tensor] = {}
        if "base_gap" in own:
            first, second = self.base.sampler.scores(written.logits).topk(2, dim=2).values.unbind(dim=2)
            steps["base_gap"] = first - second
        if "twin_lead" in own:
            at = tokens.clamp(min=0)[:, :, None]
            others = choice.scatter(2, at, -torch.inf).amax(dim=2)
            steps["twin_lead"] = choice.gather(2, at)[:, :, 0] - others
        if own & {"kl", "js"}:
            steps |= _divergences(written.logits, followed)
        trace: dict[str, Array] = {
            name: values.masked_fill(~going, torch.nan).T.cpu().numpy() for name, values in steps.items()
        }
        if own & {"parting", "parting_symbols"}:
            trace |= self._parting(tokens, choice.argmax(dim=2), going)
        return trace

    def _parting(self, tokens: Tensor, twins: Tensor, going: Tensor) -> dict[str, Array]:
        """Where what the base wrote (T, B) and what the twin would write differ first."""
        differ = (tokens != twins) & going
        parts, step = differ.any(dim=0), differ.to(torch.uint8).argmax(dim=0)
        texts = np.array(self.base.vocabulary, dtype=object)
        symbols = torch.stack([part.gather(0, step[None])[0] for part in (tokens, twins)], dim=1)
        return {
            "parting": torch.where(parts, step, -1).cpu().numpy(),
            "parting_symbols": np.where(parts.cpu().numpy()[:, None], texts[symbols.cpu().numpy()], ""),
        }


def pair(base: Target, twin: Target, words: str = "") -> Pair:
    """Return the two as one: a TextPair where the twin can follow what the base writes, token by token.

    Raises:
        TargetError: the two are the same model, or do not fit each other.
    """
    if base.identity == twin.identity:
        raise TargetError("the twin is its base: the same weights, which can differ in nothing")
    if isinstance(base, Followable) and isinstance(twin, Followable) and base.language == twin.language:
        return TextPair(base, twin, words)
    return Pair(base, twin, words)


def split(wants: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What is wanted of the base, and what of the twin, without prefixes."""
    base = {name for name in wants if name.startswith(BASE)}
    return (
        frozenset(name.removeprefix(BASE) for name in base),
        frozenset(name.removeprefix(TWIN) for name in wants - base),
    )


def prefixed(trace: Trace, prefix: str) -> Mapping[str, Array]:
    """The same channels with ``prefix``."""
    return {prefix + name: array for name, array in trace.items()}


def _divergences(base: Tensor, twin: Tensor) -> dict[str, Tensor]:
    """KL(base || twin) and Jensen-Shannon divergence (T, B) of logits (T, B, V): exactly 0 for equal ones."""
    p, q = torch.log_softmax(base, dim=2), torch.log_softmax(twin, dim=2)
    ratio = p - q
    p, q = p.exp(), q.exp()
    middle = ((p + q) / 2).clamp(min=torch.finfo(torch.float32).tiny)
    halves = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    kl = torch.where(p == 0, p, p * ratio).sum(dim=2)  # 0 log 0 = 0, whatever the twin says there
    return {"kl": kl.clamp(min=0), "js": (halves.sum(dim=2) / 2).clamp(min=0)}


def _differing(base: Any, twin: Any) -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two of one dataclass differ: name, the base's, the twin's."""
    both = ((field.name, getattr(base, field.name), getattr(twin, field.name)) for field in fields(base))
    return (found for found in both if found[1] != found[2])


def _same_rows(base: Space, twin: Space) -> None:
    """TargetError that says what differs."""
    if type(base) is not type(twin):
        kinds = ["texts" if isinstance(space, TextSpace) else "tensors" for space in (twin, base)]
        raise TargetError(
            f"the twin reads {kinds[0]}, its base {kinds[1]}; a pair needs the same rows for both"
        )
    for name, one, other in _differing(base, twin):
        if name == "tokens":
            raise TargetError(
                "the twin has another tokenizer, or another template, than its base: rows of tokens would"
                " mean something else to it; compare them with --level char"
            )
        if name != "symbols":
            raise TargetError(
                f"the twin takes rows of {name} {other}, its base of {name} {one};"
                " a pair needs the same rows for both"
            )
        odd = sorted(set(one) ^ set(other))
        differs = f"only one of them has {odd[0]!r}" if odd else "their symbols come in another order"
        raise TargetError(
            f"the twin's alphabet has {len(other)} symbols, its base's {len(one)}, and {differs};"
            " a pair needs the same alphabet in both"
        )
