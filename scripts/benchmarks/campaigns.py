"""The campaigns that are measured: real parts, from the spec to the store."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np

from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.inputs.seeds import read
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Target
from lmfuzz.spec import Spec
from lmfuzz.storage.store import Store
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.types import Finding, IntArray, Step

OWN = "python:target"  # what a spec calls a target that is given
ENDLESS = "1000000000x"  # the measurement stops the campaign


class Eye:
    """A watch that hands every step to a function."""

    def __init__(self, step: Callable[[Step], None]) -> None:
        self.step = step

    def note(self, line: str) -> None:
        """Not shown."""

    def found(self, number: int, finding: Finding) -> None:
        """Not shown."""


@contextmanager
def assembled(
    seeds: Sequence[str], target: Target | None = None, **settings: object
) -> Iterator[tuple[Campaign, Store]]:
    """A calibrated campaign and its store, in a folder that is gone afterwards.

    target: instead of the one that the settings name.
    """
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        file = Path(folder) / "seeds.jsonl"
        file.write_text("".join(json.dumps({"prompt": seed}) + "\n" for seed in seeds), encoding="utf-8")
        if target is not None:  # how it is loaded was said where it was made
            made = {field.name for field in fields(HFOptions)}
            settings = {"model": OWN, **{key: settings[key] for key in settings.keys() - made - {"model"}}}
        spec = Spec(**{"budget": ENDLESS, "seeds": [str(file)], **settings})  # type: ignore[arg-type]
        campaign = Campaign.begin(build(spec, {OWN: target}))
        with campaign.create(Path(folder) / "campaign") as store:
            yield campaign, store


def corpus_text(space: TextSpace) -> IntArray:
    """The bundled seed prompts, one line each, as symbols (N,)."""
    return space.encode("\n".join(space.texts(read([], space).batch)))


def windows(text: IntArray, rows: int, width: int, rng: np.random.Generator) -> IntArray:
    """Windows (rows, width) of a text (N,)."""
    starts = rng.integers(len(text) - width, size=rows)
    cut: IntArray = text[starts[:, None] + np.arange(width)]
    return cut


def window_prompts(space: TextSpace, rows: int, width: int) -> list[str]:
    """Distinct windows of the bundled seed prompts."""
    cut = windows(corpus_text(space), 2 * rows, width, np.random.default_rng(0))
    return list(dict.fromkeys(space.decode(row) for row in cut))[:rows]
