"""What a pair of character models shows: against the slow way, and against what both write by themselves."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import lmfuzz
from helpers.plain import ALPHABET, char_rnn, gumbel, rows
from lmfuzz.errors import TargetError
from lmfuzz.targets import checkpoint
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.pair import CHANNELS, TextPair
from lmfuzz.types import PAD, unknown

torch.set_num_threads(1)

RAGGED = [1, 5, 2, 17, 9, 1, 12, 30]
STEPS = 12
FREE = frozenset({"text", "tokens", "base/text", "base/tokens"})
SAME = {"rtol": 1e-4, "atol": 1e-5}


def nudged(model, size=0.05, seed=1):
    """A copy with every weight a little off."""
    torch.manual_seed(seed)
    twin = deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(size * parameter.std() * torch.randn_like(parameter))
    return twin


def rounded(model, bits):
    """A copy whose weight matrices are on 2^bits - 1 levels each."""
    twin, most = deepcopy(model), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.ndim == 2:
                step = parameter.abs().max() / most
                parameter.copy_((parameter / step).round() * step)
    return twin


def paired(base, twin, **decoding):
    settings = Decoding(**{"max_new": STEPS, **decoding})
    return TextPair(RNNTarget(base, settings), RNNTarget(twin, settings))


def first_difference(trace):
    differ = trace["tokens"] != trace["base/tokens"]
    return np.where(differ.any(axis=1), differ.argmax(axis=1), -1)


@torch.inference_mode()
def along(model, prompt, tokens):
    """The module's logits (T, V) after a prompt and each prefix of ``tokens``, one row in one call."""
    text = torch.tensor([[*prompt.tolist(), *tokens[:-1].tolist()]])
    return model(text)[0][0, len(prompt) - 1 :]


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_channels_are_those_of_the_definition(cell, temperature):
    base, batch = char_rnn(cell, scale=2.0), rows(RAGGED * 3)
    twin = nudged(base, 0.06)
    trace = paired(base, twin, temperature=temperature).run(batch, CHANNELS | FREE)
    noise = gumbel(0, STEPS, len(ALPHABET), temperature) if temperature else 0
    for row in range(len(batch)):
        tokens = trace["base/tokens"][row]
        p, q = (along(model, batch.row(row), tokens) for model in (base, twin))
        chosen, lead = p + noise, q + noise
        top = chosen.sort(dim=1, descending=True)
        np.testing.assert_array_equal(top.indices[:, 0], tokens)
        np.testing.assert_allclose(trace["base_gap"][row], top.values[:, 0] - top.values[:, 1], **SAME)
        others = lead.clone()
        others[range(STEPS), tokens] = -torch.inf
        leads = lead[range(STEPS), tokens] - others.amax(dim=1)
        np.testing.assert_allclose(trace["twin_lead"][row], leads, **SAME)
        one, other = Categorical(logits=p), Categorical(logits=q)
        np.testing.assert_allclose(trace["kl"][row], kl_divergence(one, other), **SAME)
        middle = Categorical(probs=(one.probs + other.probs) / 2)
        js = (kl_divergence(one, middle) + kl_divergence(other, middle)) / 2
        np.testing.assert_allclose(trace["js"][row], js, **SAME)
    parting = trace["parting"]
    np.testing.assert_array_equal(parting, first_difference(trace))
    assert 0 < (parting >= 0).sum() < len(batch)
    for row, step in enumerate(parting.tolist()):
        symbols = [trace[name][row, step] for name in ("base/tokens", "tokens")] if step >= 0 else []
        assert "".join(trace["parting_symbols"][row]) == "".join(ALPHABET[s] for s in symbols)
    for name in ("base_gap", "twin_lead", "kl", "js"):
        assert trace[name].dtype == np.float32
        assert trace[name].shape == (len(batch), STEPS)
    assert (trace["kl"] >= 0).all()
    assert (trace["js"] >= 0).all()
    assert (trace["js"] <= np.log(2) + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("lengths", [RAGGED, [6] * 8], ids=["ragged", "equal"])
def test_identical_models_never_part_and_have_no_divergence(lengths, temperature, dtype):
    model, batch = char_rnn().to(dtype), rows(lengths)
    trace = paired(model, deepcopy(model), temperature=temperature).run(batch, CHANNELS | FREE)
    assert (trace["parting"] == -1).all()
    assert (trace["parting_symbols"] == "").all()
    assert (trace["kl"] == 0).all()
    assert (trace["js"] == 0).all()
    np.testing.assert_array_equal(trace["twin_lead"], trace["base_gap"])
    np.testing.assert_array_equal(trace["base/text"], trace["text"])


@pytest.mark.parametrize("twin", ["int8", "int4", "float16", "bfloat16"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_bundled_model_parts_from_its_twin_where_their_texts_do(twin, temperature):
    base = checkpoint.load(Path(lmfuzz.__file__).parent / "models" / "shakespeare")
    model = rounded(base, int(twin[3:])) if twin[0] == "i" else deepcopy(base).to(getattr(torch, twin))
    pair = paired(base, model, temperature=temperature, max_new=40)
    rng = np.random.default_rng(2)
    batch = rows(rng.integers(4, 40, size=48).tolist(), len(pair.space.symbols))
    trace = pair.run(batch, CHANNELS | FREE)
    parting = trace["parting"]
    np.testing.assert_array_equal(parting, first_difference(trace))
    if twin != "float16":
        assert (parting >= 0).sum() >= 5
    assert (trace["kl"] >= 0).all()
    assert 0 < trace["js"].max() <= np.log(2) + 1e-6
    parted = np.flatnonzero(parting >= 0)
    assert (trace["twin_lead"][parted, parting[parted]] <= 0).all()  # 0 where 16 bits tie
    for row in parted.tolist():
        step = parting[row]
        assert (trace["twin_lead"][row, :step] >= 0).all()
        assert trace["base/text"][row][:step] == trace["text"][row][:step]
        shown = [trace[name][row][step] for name in ("base/text", "text")]
        assert trace["parting_symbols"][row].tolist() == shown


def test_exactly_the_wanted_channels_come_back_and_are_those_of_each_model_alone():
    base, batch = char_rnn(), rows(RAGGED)
    twin = nudged(base)
    pair = paired(base, twin)
    concrete = frozenset({
        *CHANNELS, "text", "twin/text", "base/text", "base/hidden_steps", "hidden_steps", "base/nonfinite",
        "magnitude", "phrase_gap//ab", "base/phrase_gap/f/ab", "twin/hidden_mean",
    })  # fmt: skip
    whole = pair.run(batch, concrete)
    assert whole.keys() == concrete
    for name in concrete:
        alone = pair.run(batch, frozenset({name}))
        assert alone.keys() == {name}
        assert len(alone[name]) == len(batch)
        np.testing.assert_array_equal(alone[name], whole[name])
    assert pair.run(batch, frozenset()) == {}
    of_base = {name for name in concrete - CHANNELS if name.startswith("base/")}
    for model, prefix, names in ((base, "base/", of_base), (twin, "twin/", concrete - CHANNELS - of_base)):
        own = frozenset(name.removeprefix(prefix) for name in names)
        shown = RNNTarget(model, Decoding(max_new=STEPS)).run(batch, own)
        for name in names:
            np.testing.assert_array_equal(shown[name.removeprefix(prefix)], whole[name])
    assert not unknown(concrete, pair.channels)


def test_a_model_runs_only_where_it_is_wanted(monkeypatch):
    pair, batch = paired(char_rnn(), nudged(char_rnn())), rows(RAGGED)
    calls = []
    for name in ("decode", "follow"):
        for side in ("base", "twin"):
            target = getattr(pair, side)
            call = getattr(target, name)
            monkeypatch.setattr(
                target,
                name,
                lambda *given, _say=f"{side}.{name}", _do=call: calls.append(_say) or _do(*given),
            )
    for wants, want in (
        ({"text"}, ["twin.decode"]),
        ({"base/text"}, ["base.decode"]),
        ({"kl"}, ["base.decode", "twin.follow"]),
        ({"kl", "base/text", "parting"}, ["base.decode", "twin.follow"]),
        ({"js", "base/text", "text"}, ["base.decode", "twin.decode", "twin.follow"]),
        (set(), []),
    ):
        calls.clear()
        pair.run(batch, frozenset(wants))
        assert calls == want


def test_a_rows_parting_does_not_depend_on_its_neighbours():
    base = char_rnn()
    pair, batch = paired(base, nudged(base, 0.2), temperature=0.5), rows(RAGGED * 2)
    trace = pair.run(batch, CHANNELS)
    for row in range(len(batch)):
        alone = pair.run(batch.alone(row), CHANNELS)
        np.testing.assert_array_equal(alone["parting"][0], trace["parting"][row])
        for name in ("base_gap", "twin_lead", "kl", "js"):
            np.testing.assert_allclose(alone[name][0], trace[name][row], rtol=1e-3, atol=1e-5)


def test_what_comes_after_a_stop_string_is_no_parting():
    base, batch = char_rnn(scale=2.0), rows(RAGGED * 6)
    twin = nudged(base, 0.03)
    free = paired(base, twin).run(batch, CHANNELS | FREE)
    stop = next(t[4:6] for t, p in zip(free["base/text"], free["parting"], strict=True) if p > 7)
    trace = paired(base, twin, stop=(stop,)).run(batch, CHANNELS | FREE)
    ends = np.array([t.find(stop) + len(stop) if stop in t else STEPS for t in free["base/text"]])
    known = np.arange(STEPS) < ends[:, None]
    for name in ("base_gap", "twin_lead", "kl", "js"):
        np.testing.assert_array_equal(trace[name], np.where(known, free[name], np.nan))
    want = np.where(free["parting"] < ends, free["parting"], -1)
    np.testing.assert_array_equal(trace["parting"], want)
    assert ((free["parting"] >= 0) & (want == -1)).any()
    same = trace["base/text"] == trace["text"]
    np.testing.assert_array_equal(same, want == -1)
    assert (trace["base/tokens"] == PAD).any()


def test_a_twin_that_is_not_finite_has_no_lead_where_that_begins():
    base, batch = char_rnn(), rows(RAGGED)
    twin = deepcopy(base)
    with torch.no_grad():
        twin.output.bias[3] = torch.nan
    trace = paired(base, twin).run(batch, CHANNELS)
    for name in ("twin_lead", "kl", "js"):
        assert np.isnan(trace[name]).all()
    assert np.isfinite(trace["base_gap"]).all()


def test_the_pair_reads_what_both_read_and_names_both():
    base, twin = char_rnn(), nudged(char_rnn())
    pair = paired(base, twin)
    assert pair.space == RNNTarget(base).space
    assert len({pair.identity, paired(twin, base).identity, paired(base, base).identity}) == 3
    batch = rows(RAGGED)
    drawn, own = (target.sample(batch, 5, 1.0, np.random.default_rng(3)) for target in (pair, pair.base))
    np.testing.assert_array_equal(drawn, own)


@pytest.mark.parametrize(
    ("other", "settings", "words"),
    [
        (char_rnn(alphabet=ALPHABET[::-1]), Decoding(), "alphabet"),
        (char_rnn(alphabet=ALPHABET + "!"), Decoding(), "'!'"),
        (char_rnn(), Decoding(max_new=9), "max_new 9, its base 50"),
        (char_rnn(), Decoding(temperature=0.5), "temperature 0.5, its base 0"),
        (char_rnn(), Decoding(stop=("\n",)), "stop"),
    ],
)
def test_models_that_do_not_fit_each_other_are_refused(other, settings, words):
    with pytest.raises(TargetError, match=words):
        TextPair(RNNTarget(char_rnn()), RNNTarget(other, settings))
