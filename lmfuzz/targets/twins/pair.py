"""Two models that should behave the same, as one target."""

import hashlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Classifier, Decodes, Differentiable, HasLexicon, Sampler, Target
from lmfuzz.targets.capabilities import Followable, Written
from lmfuzz.types import Array, Batch, FloatArray, IntArray, Trace

BASE, TWIN = "base/", "twin/"
LARGEST = 2**26  # logits at once: rows beyond that come in parts
CHANNELS = frozenset({"base_gap", "twin_lead", "kl", "js", "parting", "parting_symbols"})  # of a TextPair


class Pair:
    """Run a twin, the model under test, and its base, the reference, on the same inputs.

    Channels: all of the base's as base/NAME, of the twin's as twin/NAME, and, without a prefix, the
    twin's again; families, too (base/phrase_gap/...). text is the twin's, or of two classifiers such as
    "base 7 (0.52), twin 3 (0.51)". A model runs once if something of it is wanted, else not at all.

    Its info, sample and lexicon are the base's, if it has them. Its margin_gradients are the sum of both
    models', or those of the one that has them, or None.

    Args:
        base: The reference.
        twin: The model under test.
        words: How the twin was made, for a note.

    Raises:
        TargetError: The two do not take the same inputs, or have different numbers of classes.
    """

    def __init__(self, base: Target, twin: Target, words: str = "") -> None:
        _require_equal(base.space, twin.space)
        classes = [len(model.classes) if isinstance(model, Classifier) else 0 for model in (base, twin)]
        if classes[0] != classes[1]:
            raise TargetError(f"the twin has {classes[1]} classes, its base {classes[0]}; they must be equal")
        self.base, self.twin, self.space = base, twin, base.space
        if isinstance(base.space, TextSpace) and isinstance(twin.space, TextSpace):
            each = base.space.readers, twin.space.readers
            self.space = replace(base.space, readers=sum(each, ()) if all(each) else ())
        made = (f"the twin: {words}",) if words else ()
        clock = base.info.clock or twin.info.clock
        self.info = replace(base.info, notes=(*base.info.notes, *made), clock=clock)
        self.channels = twin.channels | {BASE + n for n in base.channels} | {TWIN + n for n in twin.channels}
        self.identity = hashlib.sha256(f"{base.identity} {twin.identity}".encode()).hexdigest()[:16]
        self._labels = all({"label", "text"} <= model.channels for model in (base, twin))
        self._smooth = [model for model in (base, twin) if isinstance(model, Differentiable)]
        self.margin_gradients = self._margin_gradients if self._smooth else None
        self.sample = base.sample if isinstance(base, Sampler) else None
        if isinstance(base, Decodes) and isinstance(twin, Decodes):
            self.decoding = base.decoding
        if isinstance(base, HasLexicon):  # None would not do, as for a method
            self.lexicon = base.lexicon

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every input."""
        both = self._labels and "text" in wants
        of_base, of_twin = split(wants | ({f"{BASE}text"} if both else set()))
        trace: dict[str, Array] = {}
        if of_base:
            trace |= prefixed(self.base.run(batch.copy(), of_base), BASE)
        if of_twin:
            shown = self.twin.run(batch, of_twin)
            trace |= {**shown, **prefixed(shown, TWIN)}
        if both:
            trace["text"] = "base " + trace[f"{BASE}text"] + ", twin " + trace[f"{TWIN}text"]
        return {name: trace[name] for name in wants}

    def _margin_gradients(self, batch: Batch, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        each = (model.margin_gradients(batch.copy(), labels) for model in self._smooth)
        values, gradients = zip(*each, strict=True)
        return np.sum(values, axis=0), np.sum(gradients, axis=0)


class TextPair(Pair):
    """Run a Pair of language models, and let the twin follow what the base writes.

    Channels besides Pair's, for B prompts and T = max_new steps, all in nats, from one teacher-forced
    pass of the twin along the base's own output (greedy, or sampled with the noise of the decoding):
    base_gap float32 (B, T): the logit of the base's symbol less its next largest; twin_lead (B, T): the
    twin's logit of the same symbol less its largest other, below 0 if it prefers that (both with the
    noise, if there is any); kl, js (B, T): KL(base || twin) and the Jensen-Shannon divergence of the
    distributions at temperature 1; NaN after a stop string. parting int64 (B,): the first step at which
    the twin writes another symbol, -1 if there is none: what the twin writes by itself is the same up
    to there. parting_symbols (B, 2) str: what the base and the twin write there, or ''.

    Raises:
        TargetError: The two do not read the same inputs, or do not decode in the same way.
    """

    base: Followable
    twin: Followable

    def __init__(self, base: Followable, twin: Followable, words: str = "") -> None:
        super().__init__(base, twin, words)
        _require_equal(base.sampler.decoding, twin.sampler.decoding)
        self.channels |= CHANNELS

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every input."""
        own = wants & CHANNELS
        if not own:
            return super().run(batch, wants)
        size = max(1, LARGEST // (self.base.sampler.decoding.max_new * len(self.base.vocabulary)))
        parts = [self._run(batch[i : i + size], wants - own, own) for i in range(0, len(batch), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in wants}

    def _run(self, batch: Batch, wants: frozenset[str], own: frozenset[str]) -> Trace:
        of_base, of_twin = split(wants)
        written = self.base.decode(batch, of_base | {"logits"})
        trace = prefixed(self.base.show(batch, written, of_base), BASE)
        prompt = None
        if of_twin:
            free = self.twin.decode(batch, of_twin)
            shown, prompt = self.twin.show(batch, free, of_twin), free.prompt
            trace |= {**shown, **prefixed(shown, TWIN)}
        return trace | self._along(written, self.twin.follow(batch, written.tokens, prompt), own)

    def _along(self, written: Written, followed: Tensor, own: frozenset[str]) -> dict[str, Array]:
        """Return the ``own`` channels; ``followed`` (T, B, V) are the twin's logits along the output."""
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
        """Return where what the base wrote (T, B) and what the twin would write first differ."""
        differ = (tokens != twins) & going
        parts, step = differ.any(dim=0), differ.to(torch.uint8).argmax(dim=0)
        texts = np.array(self.base.vocabulary, dtype=object)
        symbols = torch.stack([part.gather(0, step[None])[0] for part in (tokens, twins)], dim=1)
        return {
            "parting": torch.where(parts, step, -1).cpu().numpy(),
            "parting_symbols": np.where(parts.cpu().numpy()[:, None], texts[symbols.cpu().numpy()], ""),
        }


def pair(base: Target, twin: Target, words: str = "") -> Pair:
    """Return the two as one: a TextPair if the twin can follow what the base writes, token by token.

    Raises:
        TargetError: The two are the same model, or do not fit each other.
    """
    if base.identity == twin.identity:
        raise TargetError("the twin is its base: the same weights, which cannot differ; name another twin")
    if isinstance(base, Followable) and isinstance(twin, Followable) and base.language == twin.language:
        return TextPair(base, twin, words)
    return Pair(base, twin, words)


def split(wants: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is wanted of the base, and of the twin, without prefixes."""
    base = {name for name in wants if name.startswith(BASE)}
    return (
        frozenset(name.removeprefix(BASE) for name in base),
        frozenset(name.removeprefix(TWIN) for name in wants - base),
    )


def prefixed(trace: Trace, prefix: str) -> dict[str, Array]:
    """Return the same channels with ``prefix``."""
    return {prefix + name: array for name, array in trace.items()}


def _divergences(base: Tensor, twin: Tensor) -> dict[str, Tensor]:
    """Return KL(base || twin) and Jensen-Shannon divergence (T, B) of logits (T, B, V), 0 for equal ones."""
    p, q = torch.log_softmax(base, dim=2), torch.log_softmax(twin, dim=2)
    ratio = p - q
    p, q = p.exp(), q.exp()
    middle = ((p + q) / 2).clamp(min=torch.finfo(torch.float32).tiny)
    halves = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    kl = torch.where(p == 0, p, p * ratio).sum(dim=2)  # 0 log 0 = 0, whatever the twin has there
    return {"kl": kl.clamp(min=0), "js": (halves.sum(dim=2) / 2).clamp(min=0)}


def _require_equal(base: Any, twin: Any) -> None:
    """Raise TargetError if a field differs in two spaces, or two ways of decoding."""
    if type(base) is not type(twin):
        kinds = ["texts" if isinstance(space, TextSpace) else "tensors" for space in (twin, base)]
        raise TargetError(f"the twin reads {kinds[0]}, its base {kinds[1]}; a pair needs the same in both")
    for field in fields(base):
        name, one, other = field.name, getattr(base, field.name), getattr(twin, field.name)
        if one == other or not field.compare:
            continue
        if name == "tokens":
            raise TargetError(
                "the twin has another tokenizer, or another template, than its base: tokens would mean"
                " something else to it; compare them with --level char"
            )
        if name == "symbols":
            odd = ", ".join(map(repr, sorted(set(one) ^ set(other))[:3]))
            raise TargetError(
                f"the twin's alphabet has {len(other)} symbols, its base's {len(one)}, and they differ in"
                f" {odd or 'their order'}; a pair needs the same alphabet in both"
            )
        raise TargetError(f"the twin has {name} {other!r}, its base {one!r}; a pair needs the same in both")
