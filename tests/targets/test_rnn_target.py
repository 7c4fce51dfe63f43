"""What the channels of a character RNN hold."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from helpers.plain import ALPHABET, char_rnn, gumbel, rows, write
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.sampling import CHANNELS, Decoding
from lmfuzz.types import Batch

torch.set_num_threads(1)

RAGGED = [1, 5, 2, 17, 9, 1, 12, 30]
EQUAL = [6] * 5
STEPS = 12
SAME = {"rtol": 1e-4, "atol": 1e-5}


def traced(model, batch, channels, **decoding):
    return RNNTarget(model, Decoding(max_new=STEPS, **decoding)).run(batch, frozenset(channels))


def plainly(model, batch, noise=None):
    return [write(model, batch.row(i), STEPS, noise) for i in range(len(batch))]


def test_exactly_the_wanted_channels_come_back_with_one_entry_per_row():
    target, batch = RNNTarget(char_rnn(), Decoding(max_new=STEPS)), rows(RAGGED)
    concrete = sorted(CHANNELS - {"phrase_gap/"} | {"phrase_gap/fw/ab", "phrase_gap//d"})
    whole = target.run(batch, frozenset(concrete))
    for channel in concrete:
        alone = target.run(batch, frozenset({channel}))
        assert alone.keys() == {channel}
        assert len(alone[channel]) == len(batch)
        if whole[channel].dtype == np.float32:
            np.testing.assert_allclose(alone[channel], whole[channel], **SAME)
        else:
            assert alone[channel].dtype in (np.int32, np.bool_, object)
            np.testing.assert_array_equal(alone[channel], whole[channel])
    assert target.run(batch, frozenset()) == {}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("temperature", [0, 0.6])
def test_logprob_and_entropy_are_the_models_own_at_temperature_1(cell, temperature):
    model, batch = char_rnn(cell), rows(RAGGED)
    trace = traced(model, batch, {"logprob", "entropy", "tokens"}, temperature=temperature)
    noise = gumbel(0, STEPS, len(ALPHABET), temperature) if temperature else None
    for row, plain in enumerate(plainly(model, batch, noise)):
        distribution = Categorical(logits=plain.logits)
        np.testing.assert_allclose(trace["entropy"][row], distribution.entropy(), **SAME)
        chosen = distribution.log_prob(torch.tensor(trace["tokens"][row]))
        np.testing.assert_allclose(trace["logprob"][row], chosen, **SAME)
    assert trace["logprob"].dtype == trace["entropy"].dtype == np.float32


def test_a_distribution_without_doubt_has_entropy_0_and_logprob_0():
    model = char_rnn()
    with torch.no_grad():
        model.output.bias[3] = 1e30
    trace = traced(model, rows(RAGGED), {"logprob", "entropy", "text"})
    assert (trace["entropy"] == 0).all()
    assert (trace["logprob"] == 0).all()
    assert set(trace["text"]) == {ALPHABET[3] * STEPS}


@pytest.mark.parametrize("lengths", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_hidden_last_is_the_modules_final_state(cell, layers, lengths):
    model, batch = char_rnn(cell, layers), rows(lengths)
    got = traced(model, batch, {"hidden_last"})["hidden_last"]
    for row in range(len(batch)):
        with torch.inference_mode():
            _, state = model.rnn(model.embedding(torch.tensor(batch.row(row))))
        parts = [part.flatten() for part in (state if cell == "lstm" else (state,))]
        np.testing.assert_allclose(got[row], torch.cat(parts), **SAME)
    assert got.shape == (len(batch), layers * 20 * (2 if cell == "lstm" else 1))
    assert got.dtype == np.float32


@pytest.mark.parametrize("lengths", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_hidden_steps_are_the_top_layers_state_before_each_symbol(cell, layers, lengths):
    model, batch = char_rnn(cell, layers), rows(lengths)
    trace = traced(model, batch, {"hidden_steps", "hidden_mean"})
    for row, plain in enumerate(plainly(model, batch)):
        np.testing.assert_allclose(trace["hidden_steps"][row], plain.hidden[:, -1], **SAME)
        np.testing.assert_allclose(trace["hidden_mean"][row], plain.hidden[:, -1].mean(dim=0), **SAME)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_magnitude_is_the_largest_of_both_ends_states_and_all_logits(cell):
    batch, plain = rows(RAGGED), {}
    for scale in (3.0, 0.2):  # once the logits are largest, once a state
        model = char_rnn(cell, scale=scale)
        got = traced(model, batch, {"magnitude", "nonfinite"})
        for row, plain in enumerate(plainly(model, batch)):
            ends = [plain.hidden[0], plain.cell[0], plain.hidden[-1], plain.cell[-1], plain.logits]
            largest = max(float(part.abs().max()) for part in ends)
            np.testing.assert_allclose(got["magnitude"][row], largest, **SAME)
        assert (got["nonfinite"] == "").all()


# --- numbers that go wrong ---

BAD = ALPHABET.index("9")
CLEAN = [s for s in range(len(ALPHABET)) if s != BAD]


def never(model: CharRNN, symbol: int = BAD) -> CharRNN:
    """The model, but it never writes ``symbol``."""
    with torch.no_grad():
        model.output.weight[symbol] = 0
        model.output.bias[symbol] = -1e3
    return model


def prompts(lengths, place, seed=3):
    """Rows without the bad symbol, but for every second, which holds it at ``place`` from the end."""
    rng = np.random.default_rng(seed)
    symbols = [rng.choice(CLEAN, size=n).astype(np.int32) for n in lengths]
    for row in symbols[::2]:
        row[len(row) - place] = BAD
    return Batch.of(symbols)


def poisoned_embedding(cell):
    model = never(char_rnn(cell))
    with torch.no_grad():
        model.embedding.weight[BAD, 2] = torch.nan
    return model, "layer 0 hidden"


def infinite_embedding(cell):
    """inf - inf in every gate of the first layer."""
    model = never(char_rnn(cell))
    with torch.no_grad():
        model.embedding.weight[:, :2] = 0
        model.embedding.weight[BAD, :2] = torch.inf
        model.rnn.weight_ih_l0[:, 0], model.rnn.weight_ih_l0[:, 1] = 2, -2
    return model, "layer 0 hidden"


def infinite_second_layer(_):
    """0 x inf is NaN: unit 0 of the first layer is 0 after one symbol only."""
    model = never(char_rnn("lstm"))
    with torch.no_grad():
        model.embedding.weight[:, 0] = 0
        model.embedding.weight[BAD, 0] = -1e6
        for gate in range(4):
            model.rnn.weight_ih_l0[gate * 20, 0] = 0
        model.rnn.weight_ih_l0[3 * 20, 0] = 1  # closes the output gate
        model.rnn.weight_ih_l1[5, 0] = torch.inf
    return model, "layer 1 hidden"


@pytest.mark.parametrize("lengths", [[4, 9, 6, 6, 13, 4, 5, 30], [6] * 8], ids=["ragged", "equal"])
@pytest.mark.parametrize(
    ("cell", "broken"),
    [
        ("lstm", poisoned_embedding),
        ("gru", poisoned_embedding),
        ("lstm", infinite_embedding),
        ("gru", infinite_embedding),
        ("lstm", infinite_second_layer),
    ],
)
def test_a_state_that_is_not_finite_is_named_with_its_layer_and_symbol(cell, broken, lengths):
    model, layer = broken(cell)
    place = 3
    batch = prompts(lengths, place)
    got = traced(model, batch, {"nonfinite", "magnitude", "tokens", "hidden_last"})
    bad = np.arange(len(batch)) % 2 == 0
    places = [f"{layer}, symbol {n - place + 1} of the prompt" for n in lengths]
    want = np.where(bad, places, "").tolist()
    assert got["nonfinite"].tolist() == want
    assert (~np.isfinite(got["magnitude"]) == bad).all()
    assert (~np.isfinite(got["hidden_last"]).all(axis=1) == bad).all()
    clean = traced(model, batch[~bad], {"magnitude", "tokens"})
    np.testing.assert_array_equal(got["tokens"][~bad], clean["tokens"])
    np.testing.assert_allclose(got["magnitude"][~bad], clean["magnitude"], **SAME)


SPARK, HURT = ALPHABET.index("d"), ALPHABET.index("C")


def overflowing_logit(cell):
    """Once SPARK was read the logit of HURT overflows to -inf, from weights that are all finite."""
    model = char_rnn(cell, layers=1)
    rnn, width = model.rnn, model.config.hidden
    with torch.no_grad():
        model.embedding.weight[:, 0] = 0
        model.embedding.weight[SPARK, 0] = 1
        for weight in (rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0):
            weight[::width] = 0  # all gates of unit 0
        # LSTM: input, forget, candidate, output; GRU: reset, update, candidate.
        for gate, bias in enumerate([40, -40, 0, 40] if cell == "lstm" else [0, -40, 0]):
            rnn.bias_ih_l0[gate * width] = bias
        rnn.weight_ih_l0[2 * width, 0] = 40  # 1 after SPARK, 0 otherwise
        model.output.weight[HURT, 0], model.output.bias[HURT] = -3e38, -2e38
        model.output.bias[SPARK] += 1  # seen often enough
    return model


@pytest.mark.parametrize("temperature", [0, 0.6])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_logits_that_overflow_are_named_with_their_step(cell, temperature):
    model, batch = overflowing_logit(cell), rows([1, 5, 2, 17, 9, 1, 12, 30, 8, 3, 3, 7] * 3)
    noise = gumbel(0, STEPS, len(ALPHABET), temperature) if temperature else None
    got = traced(model, batch, {"nonfinite", "magnitude", "tokens"}, temperature=temperature)
    want = []
    for row, plain in enumerate(plainly(model, batch, noise)):
        read = batch.row(row).tolist()
        np.testing.assert_array_equal(got["tokens"][row], plain.tokens)
        everything = read + plain.tokens
        first = everything.index(SPARK) if SPARK in everything else None
        if plain.logits.isfinite().all():
            want.append("")
        elif first < len(read):
            want.append(f"logits, symbol {first + 1} of the prompt")
        else:
            want.append(f"logits, step {first - len(read) + 1} of the output")
    assert got["nonfinite"].tolist() == want
    assert (np.isinf(got["magnitude"]) == [bool(place) for place in want]).all()
    for kind in ("prompt", "output"):
        assert any(place.endswith(kind) for place in want)
    assert "" in want


# --- identity ---


def test_the_identity_names_weights_alphabet_and_decoding():
    def identity(model=None, decoding=None, **lengths):
        return RNNTarget(model or char_rnn(), decoding, **lengths).identity

    nudged, renamed, gru = char_rnn(), char_rnn(alphabet=ALPHABET.swapcase()), char_rnn("gru")
    with torch.no_grad():
        nudged.rnn.bias_hh_l1[7] += 1e-6
    decodings = [Decoding(max_new=51), Decoding(temperature=0.1), Decoding(seed=1), Decoding(stop=("a",))]
    same = [identity(), identity(decoding=Decoding()), identity(max_length=7)]
    different = [
        identity(nudged),
        identity(renamed),
        identity(gru),
        *(identity(decoding=d) for d in decodings),
    ]
    assert len(set(same)) == 1
    assert len({*same, *different}) == 1 + len(different)


def test_the_space_is_the_alphabet_and_the_lengths_asked_for():
    space = RNNTarget(char_rnn(), min_length=2, max_length=9).space
    assert "".join(space.symbols) == ALPHABET
    assert (space.min_length, space.max_length) == (2, 9)


# --- 16 bits ---

HALVES = [torch.float16, torch.bfloat16]


def halved(dtype, cell="lstm", **shape):
    return char_rnn(cell, **shape).to(dtype)


@torch.inference_mode()
def forced(model, symbols, tokens):
    """The module's own logits (T, V) after the symbols and each prefix of tokens, one call per symbol."""
    state, rows = None, []
    for symbol in [*symbols, *tokens[:-1]]:
        logits, state = model(torch.tensor([[int(symbol)]]), state)
        rows.append(logits[0, 0].float())
    return torch.stack(rows[len(symbols) - 1 :])


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_model_in_16_bits_writes_what_the_module_does_within_its_rounding(cell, layers, dtype):
    model, batch = halved(dtype, cell, layers=layers, scale=1.0), rows(RAGGED)
    target = RNNTarget(model, Decoding(max_new=STEPS))
    decoded = target.decode(batch, frozenset())
    largest = float(decoded.logits.abs().max())
    few = 8 * torch.finfo(dtype).eps  # some roundings of numbers of this size
    for row in range(len(batch)):
        tokens = decoded.tokens[:, row]
        want = forced(model, batch.row(row), tokens.tolist())
        np.testing.assert_allclose(decoded.logits[:, row], want, rtol=0, atol=few * largest)
        np.testing.assert_array_equal(decoded.logits[:, row].argmax(dim=1), tokens)
    assert decoded.logits.dtype == torch.float32
    np.testing.assert_array_equal(decoded.logits, decoded.logits.to(dtype).float())
    assert {part.dtype for part in (*decoded.prompt, *decoded.end, target._stepper.start(1)[0])} == {dtype}


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_a_row_in_16_bits_does_not_depend_on_its_neighbours(cell, dtype, temperature):
    """To the last bit where a row's batch changes; bfloat16's own kernels might differ elsewhere."""
    target = RNNTarget(halved(dtype, cell), Decoding(max_new=STEPS, temperature=temperature))
    batch = rows(RAGGED * 3, seed=2)
    shown = frozenset({"tokens", "hidden_last"})
    whole = target.run(batch, shown)
    for some in (*(slice(i, i + 1) for i in range(len(batch))), batch.lengths == 1, slice(3, 20)):
        trace = target.run(batch[some], shown)
        np.testing.assert_array_equal(trace["tokens"], whole["tokens"][some])
        if dtype == torch.float16:
            np.testing.assert_array_equal(trace["hidden_last"], whole["hidden_last"][some])


@pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_a_model_in_16_bits_shows_is_float32(cell, dtype):
    target, batch = RNNTarget(halved(dtype, cell), Decoding(max_new=STEPS)), rows(RAGGED)
    exact = RNNTarget(halved(torch.float32, cell), Decoding(max_new=STEPS))
    wants = CHANNELS - {"phrase_gap/"} | {"phrase_gap/fw/ab"}
    half, full = target.run(batch, wants), exact.run(batch, wants)
    for name in wants:
        assert half[name].dtype == full[name].dtype, name
        assert half[name].shape == full[name].shape
    assert (half["nonfinite"] == "").all()
    assert target.identity != exact.identity
    rounded = halved(dtype, cell).to(torch.float32)
    assert RNNTarget(rounded, Decoding(max_new=STEPS)).identity not in (target.identity, exact.identity)
    tails = target.sample(batch, 3, 1.0, np.random.default_rng(0))
    assert tails.shape == (len(batch), 3)


def test_float16_overflows_where_float32_does_not():
    model = char_rnn()
    with torch.no_grad():
        model.output.weight.fill_(0)
        model.output.bias[HURT] = 60000
        model.output.weight[HURT] = 20000
    batch = rows(RAGGED)
    exact, half = (
        traced(model.to(dtype), batch, {"nonfinite", "magnitude"}) for dtype in (torch.float32, torch.float16)
    )
    assert (exact["nonfinite"] == "").all()
    lost = exact["magnitude"] > 70000
    assert lost.any()
    assert all(place.startswith("logits") for place in half["nonfinite"][lost])
    assert np.isinf(half["magnitude"][lost]).all()


