"""Campaigns of targets that a test made itself."""

from collections.abc import Mapping
from typing import Any

from lmfuzz.campaign.build import Parts, build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.spec import Spec
from lmfuzz.storage.store import Store

MODEL = "python:target"  # what the spec of such a campaign calls its model


def own(target: Any) -> Mapping[str, Any]:
    """The target, under its name."""
    return {} if target is None else {MODEL: target}


def parts(spec: Spec, target: Any = None) -> Parts:
    """What the spec names, made; ``target`` is its model, where it says so."""
    return build(spec, own(target))


def begun(spec: Spec, target: Any = None) -> Campaign:
    """A campaign that is calibrated."""
    return Campaign.begin(parts(spec, target))


def restored(spec: Spec, store: Store, target: Any = None) -> Campaign:
    """A campaign that goes on from the last commit."""
    return Campaign.restore(build(spec, own(target), store.record()), store)
