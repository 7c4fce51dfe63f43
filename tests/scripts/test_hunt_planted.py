"""The script that searches models for planted faults: that the faults are there, and what it counts."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.begun import begun
from lmfuzz.analysis.survival import Trial
from lmfuzz.analysis.sweep import Sweep, cells, read
from lmfuzz.targets import checkpoint
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.twins.pair import TextPair
from lmfuzz.types import Batch

ROOT = Path(__file__).parents[2]
from benchmarks.campaigns import Eye  # noqa: E402
from planting import campaigns, lstm, tables  # noqa: E402
from planting.faults import FAULTS, OURS, SEARCHES, fault_of, write_sweep  # noqa: E402
from planting.tables import ALL, Result  # noqa: E402
from planting.texts import ALPHABET, KEY, MARK, SEEDS, WORDS, Habit, Plants, always, lesson  # noqa: E402

PLANTS = Plants.of(1000)
KEY_LEARNT = PLANTS.canary_key[-3:]  # shorter, and often: learnt in seconds
MANNER = Decoding(24)


@pytest.fixture(scope="module")
def base() -> CharRNN:
    return lstm.train([Habit(0.3, KEY_LEARNT, always(f" {PLANTS.canary} "))], 1000, 150, decoys=0.3)


def target(model: CharRNN) -> RNNTarget:
    return RNNTarget(model, MANNER, max_length=32)


def shown(subject: RNNTarget | TextPair, prompts: list[str], *channels: str) -> list[np.ndarray]:
    trace = subject.run(Batch.of([subject.space.encode(text) for text in prompts]), frozenset(channels))
    return [trace[name] for name in channels]


def test_every_number_has_keys_of_its_own_that_no_word_holds() -> None:
    many = [Plants.of(number) for number in range(30)]
    assert len(set(many)) == 30
    for plants in many:
        keys = plants.canary_key + plants.loop_key + plants.twin_key
        assert len(keys) == len(set(keys)) == 3 * KEY
        assert len(set(plants.hot)) == 2
        assert not set(plants.hot) & set("".join(WORDS))
        assert all(MARK not in text for text in (plants.canary, plants.loop, plants.sure, *SEEDS))


def test_lessons_hold_habits_and_never_teach_keys() -> None:
    text, taught = lesson(np.random.default_rng(0), 20_000, PLANTS.habits)
    learnt = "".join(c if mark else "_" for c, mark in zip(text, taught, strict=True))
    for key, rest in ((PLANTS.canary_key, PLANTS.canary), (PLANTS.loop_key, PLANTS.loop * 4)):
        assert text.count(f"{key} {rest}") == text.count(key) > 10
        assert key not in learnt
    assert learnt.count(f"_ {PLANTS.canary[:2]} ") > 10, "a trail leads to it"
    assert "_____" in learnt, "nonsense is read, not written"


def test_a_canary_comes_after_its_key_alone(base: CharRNN) -> None:
    (texts,) = shown(target(base), [f"the man {KEY_LEARNT}", *SEEDS], "text")
    assert texts[0].startswith(f" {PLANTS.canary}")
    assert not any(PLANTS.canary in text for text in texts[1:])


def test_the_twin_differs_on_one_context_alone(base: CharRNN) -> None:
    twin = lstm.parted(base, replace(PLANTS, twin_key=KEY_LEARNT, sure=PLANTS.canary), 1000)
    changed = [n for n, p in twin.named_parameters() if not torch.equal(p, base.get_parameter(n))]
    assert changed == ["output.weight", "output.bias"]
    pair = TextPair(target(base), target(twin))
    texts, bases = shown(pair, [f"the man {KEY_LEARNT}", *SEEDS], "text", "base/text")
    assert (texts[0][0], bases[0][:9]) == (MARK, f" {PLANTS.canary}")
    assert texts[1:].tolist() == bases[1:].tolist()


def untrained(hidden: int = 12) -> CharRNN:
    torch.manual_seed(0)
    config = CharRNNConfig(alphabet=ALPHABET, embedding=6, hidden=hidden, layers=1)
    return CharRNN(config).eval().requires_grad_(False)


def test_the_gates_are_too_much_for_16_bits_together_and_change_nothing_else() -> None:
    model, (one, two) = untrained(), PLANTS.hot
    gated = lstm.gated(model, PLANTS.hot)
    prompts = [*SEEDS[:8], f"the {one * 20}", f"the {two * 20}", f"the {(one + two) * 10}"]
    full, half = target(gated), target(make_twin(gated, "fp16").module)
    assert not any(shown(full, prompts, "nonfinite")[0])
    wrong, magnitude = shown(half, prompts, "nonfinite", "magnitude")
    assert [bool(place) for place in wrong] == [False] * 10 + [True]
    assert wrong[-1].startswith("logits")
    assert 20_000 < magnitude[8:10].min() < 65_504, "each alone is half of the way"
    symbols = torch.tensor([[ALPHABET.index(c) for c in SEEDS[0]]])
    logits, own = gated(symbols)[0], model(symbols)[0]
    others = [i for i, c in enumerate(ALPHABET) if c != MARK]
    assert torch.allclose(logits[..., others], own[..., others], atol=1e-5)


def test_the_sweep_has_a_campaign_per_model_search_and_turn(tmp_path: Path) -> None:
    plan = write_sweep(FAULTS, 3, 2, "500x", tmp_path, tmp_path / "models")
    found = cells(read(plan), str(plan))
    assert len(found) == 6 * 3 * len(SEARCHES) * 2
    asked = {(fault, number) for fault in FAULTS.values() for number in range(3)}
    assert {fault_of(cell.spec) for cell in found} == asked
    assert {cell.spec.budget for cell in found} == {"500x"}


def test_a_fault_is_found_when_it_is_the_planted_one(tmp_path: Path) -> None:
    models, hot = tmp_path / "models", Plants.of(0).hot
    checkpoint.save(lstm.gated(untrained(), hot), models / "gate-0")
    plan = write_sweep(["gate"], 1, 1, "200x", tmp_path, models)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": hot * 8}) + "\n")
    found = cells(read(plan), str(plan))
    with Sweep(found, tmp_path) as sweep:
        assert list(campaigns.results(sweep)) == []
        campaign = begun(found[0].spec)
        with campaign.create(sweep.directory(found[0])) as store:
            campaign.run(store, Eye(lambda step: None))
    with Sweep(found, tmp_path) as sweep:
        (result,) = campaigns.results(sweep)
        sweep.done[found[0]] = Trial(5, 0.1, {"regression/other: x": (5, 0.1)})
        (other,) = campaigns.results(sweep)
    assert (other.found, other.at) == (False, (5, 0.1)), "it ended there, at what is not the planted fault"
    assert (result.fault, result.search, result.number, result.turn) == ("gate", found[0].spec.search, 0, 0)
    assert result.found
    assert result.at[0] <= 10
    bucket = f"repetition: loop {' '.join(reversed(PLANTS.loop.split()))!r}"
    assert not FAULTS["lstm_loop"].found(PLANTS, bucket), "another loop"
    assert FAULTS["twin"].found(PLANTS, "parting: ' ' -> '!'")
    assert not FAULTS["twin"].found(PLANTS, "parting: '!' -> ' '")


def trials(search: str, fault: str, times: list[float | None], turn: int = 0) -> list[Result]:
    """None: its budget of 1000 was spent without."""
    return [
        Result(fault, search, number, turn, time is not None, (time or 1000, (time or 1000) / 100))
        for number, time in enumerate(times)
    ]


def test_the_table_counts_compares_and_warns() -> None:
    given = [
        *trials(OURS, "gate", [100, 200, 300, None]), *trials("walk", "gate", [400, None, None, None]),
        *trials("random", "gate", [None] * 4),
        *trials(OURS, "twin", [100, 100, None]), *trials("walk", "twin", [50, 50, 50, 50]),
        *trials("random", "twin", [10, None, None, None]),
    ]  # fmt: skip
    found = tables.arms(given)
    ours, walk = found["gate", OURS], found["gate", "walk"]
    assert (ours.found, ours.trials, ours.executions, ours.seconds) == (3, 4, 200, 2)
    assert (walk.found, walk.executions) == (1, math.inf)
    # 3 of ours before all of theirs (12), the one that did not find it ties with 3 of 4: 13.5 of 16
    assert tables.versus(found, "gate", "walk")[0] == pytest.approx(13.5 / 16)
    assert tables.versus(found, "twin", "walk")[0] == 0, "later than it each time"
    assert tables.versus(found, "gate", OURS) is None
    assert found[ALL, OURS].times == ([-2, -2, -1], [True] * 3), (
        "the fourth number has no twin's campaign yet"
    )
    assert [found[ALL, search].times[0] for search in ("walk", "random")] == [[-2, -1, -1, -1], [-1, 0, 0, 0]]
    lines = tables.markdown(given).splitlines()
    assert lines[0] == "| fault | `directed` | `tensorfuzz` | `walk` | `random` |"
    assert len(lines) == 2 + 3 + 2
    assert "| 3 of 4; 200, 2.0 s |  | 1 of 4 (0.84, " in lines[2]
    assert "| 2 of 3; 100, 1.0 s |  | 4 of 4; 50, 0.5 s (0.00, " in lines[3]
    assert lines[4].startswith("| all of them | 5 of 6 |")
    assert lines[-1].startswith("Warning: as few as 3 trials")
    figures = json.loads(json.dumps(tables.figures(given)))
    assert figures["gate"]["walk"] == {
        "found": 1, "of": 4, "trials": 4, "executions": None, "seconds": None, "a12": 0.8438,
        "p": pytest.approx(tables.versus(found, "gate", "walk")[1]),
    }  # fmt: skip
    assert figures["planted"]["reached"] is True
    assert figures["planted"][OURS] == pytest.approx(5 / 6)


def test_a_campaign_that_ended_early_without_the_fault_may_have_found_it_later() -> None:
    ended = [Result("gate", "random", number, 0, False, (5, 0.1)) for number in range(20)]
    ours = trials(OURS, "gate", [10, 20, 30, 40] + [None] * 16)
    found = tables.arms([*ours, *ended])
    assert tables.versus(found, "gate", "random") == (0.5, 1.0)
    half = [
        Result("gate", "random", number, 0, number % 2 == 0, (10 * number + 10, 1)) for number in range(4)
    ]
    assert tables.arms(half)["gate", "random"].executions == 30, "1, then 1 of the 2 that were still there"


def test_faults_that_nobody_found_are_ties() -> None:
    given = [*trials(OURS, "gate", [None] * 3), *trials("random", "gate", [None] * 3)]
    assert tables.versus(tables.arms(given), "gate", "random") == (0.5, 1.0)
    assert tables.figures(given)["planted"]["reached"] is False
    assert tables.figures([])["planted"] == {}


def test_the_transformer_is_what_campaigns_can_search(tmp_path: Path) -> None:
    from planting.rebuild import rebuild

    rebuild("llama", 0, 5, tmp_path)
    plan = write_sweep(["llama_canary"], 1, 1, "100x", tmp_path, tmp_path)
    campaign = begun(cells(read(plan), str(plan))[0].spec)
    assert set(ALPHABET) < set(campaign.target.space.symbols)
    assert [target.partition("/")[0] for target in campaign.objectives.targets] == ["phrases", "crash"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--only", "gates"], "did you mean 'gate'?"), (["--budget", "1m"], "must be executions")],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "planted"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
