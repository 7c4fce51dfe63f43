"""Campaigns in turns with another program on the same rows."""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.campaigns import assembled
from benchmarks.causal import SETTINGS, told
from benchmarks.causal_models import Subject, prompts, settings_of, subjects, target_of
from benchmarks.figures import Measured, Options, noted, percent
from benchmarks.peers import PEERS, Peer, python_of, running
from benchmarks.speed import watched
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.types import Batch


@dataclass(frozen=True, slots=True)
class Race:
    """How much is measured: batches of a campaign, its rows in a slice, slices, steps before, lengths."""

    batches: tuple[int, ...] = (64, 256)
    rows: int = 256
    slices: int = 3
    warm_up: int = 1
    lengths: tuple[int, int] = (8, 64)
    sample: int = 32  # rows of a slice that the other program gets, the first ones: it takes them one by one


QUICK = Race((4,), 4, 2, 1, (3, 8), 4)


def measure(key: str, envs: Path, options: Options) -> Measured:
    """``causal_vs_PEER``: prompts/s of a campaign against the peer's, of the models measured the worst."""
    peer, race = PEERS[key], QUICK if options.quick else Race()
    if options.quick:
        peer = replace(peer, new=min(peer.new, 3))
    python, ratios = python_of(envs, key), []
    least, most = race.lengths
    lines = [f"{peer.name}: {peer.ran}; prompts of {least} to {most} tokens, {peer.new} new"]
    with subjects(options) as models:
        for model in models:
            ratio, said = raced(model, peer, python, race)
            ratios.append(ratio)
            lines += said
    return Measured(min(ratios), tuple(lines))


def raced(model: Subject, peer: Peer, python: Path, race: Race) -> tuple[float, list[str]]:
    """How many times as fast a campaign is at the best of its batch sizes, and lines on all of them."""
    target, lines, ratios = target_of(model, peer.new, race.lengths[1], endless=True), [], []
    seeds = prompts(target, race.batches[-1], *race.lengths)
    with running(python, peer, model.folder, peer.new) as loop:
        first = loop.run(seeds[: max(2, race.sample // 8)])  # what it does once is not counted

        def against(batches: list[Batch]) -> float:
            texts = [text for batch in batches for text in space.texts(batch)]
            some = texts[: race.sample]
            return float(loop.run(some)["seconds"]) * len(texts) / len(some)

        for size in race.batches:
            settings = settings_of(model, peer.new, race.lengths[1]) | SETTINGS | {"batch": size}
            with assembled(seeds, target, **settings) as (campaign, store):
                assert isinstance(campaign.space, TextSpace)
                space = campaign.space
                steps = max(1, race.rows // size)
                slices = watched(campaign, store, steps, race.slices, race.warm_up, against)
            ratios.append(statistics.median(s.other / s.wall for s in slices))
            lines.append(noted(f"{model.name}, --batch {size}: {told(slices)}"))
        share = percent(statistics.median(loop.inside))
        lines.append(f"{model.name}: {peer.name} is {share} of its time in the model")
    if first["texts"]:
        batch = Batch.of([target.space.encode(seed) for seed in seeds[: len(first["texts"])]])
        ours_texts = target.run(batch, frozenset({"text"}))["text"]
        pairs = zip(ours_texts, first["texts"], strict=True)
        equal = sum(theirs.strip().endswith(own.strip()) for own, theirs in pairs)
        lines.append(
            f"{model.name}: {equal} of {len(batch)} texts are equal, white space at their ends aside"
        )
    return max(ratios), lines
