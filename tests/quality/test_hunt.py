"""Planted bugs are found by ``directed`` with every seed, and not by ``random`` with the same budget."""

import pytest

from helpers.hunting import Quarry, hunt
from lmfuzz.targets import checkpoint, toy
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.sampling import Decoding
from lmfuzz.types import Batch
from quality.plant import FOLDER, LOOP, LOOP_KEY, PHRASE, PHRASE_KEY, WORDS

SEEDS = range(10)
FEWER = range(5)  # random spends its whole budget


def a_toy() -> tuple[Quarry, int]:
    objectives = [f'phrases:words=["{toy.PHRASE}"]', "repetition"]
    return Quarry(
        toy.Toy(phrase_key="xyz", loop_key="vkj"), toy.SEEDS, objectives, [toy.PHRASE, "repetition"]
    ), 16_000


def an_lstm() -> tuple[Quarry, int]:
    target = RNNTarget(checkpoint.load(FOLDER), Decoding(50, temperature=1.0), max_length=32)
    seeds = [f"{first} {second} " for first in WORDS[:12] for second in WORDS[20:24]]
    return Quarry(target, seeds, [f'phrases:words=["{PHRASE}"]', "repetition"], [PHRASE, "repetition"]), 4_000


@pytest.mark.parametrize("quarry", [a_toy, an_lstm])
def test_directed_finds_every_planted_bug_with_every_seed(quarry):
    prey, executions = quarry()
    assert [hunt(prey, "directed", seed, executions) for seed in SEEDS] == [set(prey.bugs)] * len(SEEDS)


@pytest.mark.parametrize("quarry", [a_toy, an_lstm])
def test_random_does_not(quarry):
    prey, executions = quarry()
    found = [hunt(prey, "random", seed, executions) for seed in FEWER]
    assert sum(bugs == set(prey.bugs) for bugs in found) == 0


def test_the_planted_bugs_are_there_and_nowhere_else():
    prey, _ = an_lstm()
    assert not hunt(prey, "random", 0, len(prey.seeds)), "no seed shows one by itself"
    prompts = [prey.target.space.encode(f"the man {key}") for key in (PHRASE_KEY, LOOP_KEY)]
    phrase, loop = prey.target.run(Batch.of(prompts), frozenset({"text"}))["text"]
    assert phrase.startswith(PHRASE)
    assert loop.startswith(LOOP * 3)
