"""Twins are what their recipes say, differ from their base, and leave it alone."""

import subprocess
import sys
from collections import OrderedDict, namedtuple
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn.utils import parametrizations, prune

from helpers.plain import char_rnn, rows, write
from lmfuzz.errors import UsageError
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget
from lmfuzz.targets.modules.wrapped import Called
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.compress import make_twin, rounded
from lmfuzz.targets.twins.recipes import FP16, RECIPES, Int8, Prune, Round, TFLite, TorchAO, is_recipe, read
from lmfuzz.targets.validate import fingerprint

torch.set_num_threads(1)

ROUNDING = ["int8", "int8:per=tensor", "int4", "round:4"]
TORCHAO = ["torchao", "torchao:scheme=int8dq", "torchao:scheme=int4"]
EVERY = [
    "fp16", "bf16", *ROUNDING, "prune:0.5", "tflite", "tflite:activations=asymmetric", "dynamic", *TORCHAO,
]  # fmt: skip


class Conv1D(nn.Module):
    """A linear layer with weights (inputs, outputs), as GPT-2 has them."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class GPT(nn.Module):
    """One block of GPT-2's kind; the output layer shares the embedding's weights."""

    alphabet = "".join(chr(ord("a") + i) for i in range(40))

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(40, 32)
        self.norm = nn.LayerNorm(32)
        self.up, self.down = Conv1D(64, 32), Conv1D(32, 64)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, symbols):
        x = self.wte(symbols)
        return self.head(x + self.down(self.up(self.norm(x)).relu()))


def mlp():
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 4))


def conv_net():
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 4, 3, padding=1),
            relu=nn.ReLU(),
            conv2=nn.Conv2d(4, 32, 3, stride=2),
            norm=nn.BatchNorm2d(32),
            flatten=nn.Flatten(),
            output=nn.Linear(32 * 9, 5),
        )
    )


def encoder():
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODULES = {
    "mlp": (mlp, lambda: torch.rand(6, 20)),
    "conv": (conv_net, lambda: torch.rand(6, 1, 8, 8)),
    "lstm": (lambda: char_rnn("lstm", hidden=96), lambda: torch.randint(0, 13, (6, 9))),
    "gru": (lambda: char_rnn("gru", hidden=96), lambda: torch.randint(0, 13, (6, 9))),
    "gpt": (GPT, lambda: torch.randint(0, 40, (6, 9))),
    "encoder": (encoder, lambda: torch.rand(6, 9, 32)),
}


def made(name):
    torch.manual_seed(0)
    module, inputs = MODULES[name]
    return module().eval(), inputs()


@torch.inference_mode()
def output(module, x):
    out = module(x)
    return out[0] if isinstance(out, tuple) else out


def refused(module, recipe):
    with pytest.raises(UsageError) as caught:
        make_twin(module, recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- every recipe on every module ---


@pytest.mark.parametrize("recipe", EVERY)
@pytest.mark.parametrize("name", MODULES)
def test_a_twin_differs_a_little_and_its_base_stays_as_it_was(name, recipe):
    module, x = made(name)
    state, base = deepcopy(module.state_dict()), output(module, x)
    twin = make_twin(module, recipe)
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert torch.equal(output(module, x), base)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    gap = (output(twin.module, x).float() - base).abs().max() / base.abs().max()
    assert 1e-6 < gap < (0.05 if recipe in ("fp16", "bf16", "int8") else 2)
    assert str(read(twin.recipe)) == twin.recipe == recipe
    assert twin.converted
    assert "\n" not in twin.words


@pytest.mark.parametrize("recipe", EVERY)
@pytest.mark.parametrize("name", MODULES)
def test_the_state_holds_the_converted_tensors_by_the_base_s_names(name, recipe):
    module, _ = made(name)
    twin = make_twin(module, recipe)
    state = twin.module.state_dict()
    prefix = "module." if isinstance(twin.module, Called) else ""
    changed = set()
    for key, old in module.state_dict().items():
        new = state.pop(prefix + key)
        assert isinstance(new, torch.Tensor)
        assert new.shape == old.shape
        if old.dtype != new.dtype or not torch.equal(old, new):
            changed.add(key.rpartition(".")[0])
    assert not state
    parts = {part.rpartition(" ")[0] for part in twin.converted}
    assert parts == changed


@pytest.mark.parametrize("recipe", EVERY)
def test_a_recipe_makes_the_same_twin_every_time_and_the_twin_can_be_copied(recipe):
    module, x = made("conv")
    one, two = (make_twin(module, recipe) for _ in range(2))
    assert (one.converted, one.words) == (two.converted, two.words)
    assert torch.equal(output(one.module, x), output(two.module, x))
    assert torch.equal(output(deepcopy(one.module), x), output(one.module, x))


@pytest.mark.parametrize(
    ("name", "recipe", "words"),
    [
        (
            "lstm",
            "int8",
            "int8 per channel: 5 tensors of 2 LSTM, 1 Linear rounded, computed in float32; left alone:"
            " 1 Embedding, biases",
        ),
        (
            "gpt",
            "round:4",
            "4 bits per tensor: 2 tensors of 2 Conv1D rounded, computed in float32; left alone: 1 Embedding,"
            " 1 LayerNorm, biases, 1 Linear (tied to the embedding)",
        ),
        (
            "conv",
            "tflite",
            "TFLite's hybrid int8: 2 tensors of 1 Conv2d, 1 Linear rounded per tensor, their inputs per"
            " example (symmetric); left alone: 1 Conv2d, biases, 1 BatchNorm2d",
        ),
        (
            "gpt",
            "dynamic",
            "torch's dynamic int8: 2 tensors of 2 Conv1D rounded, their inputs at run time over the whole"
            " batch; left alone: 1 Embedding, 1 LayerNorm, biases, 1 Linear (tied to the embedding)",
        ),
        (
            "mlp",
            "prune:0.25",
            "l1 pruning: 3 tensors of 3 Linear with the smallest 0.25 of their weights set to zero;"
            " left alone: biases",
        ),
    ],
)
def test_words_for_a_person(name, recipe, words):
    assert make_twin(made(name)[0], recipe).words == words


def test_what_was_converted_has_names():
    assert make_twin(made("conv")[0], "int8").converted == (
        "conv1 (Conv2d)", "conv2 (Conv2d)", "output (Linear)",
    )  # fmt: skip
    assert make_twin(nn.Linear(4, 4), "int8").converted == ("Linear",)


# --- rounding ---

matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


@settings(derandomize=True, deadline=None)
@given(matrices, st.integers(2, 16))
def test_rounded_numbers_are_the_nearest_of_few_levels(values, bits):
    matrix = torch.from_numpy(values)
    result = rounded(matrix, bits)
    assert result.dtype == matrix.dtype
    for before, after in zip(values.astype(np.float64), result.numpy(), strict=True):
        assert len(np.unique(after)) <= 2**bits - 1
        step = np.abs(before).max() / (2 ** (bits - 1) - 1)
        assert (np.abs(after - before) <= step * 0.5001 + 1e-45).all()
        assert np.abs(after).max() == np.float32(np.abs(before).max())
    assert torch.equal(rounded(result, bits), result)
    assert torch.equal(rounded(-matrix, bits), -result)


LAYERS = {
    "Linear": (lambda: nn.Linear(40, 6), (3, 40)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (3, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 9, 9)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (3, 4, 9)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (3, 4, 9, 9)),
    "Conv1D": (lambda: Conv1D(6, 40), (3, 40)),
}


def louder(layer, channel):
    """A layer whose output ``channel`` (of 6) is a thousand times as large."""
    layer = deepcopy(layer)
    kind = type(layer).__name__
    with torch.no_grad():
        if kind == "Conv1D":
            layer.weight[:, channel] *= 1000
        elif kind.startswith("ConvTranspose"):
            group, place = divmod(channel, 6 // layer.groups)
            inputs = 4 // layer.groups
            layer.weight[group * inputs : (group + 1) * inputs, place] *= 1000
        else:
            layer.weight[channel] *= 1000
        layer.bias[channel] *= 1000
    return layer


@pytest.mark.parametrize("recipe", ["int8", "int4"])
@pytest.mark.parametrize("name", LAYERS)
def test_output_channels_are_rounded_apart(name, recipe):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x, axis = make(), torch.randn(shape), -1 if len(shape) == 2 else 1
    base = output(make_twin(layer, recipe).module, x)
    for channel in range(6):
        others = torch.tensor([c for c in range(6) if c != channel])
        large = louder(layer, channel)
        for one, two in (
            (output(large, x), output(layer, x)),
            (output(make_twin(large, recipe).module, x), base),
        ):
            torch.testing.assert_close(one.index_select(axis, others), two.index_select(axis, others))
    coarse = make_twin(louder(layer, 2), "int8:per=tensor").module
    assert (output(coarse, x) - base).index_select(axis, torch.tensor([0])).abs().max() > 1e-3


@pytest.mark.parametrize(("inputs", "groups"), [(31, 1), (32, 1), (33, 2), (96, 3)])
def test_int4_has_one_step_for_each_32_inputs(inputs, groups):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, 5)
    weight = make_twin(layer, "int4").module.weight.detach()
    parts = list(zip(layer.weight.detach().split(32, 1), weight.split(32, 1), strict=True))
    assert len(parts) == groups
    for old, new in parts:
        torch.testing.assert_close(new, rounded(old, 4), rtol=0, atol=0)
        assert all(len(row.unique()) <= 15 for row in new)
        assert torch.equal(new.abs().amax(1), old.abs().amax(1))


@pytest.mark.parametrize("bits", [2, 5, 16])
def test_round_has_one_step_for_a_whole_tensor(bits):
    torch.manual_seed(0)
    module, _ = made("lstm")
    twin = make_twin(module, f"round:{bits}").module
    for key in ("rnn.weight_ih_l0", "rnn.weight_hh_l1", "output.weight"):
        old, new = module.state_dict()[key], twin.state_dict()[key]
        assert len(new.unique()) <= 2**bits - 1
        assert torch.equal(new, rounded(old.flatten(), bits).view_as(old))
    assert torch.equal(twin.embedding.weight, module.embedding.weight)


def test_recurrent_and_attention_weights_are_rounded_by_output_row():
    for name, keys in (
        ("gru", ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l1"]),
        ("encoder", ["layers.0.self_attn.in_proj_weight", "layers.1.self_attn.out_proj.weight"]),
    ):
        module, _ = made(name)
        state = make_twin(module, "int8").module.state_dict()
        for key in keys:
            assert torch.equal(state[key], rounded(module.state_dict()[key], 8))
            assert torch.equal(state[key].abs().amax(1), module.state_dict()[key].abs().amax(1))


def test_shared_weights_are_converted_once_and_stay_shared():
    both = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    both[1].weight = both[0].weight
    twin = make_twin(both, "int8")
    assert twin.module[1].weight is twin.module[0].weight
    assert "per channel: 1 tensor of 2 Linear" in twin.words
    assert "whose tensors (1) stay" in refused(twin.module, "int8")
    both[1].weight = nn.Parameter(both[0].weight.data)  # another parameter, the same memory
    twin = make_twin(both, "int8").module
    assert twin[1].weight.data_ptr() == twin[0].weight.data_ptr() != both[0].weight.data_ptr()
    assert torch.equal(twin[0].weight, rounded(both[0].weight.detach(), 8))


@pytest.mark.parametrize("recipe", [*ROUNDING, "prune:0.5", "tflite", "dynamic", *TORCHAO])
def test_an_output_layer_that_is_the_embedding_stays_in_float(recipe):
    gpt, _ = made("gpt")
    apart, _ = made("gpt")
    apart.head.weight = nn.Parameter(apart.wte.weight.data)  # another parameter, the same memory
    for module in (gpt, apart):
        twin = make_twin(module, recipe)
        assert torch.equal(twin.module.head.weight, module.wte.weight)
        assert twin.module.head.weight.data_ptr() == twin.module.wte.weight.data_ptr()
        assert "head (Linear)" not in twin.converted
        assert twin.words.endswith(", 1 Linear (tied to the embedding)")
    untied, _ = made("gpt")
    untied.head.weight = nn.Parameter(untied.wte.weight.detach().clone())
    twin = make_twin(untied, recipe)
    assert "head (Linear)" in twin.converted
    assert "tied" not in twin.words
    state = twin.module.state_dict()
    assert not torch.equal(state["head.weight"], untied.head.weight)
    assert torch.equal(state["wte.weight"], untied.wte.weight)
    only = nn.ModuleDict({"wte": gpt.wte, "head": gpt.head})
    assert refused(only, recipe).endswith(", and there are none but head (tied to the embedding)")


def test_a_cast_goes_for_a_tied_output_layer_too():
    twin = make_twin(made("gpt")[0], "bf16")
    assert twin.module.head.weight is twin.module.wte.weight
    assert {"wte (Embedding)", "head (Linear)"} <= set(twin.converted)


# --- pruning ---


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["conv", "lstm", "gpt"])
def test_pruning_is_torch_s_own_with_plain_weights_left(name, share):
    module, x = made(name)
    twin = make_twin(module, f"prune:{share}").module
    wanted = deepcopy(module)
    for layer in wanted.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.RNNBase | Conv1D):
            if getattr(layer, "weight", None) is getattr(getattr(wanted, "wte", None), "weight", 0):
                continue  # torch would break the tie
            for key in [key for key, weight in layer.named_parameters() if weight.ndim > 1]:
                prune.l1_unstructured(layer, key, share)
                prune.remove(layer, key)
    state = twin.state_dict()
    assert state.keys() == module.state_dict().keys()
    for key, tensor in wanted.state_dict().items():
        if key not in ("head.weight", "wte.weight"):
            assert torch.equal(state[key], tensor)
    assert isinstance(output(twin, x), torch.Tensor)


# --- half precision ---


@pytest.mark.parametrize(("recipe", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_half_precision_twin_computes_all_in_it_and_speaks_float32(recipe, dtype):
    module, x = made("conv")
    twin = make_twin(module, recipe).module
    seen = []
    twin.conv2.register_forward_hook(lambda _, inputs, out: seen.extend([inputs[0].dtype, out.dtype]))
    result = output(twin, x)
    assert result.dtype == torch.float32
    assert seen == [dtype, dtype]
    assert torch.equal(result, output(deepcopy(module).to(dtype), x.to(dtype)).float())
    assert make_twin(module, recipe).words.endswith("weights rounded")


Pair = namedtuple("Pair", ["total", "place"])


class Shapes(nn.Module):
    """Gives what it is asked for."""

    def __init__(self, form):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.1, 0.2]))
        self.form = form

    def forward(self, x, *, labels=None):
        assert x.dtype == self.scale.dtype
        total, place = x * self.scale, labels if labels is not None else x.argmax(1)
        return {
            "dict": {"total": total, "more": {"place": place, "words": "as they are"}},
            "list": [total, (place, None)],
            "named": Pair(total, place),
        }[self.form]


def test_tensors_are_cast_wherever_they_are_and_all_else_passes():
    x, labels = torch.rand(3, 2), torch.tensor([1, 0, 1])
    total = (x.half() * torch.tensor([0.1, 0.2]).half()).float()

    out = make_twin(Shapes("dict"), "fp16").module(x, labels=labels)
    assert torch.equal(out["total"], total)
    assert out["more"]["place"] is labels
    assert out["more"]["words"] == "as they are"

    out = make_twin(Shapes("list"), "fp16").module(x)
    assert torch.equal(out[0], total)
    assert out[1][0].dtype == torch.int64
    assert out[1][1] is None

    out = make_twin(Shapes("named"), "fp16").module(x)
    assert isinstance(out, Pair)
    assert torch.equal(out.total, total)


def test_weights_that_fit_are_said_to_fit():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.zero_()
    assert make_twin(layer, "fp16").words == (
        "fp16: 2 tensors of 1 Linear cast, and every activation; 0 of 6 weights rounded"
    )


# --- character RNNs ---


@pytest.mark.parametrize("recipe", [*ROUNDING, "prune:0.5"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_rounded_character_rnn_is_one_that_the_fast_decoder_runs(cell, recipe):
    twin = make_twin(char_rnn(cell), recipe).module
    assert isinstance(twin, CharRNN)
    assert {p.dtype for p in twin.parameters()} == {torch.float32}
    batch = rows([3, 8, 5])
    tokens = RNNTarget(twin, Decoding(max_new=12)).run(batch, frozenset({"tokens"}))["tokens"]
    assert [list(row) for row in tokens] == [write(twin, batch.row(i), 12).tokens for i in range(3)]


@pytest.mark.parametrize(("recipe", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_character_rnn_in_half_precision_is_left_to_the_decoder(recipe, dtype):
    twin = make_twin(char_rnn(), recipe).module
    assert isinstance(twin, CharRNN)
    assert {p.dtype for p in twin.parameters()} == {dtype}
    assert output(twin, torch.zeros((1, 3), dtype=torch.int64)).dtype == dtype


@pytest.mark.parametrize("recipe", ["dynamic", "tflite", "torchao"])
def test_a_character_rnn_with_quantised_activations_is_called(recipe):
    base = char_rnn(hidden=80)
    twin = make_twin(base, recipe).module
    assert not isinstance(twin, CharRNN)
    batch = rows([6, 6])
    target = ModuleTarget(twin, "twin", Decoding(max_new=5))
    assert {len(text) for text in target.run(batch, frozenset({"text"}))["text"]} == {5}
    logits = target.decode(batch, frozenset()).logits[0].numpy()
    wanted = base(torch.from_numpy(batch.data.astype(np.int64)))[0][:, -1].detach().numpy()
    gap = np.abs(logits - wanted).max()
    assert 0 < gap < 0.2 * np.abs(wanted).max()


# --- TFLite's hybrid kernels ---


def integers(x, symmetric):
    """One example's 8-bit integers, their step and zero point, by TFLite's formulas."""
    if symmetric:
        step, zero = np.abs(x).max() / 127, 0
    else:
        low, high = min(x.min(), 0), max(x.max(), 0)
        step = (high - low) / 255
        zero = round(-128 - low / step)
    levels = np.clip(np.round(x / step) + zero, -127 if symmetric else -128, 127)
    return levels.astype(np.int64), step, zero


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_a_hybrid_layer_multiplies_integers(activations):
    torch.manual_seed(0)
    layer = nn.Linear(64, 20)
    twin = make_twin(layer, f"tflite:{activations}").module
    x = torch.randn(7, 3, 64) + torch.arange(7)[:, None, None]
    weight = layer.weight.detach().numpy().astype(np.float64)
    integer = np.round(weight / (np.abs(weight).max() / 127)).astype(np.int64)
    wanted = []
    for row in x.reshape(-1, 64).numpy().astype(np.float64):
        levels, step, zero = integers(row, activations == "symmetric")
        products = (integer @ (levels - zero)) * step * np.abs(weight).max() / 127
        wanted.append(products + layer.bias.detach().numpy())
    torch.testing.assert_close(
        output(twin, x).reshape(-1, 20).double(), torch.tensor(np.array(wanted)), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_a_hybrid_convolution_quantises_each_example_by_its_own_range(activations):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 32, 3)
    twin = make_twin(layer, f"tflite:{activations}").module
    x = torch.randn(5, 4, 6, 6) * torch.tensor([1, 10, 0.1, 3, 0])[:, None, None, None]
    levels = []
    for image in x[:4].numpy().astype(np.float64):
        level, step, zero = integers(image, activations == "symmetric")
        assert len(np.unique(level)) > 50
        levels.append((level - zero) * step)
    weight = rounded(layer.weight.detach().flatten(), 8).view_as(layer.weight)
    wanted = nn.functional.conv2d(torch.tensor(np.array(levels)).float(), weight, layer.bias)
    result = output(twin, x)
    torch.testing.assert_close(result[:4], wanted, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(result[4], layer.bias.detach()[:, None, None].expand(32, 4, 4))
    torch.testing.assert_close(torch.cat([output(twin, image[None]) for image in x]), result)


def test_tflite_leaves_small_layers_in_float():
    layers = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 31))
    twin = make_twin(layers, "tflite")
    assert twin.converted == ("0 (Linear)",)
    assert torch.equal(twin.module[1].weight, layers[1].weight)
    assert not twin.module[1]._forward_pre_hooks


def test_gradients_go_through_the_rounding_of_activations():
    module, x = made("conv")
    twin = make_twin(module, "tflite").module
    slopes = []
    for model in (module, twin):
        image = x.clone().requires_grad_()
        model(image)[:, 0].sum().backward()
        slopes.append(image.grad.flatten())
    assert torch.cosine_similarity(*slopes, dim=0) > 0.98


def test_attention_s_output_layer_stays_in_float_where_its_input_cannot_be_quantised():
    twin = make_twin(encoder(), "tflite")
    assert {part.rpartition(".")[2] for part in twin.converted} == {"linear1 (Linear)", "linear2 (Linear)"}


# --- torchao's kernels ---


@pytest.mark.parametrize("name", ["mlp", "gpt", "encoder"])
def test_torchao_rounds_as_it_says(name):
    module, x = made(name)
    state = module.state_dict()
    for recipe, bits in (("torchao", 8), ("torchao:int8dq", 8)):
        twin = make_twin(module, recipe)
        after = twin.module.state_dict()
        for part in twin.converted:
            key = part.partition(" ")[0] + ".weight"
            old, new = (one[key].T if "Conv1D" in part else one[key] for one in (state, after))
            step = old.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            assert ((new - old).abs() <= step * 0.51).all()
            assert all(len(row.unique()) <= 2**bits for row in new)
    alone = torch.cat([output(twin.module, row[None]) for row in x])
    torch.testing.assert_close(alone, output(twin.module, x))  # a row is no business of its neighbours


def test_layers_that_groups_do_not_fit_are_left_alone_and_named():
    module, _ = made("mlp")
    twin = make_twin(module, "torchao:int4")
    assert twin.converted == ("2 (Linear)",)
    assert twin.words == (
        "torchao's int4: 1 tensor of 1 Linear rounded in groups of 32 inputs;"
        " left alone: 2 Linear (inputs not a multiple of 32), biases"
    )
    weight = twin.module.state_dict()["2.weight"]
    assert all(len(group.unique()) <= 16 for row in weight for group in row.split(32))
    assert torch.equal(twin.module[0].weight, module[0].weight)
    said = refused(nn.Sequential(nn.Linear(31, 4)), "torchao:int4")
    assert said.endswith(
        "Linear and GPT-2's Conv1D layers, and there are none but 0 (inputs not a multiple of 32)"
    )


@pytest.mark.parametrize("recipe", [recipe for recipe in EVERY if recipe != "dynamic"])
def test_a_layer_that_is_used_twice_is_one(recipe):  # torch's dynamic takes the first use alone
    torch.manual_seed(0)
    layer = nn.Linear(32, 32)
    module, x = nn.Sequential(layer, nn.Tanh(), layer), torch.rand(5, 32)
    twin = make_twin(module, recipe)
    assert twin.converted == ("0 (Linear)",)
    state = twin.module.state_dict()
    assert torch.equal(state["0.weight"], state["2.weight"])
    assert 0 < (output(twin.module, x) - output(module, x)).abs().max() < 0.5


def test_a_single_layer_is_quantised_by_torchao():
    twin = make_twin(nn.Linear(4, 4), "torchao")
    assert twin.converted == ("Linear",)
    assert set(twin.module.state_dict()) == {"weight", "bias"}
    assert "and there are none" in refused(Conv1D(4, 4), "torchao")


def test_torchao_s_twins_have_fingerprints_and_do_not_touch_the_precision_of_others():
    module, _ = made("mlp")
    precision = torch.get_float32_matmul_precision()
    twins = [make_twin(module, recipe).module for recipe in TORCHAO]
    assert torch.get_float32_matmul_precision() == precision
    prints = [fingerprint(one, "") for one in (module, *twins)]
    assert len({prints[0], prints[1], prints[3]}) == 3
    assert [fingerprint(deepcopy(one), "") for one in twins] == prints[1:]


def test_what_is_quantised_already_is_refused():
    twin = make_twin(made("mlp")[0], "torchao").module
    for recipe in ("int8", "fp16", "torchao"):
        assert refused(twin, recipe).startswith(
            f"{recipe}: this Sequential is already quantized (Int8Tensor)"
        )


def test_without_torchao_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert refused(mlp(), "torchao:int4") == (
        "the recipe torchao needs the package torchao: pip install 'lmfuzz[torchao]'"
    )


def test_torchao_is_quiet_and_loaded_only_when_asked_for():
    code = (
        "import sys; from torch import nn; from lmfuzz.targets.twins.compress import make_twin;"
        "make_twin(nn.Linear(4, 4), 'int8'); print('torchao' in sys.modules);"
        "make_twin(nn.Linear(4, 4), 'torchao'); print('torchao' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr == ""


# --- what changes nothing, and what cannot be ---


@pytest.mark.parametrize("recipe", ["int8", "int8:per=tensor", "int4", "round:3", "prune:0.5", "tflite"])
def test_what_is_compressed_already_is_refused(recipe):
    module, _ = made("conv")
    again = make_twin(module, recipe).module
    said = refused(again, recipe)
    assert said.startswith(f"{recipe} changes nothing in this Sequential: it seeks Linear")
    assert said.endswith(f"whose tensors ({2 if recipe == 'tflite' else 3}) stay as they were")


def test_a_share_that_prunes_nothing_is_refused():
    assert "prune:0.01 changes nothing in this Linear" in refused(nn.Linear(4, 4), "prune:0.01")


@pytest.mark.parametrize("recipe", EVERY)
def test_a_module_without_weights_is_refused(recipe):
    said = refused(nn.Sequential(nn.ReLU(), nn.Flatten()), recipe)
    assert said.startswith(f"{recipe} changes nothing in this Sequential: it seeks ")
    assert said.endswith(", and there are none")


def test_embeddings_and_norms_alone_are_nothing_to_round():
    assert "and there are none" in refused(nn.Sequential(nn.Embedding(9, 9), nn.LayerNorm(9)), "int8")
    assert "and there are none" in refused(nn.Linear(4, 4).half(), "fp16")


def test_weights_that_are_no_numbers_are_refused():
    module, _ = made("conv")
    with torch.no_grad():
        module.conv2.weight[0, 0, 0, 0] = torch.nan
    assert refused(module, "int4") == "int4: conv2 has weights that are not finite"
    with torch.no_grad():
        module.output.weight[0, 0] = torch.inf
    assert refused(module, "torchao") == "torchao: output has weights that are not finite"


@pytest.mark.parametrize("recipe", [*ROUNDING, "prune:0.5", "tflite", *TORCHAO])
def test_a_base_of_half_precision_has_twins_of_that_precision(recipe):
    module, x = mlp().eval().bfloat16(), torch.rand(6, 20).bfloat16()
    gap = (output(make_twin(module, recipe).module, x) - output(module, x)).abs().max()
    assert gap.dtype == torch.bfloat16
    assert "float32" not in make_twin(module, recipe).words
    assert 0 < gap < 0.5


def test_torch_s_dynamic_layers_take_float32_alone():
    said = refused(mlp().bfloat16(), "dynamic")
    assert said == "dynamic takes float32 layers on the CPU, not torch.bfloat16 on cpu; use torchao"


def test_weights_that_are_made_anew_at_each_call_are_refused():
    frozen = mlp().requires_grad_(False)
    prune.l1_unstructured(frozen[2], "weight", 0.5)
    assert refused(frozen, "int8").startswith("2 computes its weight again at each call")
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))
    assert refused(normed, "round:4").startswith("0 computes its weight again at each call")
    pruned = mlp()
    prune.l1_unstructured(pruned[2], "weight", 0.5)
    assert "cannot be copied" in refused(pruned, "int8")
    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)  # its bias_v is none of these
    assert make_twin(attention, "int8").converted == ("MultiheadAttention", "out_proj (Linear)")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_can_be_cast_rounded_and_pruned():
    module, x = made("conv")
    script = torch.jit.trace(module, x)
    for recipe in ("fp16", "bf16", *ROUNDING, "prune:0.5"):
        wanted, twin = make_twin(module, recipe), make_twin(script, recipe)
        torch.testing.assert_close(output(twin.module, x), output(wanted.module, x), atol=1e-2, rtol=1e-2)
        assert twin.converted == wanted.converted
    torch.testing.assert_close(output(script, x), output(module, x))
    for recipe in ("tflite", "dynamic", "torchao"):
        assert "TorchScript" in refused(script, recipe)


def test_a_called_module_tells_what_its_own_tells():
    gpt, x = made("gpt")
    called = Called(gpt)
    assert called.alphabet == gpt.alphabet
    assert torch.equal(output(deepcopy(called), x), output(gpt, x))
    assert not hasattr(called, "config")


# --- how recipes are written ---


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("fp16", FP16()),
        (" int8 ", Int8("channel")),
        ("int8:tensor", Int8("tensor")),
        ("int8:per=tensor", Int8("tensor")),
        ("round:4", Round(4)),
        ("round:bits=16", Round(16)),
        ("prune:0.5", Prune(0.5)),
        ("prune:share=0.50", Prune(0.5)),
        ("tflite:asymmetric", TFLite("asymmetric")),
        ("torchao", TorchAO("int8")),
        ("torchao:int8dq", TorchAO("int8dq")),
        ("torchao:scheme=int4", TorchAO("int4")),
    ],
)
def test_recipes_are_read_and_spelled(text, recipe):
    assert read(text) == recipe
    assert read(str(recipe)) == recipe
    assert is_recipe(text)


def test_how_recipes_are_spelled_stays_since_identities_hold_it():
    texts = ("int8", "int8:per=tensor", "round:4", "prune:0.5", "tflite:activations=asymmetric", "dynamic")
    for text in (*texts, "fp16", "bf16", "int4", "tflite", "torchao", "torchao:scheme=int8dq"):
        assert str(read(text)) == text
    assert str(read("int8:channel")) == "int8"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int9", "unknown recipe 'int9'; did you mean 'int8'? (`lmfuzz list recipes` shows all)"),
        ("zip", "unknown recipe 'zip' (`lmfuzz list recipes`"),
        ("fp16:4", "fp16 has no parameter '4'; fp16 takes no parameters"),
        ("round", "round needs bits (a whole number): round:bits=..."),
        ("round:1", "round: bits must be greater than or equal to 2, not 1"),
        ("round:17", "round: bits must be less than or equal to 16, not 17"),
        ("round:4.5", "round: bits must be a whole number, not 4.5"),
        ("round:true", "round: bits must be a whole number, not true"),
        ("prune:0", "prune: share must be greater than 0, not 0"),
        ("prune:1", "prune: share must be less than 1, not 1"),
        ("prune:half", 'prune: share must be a number, not "half"'),
        ("prune:share=nan", "prune: share must be "),
        ("prune:amount=0.5", "prune has no parameter 'amount'; prune takes share"),
        ("torchao:int2", "torchao: scheme must be 'int8', 'int8dq' or 'int4', not \"int2\""),
        ("int8:per=row", "int8: per must be 'channel' or 'tensor', not \"row\""),
        ("round:4,bits=5", "round: bits is given twice, first without its name"),
        ("int8(fp16)", "int8 does not combine others; leave out the parentheses"),
        ("int8:", "cannot read 'int8:': a value is missing"),
    ],
)
def test_a_wrong_recipe_is_one_clear_sentence(text, said):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value).startswith(said)


def test_paths_are_no_recipes():
    assert all(is_recipe(name) and is_recipe(f"{name}:oops=1") for name in RECIPES.table)
    for path in ("", "runs/int8", "int8/", "./fp16", "fp16.pt", "twin.py:make", "rounded", "my:int8"):
        assert not is_recipe(path)
