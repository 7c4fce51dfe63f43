"""A target that raises spoils the rows to blame and no others."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import small_lms
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.types import CRASH, PAD, Batch

BAD = ValueError("bad row 17")
WANTS = frozenset({"text", "hidden", "tokens", "hit", "name"})


class Fragile:
    """Shows simple functions of each row, and raises where a row holds the symbol 9."""

    space = TextSpace(tuple("abcdefghij"))
    channels = frozenset({"text", "hidden", "tokens", "hit", "name", "gap/"})
    identity = "fragile"

    def __init__(self, error=BAD):
        self.error = error
        self.asked = []

    def run(self, batch, wants):
        self.asked.append((len(batch), wants))
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        if ((batch.data == 9) & valid).any():
            raise self.error
        sums = np.where(valid, batch.data, 0).sum(axis=1)
        shown = {
            "text": np.array([f"sum {s}" for s in sums], dtype=object),
            "hidden": np.stack([sums, sums + 1], axis=1).astype(np.float32),
            "tokens": np.stack([sums % 7] * 3, axis=1).astype(np.int32),
            "hit": sums > 20,
            "name": np.array([f"{s:03d}" for s in sums]),
            "gap/x": -sums.astype(np.float32),
        }
        return {name: shown[name] for name in wants}

    def sample(self, batch, new, temperature, rng):
        return rng.integers(9, size=(len(batch), new)).astype(np.int32)


def rows(count=64, bad=()):
    rng = np.random.default_rng(1)
    symbols = [rng.integers(9, size=rng.integers(1, 8), dtype=np.int32) for _ in range(count)]
    for row in bad:
        symbols[row][-1] = 9
    return Batch.of(symbols)


def assert_others_are_as_in_a_clean_run(trace, batch, bad, wants=WANTS):
    good = np.setdiff1d(np.arange(len(batch)), bad)
    clean = LocalExecutor(Fragile()).run(batch[good], wants)
    assert trace.keys() == clean.keys() == wants | {CRASH}
    for name in wants:
        assert len(trace[name]) == len(batch)
        assert trace[name].dtype == clean[name].dtype
        np.testing.assert_array_equal(trace[name][good], clean[name])
    assert (trace[CRASH][good] == "").all()


@pytest.mark.parametrize("bad", [[0], [31], [32], [63], [3, 60], [10, 11], [0, 1, 2, 3], list(range(1, 64))])
@pytest.mark.parametrize("warm", [False, True])
def test_exactly_the_rows_to_blame_are_crashes(bad, warm):
    executor = LocalExecutor(Fragile())
    if warm:
        executor.run(rows(3), WANTS)
    batch = rows(bad=bad)
    trace = executor.run(batch, WANTS)
    assert trace[CRASH][bad].tolist() == ["ValueError: bad row 17"] * len(bad)
    assert_others_are_as_in_a_clean_run(trace, batch, bad)


def test_what_a_crashed_row_shows_cannot_be_mistaken_for_a_result():
    trace = LocalExecutor(Fragile()).run(rows(bad=[5]), WANTS)
    assert trace["text"][5] == ""
    assert trace["name"][5] == ""
    assert np.isnan(trace["hidden"][5]).all()
    assert (trace["tokens"][5] == PAD).all()
    assert not trace["hit"][5]


def test_what_stands_before_an_output_is_the_end_of_the_prompt_or_of_its_template():
    def leads(space, texts):
        target = Fragile()
        target.space = space
        batch = space.batch([space.encode(text) for text in texts])
        return LocalExecutor(target).run(batch, frozenset({"text", "lead"}))["lead"].tolist()

    letters = tuple("abc ")
    assert leads(TextSpace(letters), ["ab", "c "]) == ["b", " "]
    plain, chat = small_lms.tokens(), small_lms.tokens(chat=True)
    assert leads(TextSpace(letters, readers=(plain,)), ["ab", "c "]) == ["b", " "]
    assert leads(TextSpace(letters, readers=(chat,)), ["ab", "c "]) == ["\n", "\n"]
    trimmed = replace(plain, strips=True)
    assert leads(TextSpace(letters, readers=(trimmed,)), ["ab", "c "]) == ["b", "c"]


def test_a_clean_run_is_one_call_without_crashes():
    target = Fragile()
    trace = LocalExecutor(target).run(rows(), WANTS)
    assert target.asked == [(64, WANTS)]
    assert trace[CRASH].tolist() == [""] * 64


def test_one_bad_row_costs_no_more_than_a_bisection():
    target = Fragile()
    executor = LocalExecutor(target)
    executor.run(rows(bad=[40]), WANTS)
    assert len(target.asked) == 13  # 64, then both halves at each of 6 levels
    assert executor.executions == sum(size for size, _ in target.asked) == 64 * 2 + 62


def test_a_row_that_crashes_alone_is_a_crash_once_others_have_run():
    executor = LocalExecutor(Fragile())
    executor.run(rows(4), WANTS)
    trace = executor.run(rows(4, bad=[2]).alone(2), WANTS)
    assert trace[CRASH].tolist() == ["ValueError: bad row 17"]
    assert trace.keys() == WANTS | {CRASH}
    assert all(len(array) == 1 for array in trace.values())


def test_a_batch_of_crashes_alone_is_possible_once_others_have_run():
    executor = LocalExecutor(Fragile())
    executor.run(rows(4), WANTS)
    trace = executor.run(rows(5, bad=range(5)), WANTS)
    assert (trace[CRASH] != "").all()
    assert all(len(trace[name]) == 5 for name in WANTS)


@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_target_that_raises_on_every_row_is_no_target(count):
    executor = LocalExecutor(Fragile())
    with pytest.raises(TargetError, match=r"every row.*ValueError: bad row 17"):
        executor.run(rows(count, bad=range(count)), WANTS)


@pytest.mark.parametrize("bad", [[2], [0, 1, 2, 3]])
def test_a_crash_in_a_run_that_wants_other_channels_than_the_first(bad):
    executor = LocalExecutor(Fragile())
    executor.run(rows(4), frozenset({"text"}))
    wants = frozenset({"text", "gap/x"})
    batch = rows(6, bad=bad)
    trace = executor.run(batch, wants)
    assert_others_are_as_in_a_clean_run(trace, batch, bad, wants)
    alone = executor.run(batch.alone(bad[0]), wants)
    assert np.isnan(alone["gap/x"]).all()


def test_a_crash_in_a_run_that_wants_less_than_the_first():
    executor = LocalExecutor(Fragile())
    executor.run(rows(4), WANTS)
    batch = rows(6, bad=[2])
    assert_others_are_as_in_a_clean_run(executor.run(batch, frozenset({"text"})), batch, [2], {"text"})


@pytest.mark.parametrize("error", [UsageError("no such phrase"), TargetError("gone")])
def test_errors_for_the_user_pass_through(error):
    target = Fragile(error)
    executor = LocalExecutor(target)
    with pytest.raises(type(error), match=str(error)):
        executor.run(rows(8, bad=[3]), WANTS)
    assert len(target.asked) == 1
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(Fragile(KeyboardInterrupt())).run(rows(8, bad=[3]), WANTS)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("first line\nsecond"), "RuntimeError: first line second"),
        (AssertionError(), "AssertionError:"),
        (ValueError("x" * 500), "ValueError: " + "x" * 188),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit("over"), "GeneratorExit: over"),
        (EOFError("no input"), "EOFError: no input"),
        (MemoryError("ä\x00"), "MemoryError: ä\x00"),
    ],
)
def test_a_crash_is_told_in_one_short_line(error, words):
    trace = LocalExecutor(Fragile(error)).run(rows(4, bad=[1]), WANTS)
    assert trace[CRASH][1] == words


def test_the_channel_prompt_holds_the_rows_texts_and_is_not_asked_of_the_target():
    target, batch = Fragile(), rows(5, bad=[1])
    trace = LocalExecutor(target).run(batch, frozenset({"text", "prompt"}))
    assert trace["prompt"].tolist() == target.space.texts(batch)
    assert all("prompt" not in wants for _, wants in target.asked)


def test_counts_and_time_only_grow_and_cover_samples(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    executor = LocalExecutor(Fragile())
    assert (executor.executions, executor.seconds) == (0, 0)
    executor.run(rows(10), WANTS)
    assert (executor.executions, executor.seconds) == (10, 1)
    tails = executor.sample(rows(6), 3, 1.0, np.random.default_rng(0))
    assert tails.shape == (6, 3)
    assert (executor.executions, executor.seconds) == (16, 2)
    executor.run(rows(2, bad=[1]), WANTS)
    assert (executor.executions, executor.seconds) == (20, 5)  # the pair, then each alone


def test_the_targets_time_is_counted_when_it_raises():
    executor = LocalExecutor(Fragile(UsageError("no")))
    with pytest.raises(UsageError):
        executor.run(rows(2, bad=[0]), WANTS)
    assert executor.seconds > 0
    assert executor.executions == 2


CHANGES = {
    "hidden": lambda a: a[:, :1],
    "tokens": lambda a: a[:, 0],
    "hit": lambda a: a.tolist(),
    "name": lambda a: np.ones(len(a)),
    "text": lambda a: a[1:],
    "gap/x": lambda a: a.astype(str),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_channel_that_changes_its_form_is_a_crash_with_its_name(name):
    target = Fragile()
    executor = LocalExecutor(target)
    executor.fixed = frozenset({"hidden"})
    executor.run(rows(4), WANTS | {"gap/x"})
    run = target.run
    target.run = lambda batch, wants: {**(shown := run(batch, wants)), name: CHANGES[name](shown[name])}
    trace = executor.run(rows(5), WANTS | {"gap/x"})
    assert all(f"the channel {name} " in said for said in trace[CRASH])


def test_a_channel_may_have_other_steps_and_other_types_of_numbers():
    target = Fragile()
    executor = LocalExecutor(target)
    executor.run(rows(4), WANTS)
    run = target.run

    def shorter(batch, wants):
        shown = run(batch, wants)
        return {**shown, "tokens": shown["tokens"][:, : len(batch)], "hit": shown["hit"].astype(np.float64)}

    target.run = shorter
    trace = executor.run(rows(4, bad=[0]), WANTS)
    assert (trace[CRASH] != "").tolist() == [True, False, False, False]
    assert trace["tokens"].shape == (4, 3)
    assert (trace["tokens"][0] == PAD).all()


@pytest.mark.parametrize("missing", ["text", "hidden"])
def test_a_channel_that_is_missing_is_named(missing):
    target = Fragile()
    run = target.run
    target.run = lambda batch, wants: {name: a for name, a in run(batch, wants).items() if name != missing}
    with pytest.raises(TargetError, match=f"the channel {missing} is missing"):
        LocalExecutor(target).run(rows(4), WANTS)