# --- decoding, and following another's tokens ---


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("lengths", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_following_its_own_tokens_gives_its_own_logits_to_the_last_bit(cell, lengths, dtype):
    target, batch = RNNTarget(halved(dtype, cell), Decoding(max_new=STEPS, temperature=0.7)), rows(lengths)
    decoded = target.decode(batch, frozenset())
    for prompt in (None, decoded.prompt):
        np.testing.assert_array_equal(target.follow(batch, decoded.tokens, prompt), decoded.logits)
    again = target.decode(batch, frozenset({"hidden_steps"}))
    np.testing.assert_array_equal(again.logits, decoded.logits)
    np.testing.assert_array_equal(target.sampler.scores(decoded.logits).argmax(dim=2), decoded.tokens)


def test_following_other_tokens_gives_the_modules_logits():
    model, batch = char_rnn(), rows(RAGGED)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(len(ALPHABET), size=(7, len(batch))))
    logits = RNNTarget(model, Decoding(max_new=STEPS)).follow(batch, tokens)
    assert logits.shape == (7, len(batch), len(ALPHABET))
    for row in range(len(batch)):
        want = forced(model, batch.row(row), tokens[:, row].tolist())
        np.testing.assert_allclose(logits[:, row], want, **SAME)


def test_decoding_goes_on_until_a_stop_string_is_complete():
    batch = rows(RAGGED * 4)
    free = RNNTarget(char_rnn(), Decoding(max_new=STEPS))
    tokens = free.decode(batch, frozenset()).tokens
    assert free.going(tokens).all()
    texts = ["".join(ALPHABET[s] for s in column) for column in tokens.T.tolist()]
    stops = texts[0][2:4], texts[5][6]
    going = RNNTarget(char_rnn(), Decoding(max_new=STEPS, stop=stops)).going(tokens).T
    for text, steps in zip(texts, going.tolist(), strict=True):
        end = min((text.index(stop) + len(stop) for stop in stops if stop in text), default=STEPS)
        assert steps == [step < end for step in range(STEPS)]
    assert 0 < going.sum() < going.numel()
