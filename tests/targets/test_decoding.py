"""The fast decoding writes what the module itself would write, whatever stands beside a row."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lmfuzz
from helpers.plain import ALPHABET, char_rnn, gumbel, rows, write
from lmfuzz.targets import checkpoint
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.sampling import Decoding
from lmfuzz.types import PAD, Batch

torch.set_num_threads(1)

RAGGED = [1, 5, 2, 17, 9, 1, 12, 30]
EQUAL = [6] * 8
TEXT = frozenset({"text", "tokens"})


@pytest.fixture(scope="module")
def bundled():
    return checkpoint.load(Path(lmfuzz.__file__).parent / "models" / "shakespeare")


def expected(model, batch, decoding):
    """The tokens (B, T) of the slow way."""
    noise = None
    if decoding.temperature:
        symbols = len(model.config.alphabet)
        noise = gumbel(decoding.seed, decoding.max_new, symbols, decoding.temperature)
    return np.array([write(model, batch.row(i), decoding.max_new, noise).tokens for i in range(len(batch))])


@pytest.mark.parametrize("lengths", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize(("embedding", "hidden"), [(9, 20), (30, 17)])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_batches_write_what_the_module_writes_symbol_by_symbol(
    cell, layers, embedding, hidden, temperature, lengths
):
    model = char_rnn(cell, layers, hidden, embedding, seed=layers)
    batch, decoding = rows(lengths, seed=layers), Decoding(max_new=25, temperature=temperature, seed=7)
    trace = RNNTarget(model, decoding).run(batch, TEXT)
    want = expected(model, batch, decoding)
    np.testing.assert_array_equal(trace["tokens"], want)
    assert trace["tokens"].dtype == np.int32
    assert trace["text"].tolist() == ["".join(ALPHABET[s] for s in row) for row in want]
    assert len(set(trace["text"])) >= 3, "a model that always writes the same would hide faults"


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_bundled_model_writes_64_ragged_prompts_as_the_module_does(bundled, temperature):
    rng = np.random.default_rng(5)
    batch = rows(rng.integers(1, 49, size=64).tolist(), len(bundled.config.alphabet))
    decoding = Decoding(max_new=20, temperature=temperature, seed=3)
    tokens = RNNTarget(bundled, decoding).run(batch, TEXT)["tokens"]
    np.testing.assert_array_equal(tokens, expected(bundled, batch, decoding))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_a_row_does_not_depend_on_neighbours_order_or_padding(cell, temperature):
    target = RNNTarget(char_rnn(cell), Decoding(max_new=20, temperature=temperature))
    batch = rows(RAGGED * 3, seed=2)
    tokens = target.run(batch, TEXT)["tokens"]
    rng = np.random.default_rng(0)

    order = rng.permutation(len(batch))
    np.testing.assert_array_equal(target.run(batch[order], TEXT)["tokens"], tokens[order])

    some = rng.random(len(batch)) < 0.3
    np.testing.assert_array_equal(target.run(batch[some], TEXT)["tokens"], tokens[some])

    for i in range(len(batch)):
        np.testing.assert_array_equal(target.run(batch.alone(i), TEXT)["tokens"][0], tokens[i])

    wide = np.concatenate([batch.data, np.zeros((len(batch), 5), np.int32)], axis=1)
    padding = np.arange(wide.shape[1]) >= batch.lengths[:, None]
    for garbage in (len(ALPHABET) - 1, 10**6, -7):
        dirty = replace(batch, data=np.where(padding, np.int32(garbage), wide))
        np.testing.assert_array_equal(target.run(dirty, TEXT)["tokens"], tokens)
        equal = batch.lengths == 5
        np.testing.assert_array_equal(target.run(dirty[equal], TEXT)["tokens"], tokens[equal])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_runs_leave_the_rows_and_the_next_run_alone(cell):
    target = RNNTarget(char_rnn(cell), Decoding(max_new=10, temperature=0.5))
    batch = rows(RAGGED)
    for array in (batch.data, batch.lengths, batch.parent, batch.operator):
        array.flags.writeable = False
    everything = target.channels - {"phrase_gap/"} | {"phrase_gap/fw/ab"}
    with np.errstate(all="raise"):
        first = target.run(batch, everything)
        tails = target.sample(batch, 4, 1.0, np.random.default_rng(0))
        second = target.run(batch, everything)
    assert tails.shape == (len(batch), 4)
    for name in everything:
        np.testing.assert_array_equal(first[name], second[name])


def test_one_new_symbol_after_one_symbol_of_prompt():
    model = char_rnn()
    every = Batch.of([np.array([s]) for s in range(len(ALPHABET))])
    target = RNNTarget(model, Decoding(max_new=1))
    trace = target.run(every, target.channels - {"phrase_gap/"} | {"phrase_gap//a"})
    want = expected(model, every, Decoding(max_new=1))
    np.testing.assert_array_equal(trace["tokens"], want)
    assert trace["text"].tolist() == [ALPHABET[s] for s in want[:, 0]]
    assert trace["hidden_steps"].shape == (len(every), 1, model.config.hidden)
    np.testing.assert_array_equal(trace["phrase_gap//a"] == 0, trace["text"] == "a")


def test_the_decoding_seed_chooses_the_noise_and_greedy_has_none():
    model, batch = char_rnn(), rows(RAGGED)

    def text(**settings):
        return RNNTarget(model, Decoding(max_new=20, **settings)).run(batch, TEXT)["text"].tolist()

    assert text(temperature=1.0, seed=1) == text(temperature=1.0, seed=1)
    assert text(temperature=1.0, seed=1) != text(temperature=1.0, seed=2)
    assert text(seed=1) == text(seed=2)


def test_an_output_ends_before_the_first_of_its_stop_strings():
    model, batch = char_rnn(), rows(RAGGED * 4, seed=1)
    plain = RNNTarget(model, Decoding(max_new=30)).run(batch, TEXT)
    whole = plain["text"].tolist()
    stops = (whole[0][:2], whole[3][10], "\n\n\n\n")
    want = [text[: min((text.find(s) for s in stops if s in text), default=30)] for text in whole]
    assert want[0] == ""
    assert len({len(text) for text in want}) > 3
    target = RNNTarget(model, Decoding(max_new=30, stop=stops))
    trace = target.run(batch, TEXT | {"logprob", "entropy"})
    assert trace["text"].tolist() == want
    for i, text in enumerate(want):
        cut = len(text)
        np.testing.assert_array_equal(trace["tokens"][i, :cut], plain["tokens"][i, :cut])
        assert (trace["tokens"][i, cut:] == PAD).all()
        for name in ("logprob", "entropy"):
            assert np.isfinite(trace[name][i, :cut]).all()
            assert np.isnan(trace[name][i, cut:]).all()
        assert target.space.decode(trace["tokens"][i]) == text


def test_a_stop_string_that_begins_in_the_prompt_does_not_end_the_output():
    model, batch = char_rnn(), rows(RAGGED)
    target = RNNTarget(model, Decoding(max_new=10))
    texts, prompts = target.run(batch, TEXT)["text"].tolist(), target.space.texts(batch)
    across = [prompt[-1] + text[0] for prompt, text in zip(prompts, texts, strict=True)]
    row = next(i for i, stop in enumerate(across) if stop not in texts[i])
    stopped = RNNTarget(model, Decoding(max_new=10, stop=(across[row],))).run(batch, TEXT)
    assert stopped["text"][row] == texts[row]


# --- sampled tails ---


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_models_distribution(temperature):
    model = char_rnn(alphabet="abcd", scale=1.5)
    prompt = np.array([2, 0, 1])
    first = torch.softmax(write(model, prompt, 1).logits[0] / temperature, 0)
    after = [torch.softmax(write(model, [*prompt, s], 1).logits[0] / temperature, 0) for s in range(4)]
    want = (first[:, None] * torch.stack(after)).numpy()
    rows, drawn = 4000, np.zeros((4, 4))
    target, rng = RNNTarget(model), np.random.default_rng(1)
    for _ in range(5):
        tails = target.sample(Batch.of([prompt] * rows), 2, temperature, rng)
        np.add.at(drawn, (tails[:, 0], tails[:, 1]), 1)
    assert tails.dtype == np.int32
    # Pearson's statistic has 15 degrees of freedom: mean 15, and 44 with a chance of one in 10 000.
    assert (((drawn - 5 * rows * want) ** 2) / (5 * rows * want)).sum() < 44


def test_rows_are_sampled_independently():
    model = char_rnn(alphabet="abcd", scale=1.5)
    prompt = np.array([2, 0, 1])
    alone = torch.softmax(write(model, prompt, 1).logits[0], 0).numpy()
    tails = RNNTarget(model).sample(Batch.of([prompt] * 20000), 1, 1.0, np.random.default_rng(1))[:, 0]
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (tails[::2], tails[1::2]), 1)
    want = 10000 * np.outer(alone, alone)
    assert ((pairs - want) ** 2 / want).sum() < 44


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_samples_follow_from_the_generator_alone(cell):
    target, batch = RNNTarget(char_rnn(cell)), rows(RAGGED)
    rng = np.random.default_rng(4)
    first, next_one = (target.sample(batch, 12, 1.0, rng) for _ in range(2))
    again = target.sample(batch, 12, 1.0, np.random.default_rng(4))
    assert first.shape == (len(batch), 12)
    np.testing.assert_array_equal(first, again)
    assert (first != next_one).any()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_cold_samples_are_greedy(cell):
    target, batch = RNNTarget(char_rnn(cell), Decoding(max_new=12)), rows(RAGGED)
    greedy = target.run(batch, TEXT)["tokens"]
    for temperature in (0.0, 1e-6):
        tails = target.sample(batch, 12, temperature, np.random.default_rng(0))
        np.testing.assert_array_equal(tails, greedy)
