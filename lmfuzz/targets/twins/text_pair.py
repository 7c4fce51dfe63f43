"""Two language models on the same prompts, and where the twin parts from what its base writes."""

from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Target
from lmfuzz.targets.rnn.target import Decoding
from lmfuzz.targets.twins.pair import BASE, TWIN, Pair, prefixed, split
from lmfuzz.types import Array, Batch, Trace

LARGEST = 2**26  # logits at once: rows beyond that come in parts
CHANNELS = frozenset({"base_gap", "twin_lead", "kl", "js", "parting", "parting_symbols"})


class Written(Protocol):
    """What decoding B prompts for T steps led to."""

    @property
    def tokens(self) -> Tensor:
        """What was written, int64 (T, B)."""

    @property
    def logits(self) -> Tensor:
        """What it was chosen by, without noise, float32 (T, B, V)."""

    @property
    def prompt(self) -> Any:
        """What ``follow`` needs so as not to read the prompts again."""


class Writer(Target, Protocol):
    """A target that shows how it writes, and follows what another has written; RNNTarget is one."""

    space: TextSpace
    decoding: Decoding
    vocabulary: tuple[str, ...]  # the text of each token that it writes

    def decode(self, batch: Batch, wants: frozenset[str]) -> Written:
        """Read the prompts and write, keeping what ``wants`` will need; "logits" is one of them."""

    def show(self, batch: Batch, decoded: Any, wants: frozenset[str]) -> Trace:
        """The wanted channels of what ``decode`` was asked for with these wants."""

    def follow(self, batch: Batch, tokens: Tensor, prompt: Any = None) -> Tensor:
        """Logits (T, B, V) after the prompts and each prefix of ``tokens`` (T, B)."""

    def noisy(self, logits: Tensor) -> Tensor:
        """The logits (T, B, V) that decoding takes the largest of."""

    def going(self, tokens: Tensor) -> Tensor:
        """Which steps (T, B) bool of ``tokens`` (T, B) are decoded, as stop strings say."""


class TextPair:
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

    def __init__(self, base: Writer, twin: Writer) -> None:
        self._pair = Pair(base, twin)
        _same_decoding(base.decoding, twin.decoding)
        self.base, self.twin, self.space = base, twin, base.space
        self.channels = self._pair.channels | CHANNELS
        self.identity = self._pair.identity
        if hasattr(self._pair, "sample"):
            self.sample = self._pair.sample

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""
        own = wants & CHANNELS
        if not own:
            return self._pair.run(batch, wants)
        size = max(1, LARGEST // (self.base.decoding.max_new * len(self.base.vocabulary)))
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
        choice = self.twin.noisy(followed)
        steps: dict[str, Tensor] = {}
        if "base_gap" in own:
            first, second = self.base.noisy(written.logits).topk(2, dim=2).values.unbind(dim=2)
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


def _divergences(base: Tensor, twin: Tensor) -> dict[str, Tensor]:
    """KL(base || twin) and Jensen-Shannon divergence (T, B) of logits (T, B, V): exactly 0 for equal ones."""
    p, q = torch.log_softmax(base, dim=2), torch.log_softmax(twin, dim=2)
    ratio = p - q
    p, q = p.exp(), q.exp()
    middle = ((p + q) / 2).clamp(min=torch.finfo(torch.float32).tiny)
    halves = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    kl = torch.where(p == 0, p, p * ratio).sum(dim=2)  # 0 log 0 = 0, whatever the twin says there
    return {"kl": kl.clamp(min=0), "js": (halves.sum(dim=2) / 2).clamp(min=0)}


def _same_decoding(base: Decoding, twin: Decoding) -> None:
    """TargetError that says what differs."""
    for field in fields(base):
        one, other = getattr(base, field.name), getattr(twin, field.name)
        if one != other:
            raise TargetError(
                f"the twin decodes with {field.name} {other!r}, its base with {one!r}; a pair needs the same"
                " decoding in both"
            )
