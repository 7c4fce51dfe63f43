"""How fast is a campaign on a causal language model against ``generate``, and what does it cost itself?"""

import statistics
import time
from dataclasses import dataclass
from functools import partial

from benchmarks.campaigns import assembled
from benchmarks.causal_models import Plain, Subject, prompts, settings_of, subjects, target_of
from benchmarks.figures import Measured, Options, Wrong, noted, spread
from benchmarks.speed import Slice, outside, watched
from benchmarks.ties import partings
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.types import Batch

NEW = 50
BATCHES = (64, 256)  # rows of a campaign; generate always gets 64 at a time
EQUAL, MIXED = (32, 32), (8, 128)  # tokens of prompts
# They keep the lengths. No word of the list is near: no row is run again alone, and none is graded.
SETTINGS = {
    "search": "walk", "operators": ["substitute", "swap"], "objectives": ['phrases:words=["qzxqzxqzxqzx"]'],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: rows in a slice, slices, steps before them, new tokens, lengths of prompts."""

    rows: int
    slices: int
    warm_up: int
    new: int
    batches: tuple[int, ...]
    equal: tuple[int, int]
    mixed: tuple[int, int]


def extent(options: Options) -> Extent:
    """Small for ``quick``; on a GPU also a batch that fills it, in fewer slices: generate is slow there."""
    if options.quick:
        return Extent(8, 2, 1, 3, (4, 8), (6, 6), (3, 9))
    if options.device != "cpu":
        return Extent(512, 2, 1, NEW, (64, 256, 1024), EQUAL, MIXED)
    return Extent(256, 8, 1, NEW, BATCHES, EQUAL, MIXED)


def measure_speed(keys: list[str], options: Options) -> dict[str, Measured]:
    """``causal_vs_generate`` and ``causal_vs_generate_mixed``: of the models measured the worst."""
    how, found = extent(options), {}
    with subjects(options) as models:
        for key in keys:
            lengths = how.mixed if key.endswith("mixed") else how.equal
            ratios, lines = [], [_about(options, lengths, how)]
            for model in models:
                ratio, said = raced(model, lengths, how)
                ratios.append(ratio)
                lines += said
            found[key] = Measured(min(ratios), tuple(lines))
    return found


def _about(options: Options, lengths: tuple[int, int], how: Extent) -> str:
    least, most = lengths
    tokens = f"{least}" if least == most else f"{least} to {most}"
    return (
        f"{options.device}, prompts of {tokens} tokens, {how.new} new ones, greedy, no end of text, search"
        " walk with operators that keep lengths; generate gets the same rows, 64 at a time as they come"
        + ("" if least == most else ", padded on the left")
    )


def raced(model: Subject, lengths: tuple[int, int], how: Extent) -> tuple[float, list[str]]:
    """How many times as fast a campaign is at the best of its batch sizes, and lines on all of them."""
    target = target_of(model, how.new, lengths[1], endless=True)
    seeds, plain = prompts(target, how.batches[-1], *lengths), Plain(model, how.new)
    equal, ratios, lines = _same(target, plain, seeds), [], []
    for size in how.batches:
        settings = settings_of(model, how.new, lengths[1]) | SETTINGS | {"batch": size}
        with assembled(seeds, target, **settings) as (campaign, store):
            steps = max(1, how.rows // size)
            slices = watched(campaign, store, steps, how.slices, how.warm_up, partial(seconds, target, plain))
        ratios.append(statistics.median(s.other / s.wall for s in slices))
        lines.append(noted(f"{model.name}, --batch {size}: {told(slices)}"))
    return max(ratios), [*lines, f"{model.name}: {equal}"]


def told(slices: list[Slice]) -> str:
    """Ratio and prompts/s of a campaign against something else."""
    ratios = [s.other / s.wall for s in slices]
    ours = statistics.median(s.rows / s.wall for s in slices)
    theirs = statistics.median(s.rows / s.other for s in slices)
    return (
        f"{statistics.median(ratios):.2f}x ({spread(ratios, '{:.2f}x'.format)} in {len(slices)} slices),"
        f" {rate(ours)} against {rate(theirs)} prompts/s"
    )


def rate(value: float) -> str:
    """A number per second, small ones with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def seconds(target: CausalLM, plain: Plain, batches: list[Batch]) -> float:
    """Wall seconds of ``generate`` for the rows of batches, in the order in which they came."""
    rows = [row for batch in batches for row in target._prompts(batch)]
    started = time.perf_counter()
    plain.write(rows)  # its tokens are on the CPU at the end
    return time.perf_counter() - started


def _same(target: CausalLM, plain: Plain, seeds: list[str]) -> str:
    """Whether both write the same; Wrong where no tie explains that they do not. Warms both up."""
    batch = Batch.of([target.space.encode(seed) for seed in seeds[:64]])
    ours = target.decode(batch, frozenset({"logits"}))
    tokens, logits = plain.write(ours.prompt, logits=True)
    parted, noise = partings(ours.tokens.cpu(), tokens, ours.logits.cpu(), logits, target.reader.dtype)
    if odd := [one for one in parted if not one.tied]:
        raise Wrong(
            f"{target.name} and generate wrote different tokens at step {odd[0].step}, where the two best"
            f" logits are {odd[0].gap:.2g} apart and the two ways differ by {odd[0].noise:.2g}"
        )
    if not parted:
        return f"tokens equal to generate's in {len(batch)} rows (logits differ by {noise:.1g} at most)"
    return (
        f"tokens equal to generate's in {len(batch) - len(parted)} of {len(batch)} rows; the others part at a"
        f" tie (gap {max(one.gap for one in parted):.1g} at most, logits differ by {noise:.1g} at most)"
    )


def measure_overhead(keys: list[str], options: Options) -> dict[str, Measured]:
    """``causal_overhead_share``: default objectives, search directed, a trained model where there is one.

    Random weights write loops nearly everywhere: each is run again alone, which is much time in the model.
    """
    how, values, lines = extent(options), [], []
    with subjects(options) as models:
        for model in [one for one in models if one.trained] or models:
            target = target_of(model, how.new, how.mixed[1], endless=False)
            seeds = prompts(target, how.batches[-1], *how.equal)
            settings = settings_of(model, how.new, 2 * how.equal[1])
            steps = 2 if options.quick else 24
            with assembled(seeds, target, **settings) as (campaign, store):
                slices = watched(
                    campaign, store, steps, 2 if options.quick else 6, how.warm_up, lambda _: 0.0
                )
                hits = len(campaign.kept)
            value, said = outside(slices)
            speed = statistics.median(s.rows / s.wall for s in slices)
            lines.append(
                noted(f"{model.name}: {said[0]}; {said[1]}; {rate(speed)} prompts/s, {hits} findings")
            )
            values.append(value)
    return {keys[0]: Measured(max(values), tuple(lines))}
