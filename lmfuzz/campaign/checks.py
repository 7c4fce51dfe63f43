"""Checks that the parts of a campaign fit one another, and the campaign that is resumed."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.protocols import Decodes, Target
from lmfuzz.spec import Spec, option_name
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.types import CRASH, OWN, Batch, unknown


def check_channels(target: Target, needs: Mapping[str, frozenset[str]]) -> None:
    """Raise UsageError if the target lacks a channel; ``needs`` maps "the feature needs" to channels."""
    have = target.channels | OWN | {CRASH}
    for what, wants in needs.items():
        if missing := unknown(wants, have):
            if any(name.startswith("base/") for name in target.channels):
                raise UsageError(f"{what} what this pair does not show; {_comparable(target.space)}")
            if any(name.startswith(("base/", "twin/")) for name in missing):
                raise UsageError(
                    f"{what} two models; add a twin: lmfuzz diff MODEL int8, or lmfuzz image diff MODEL int8"
                )
            lacks = ", ".join(dict.fromkeys(name.split("/", 1)[0] for name in missing))
            shown = ", ".join(sorted(target.channels))
            raise UsageError(f"{what} {lacks}, which the target does not show; it shows {shown}")


def check_decoding(target: Target, spec: Spec) -> None:
    """Raise UsageError if the spec has decoding options, and the target of one's own does not take them."""
    if not isinstance(target, Decodes) and isinstance(target.space, TextSpace):
        for key in ("max_new", "temperature", "top_k", "top_p", "decode_seed", "stop"):
            if getattr(spec, key) != Spec.model_fields[key].get_default(call_default_factory=True):
                raise UsageError(
                    f"{option_name(key)} has no effect: the target {spec.model} decodes by itself; leave that"
                    " out, or give it a method set_decoding(max_new, temperature, seed, stop, top_k, top_p)"
                )


def _comparable(space: Space) -> str:
    """What can be asked of a pair."""
    if isinstance(space, BoxSpace):
        return "for images use disagreement, divergence:of=labels, or regression(OBJECTIVE)"
    return (
        "for texts use regression(OBJECTIVE), and search with directed, walk, random or tensorfuzz; for two "
        "models of the same characters, or two Hugging Face models with the same tokenizer, disagreement and "
        "divergence work too"
    )


def check_same(record: CampaignRecord, target: Target, **names: Iterable[str]) -> None:
    """Raise UsageError unless a campaign was begun with this target, and these targets and operators."""
    if record.identity != target.identity:
        raise UsageError(
            f"the campaign in {record.directory} was begun with another model: that one was "
            f"{record.identity}, this one is {target.identity}; use the model that it was begun with"
        )
    begun = {"targets": record.targets, "operators": record.operators}
    for what, now in names.items():
        if begun[what] != list(now):
            different = ", ".join(sorted({*begun[what]} ^ {*now})) or "their order"
            raise UsageError(
                f"the campaign in {record.directory} was begun with other {what}; what differs: {different}"
            )


def check_rows(state: Any, space: Space, corpus: int) -> None:
    """Raise ValueError if a search has kept rows that are not legal, or that no row of the corpus led to."""
    if isinstance(state, dict) and state.keys() == set(Batch.__slots__):
        rows = Batch(**state)
        last = max(rows.parent.max(initial=-1), rows.origin.max(initial=-1))
        if last >= corpus or not space.legal(rows).all():
            raise ValueError("the search has a row that is not legal, or comes from none in the corpus")
    elif isinstance(state, dict | list):
        for one in state.values() if isinstance(state, dict) else state:
            check_rows(one, space, corpus)
