"""Two models that should behave the same, as one target."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import Space, TextSpace
from lmfuzz.protocols import Target
from lmfuzz.types import Array, Batch, FloatArray, IntArray, Trace

BASE, TWIN = "base/", "twin/"


class Pair:
    """The twin is the model under test, the base its reference; both see the same rows.

    Channels: all of the base's as base/NAME, of the twin's as twin/NAME, and, without a prefix, the
    twin's again; families, too (base/phrase_gap/...). text is the twin's, or of two classifiers such as
    "base 7 (0.52), twin 3 (0.51)". A model runs once where something of it is wanted, else not at all.

    sample: the base's, where it can write. margin_gradients: those of both models added up, where both have
    them, else of the one that has. TargetError when the two do not take the same rows, or
    have not as many classes.
    """

    def __init__(self, base: Target, twin: Target) -> None:
        _same_rows(base.space, twin.space)
        classes = [len(getattr(model, "classes", ())) for model in (base, twin)]
        if classes[0] != classes[1]:
            raise TargetError(
                f"the twin has {classes[1]} classes, its base {classes[0]}; a pair needs the same in both"
            )
        self.base, self.twin, self.space = base, twin, base.space
        self.channels = twin.channels | named(base.channels, BASE) | named(twin.channels, TWIN)
        self.identity = hashlib.sha256(f"{base.identity} {twin.identity}".encode()).hexdigest()[:16]
        self._labels = all({"label", "text"} <= model.channels for model in (base, twin))
        if hasattr(base, "sample"):
            self.sample = base.sample
        self._smooth = [model for model in (base, twin) if hasattr(model, "margin_gradients")]
        if self._smooth:
            self.margin_gradients = self._margin_gradients

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


def named(channels: frozenset[str], prefix: str) -> frozenset[str]:
    """The channels with ``prefix``."""
    return frozenset(prefix + name for name in channels)


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


def _same_rows(base: Space, twin: Space) -> None:
    """TargetError that says what differs."""
    if type(base) is not type(twin):
        kinds = ["texts" if isinstance(space, TextSpace) else "tensors" for space in (twin, base)]
        raise TargetError(
            f"the twin reads {kinds[0]}, its base {kinds[1]}; a pair needs the same rows for both"
        )
    for field in fields(base):
        one, other = getattr(base, field.name), getattr(twin, field.name)
        if one == other:
            continue
        if field.name == "tokens":
            raise TargetError(
                "the twin has another tokenizer, or another template, than its base: rows of tokens would"
                " mean something else to it; compare them with --level char"
            )
        if field.name != "symbols":
            raise TargetError(
                f"the twin takes rows of {field.name} {other}, its base of {field.name} {one};"
                " a pair needs the same rows for both"
            )
        odd = sorted(set(one) ^ set(other))
        differs = f"only one of them has {odd[0]!r}" if odd else "their symbols come in another order"
        raise TargetError(
            f"the twin's alphabet has {len(other)} symbols, its base's {len(one)}, and {differs};"
            " a pair needs the same alphabet in both"
        )
