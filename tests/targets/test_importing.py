"""Checkpoints as people have them become folders whose models compute the same."""

import json
import pickle
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.hostile import Malicious
from helpers.plain import char_rnn
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.targets import checkpoint
from lmfuzz.targets.classifiers import Classifier, ClassifierConfig
from lmfuzz.targets.importing.folder import make

torch.set_num_threads(1)
TEXT = "\n abcdefghijklmnopqrstuvwxyz"
SIZE = len(TEXT)


class Spro(nn.Module):
    """A network with the names of the most copied character RNN of PyTorch."""

    def __init__(self, cell="gru", symbols=SIZE, embedding=12, hidden=12, layers=2, bias=True, **more):
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.encoder = nn.Embedding(symbols, embedding) if embedding else None
        reads = embedding or symbols
        self.rnn = kind(reads, hidden, layers, batch_first=True, bias=bias, **more)
        width = more.get("proj_size") or hidden
        self.decoder = nn.Linear(width * (1 + more.get("bidirectional", False)), symbols, bias=bias)

    def forward(self, symbols):
        one_hot = nn.functional.one_hot(symbols, self.decoder.out_features).float()
        return self.decoder(self.rnn(self.encoder(symbols) if self.encoder else one_hot)[0])


class Cells(nn.Module):
    """Layers that are modules of their own, eleven of them, so that their names sort badly."""

    def __init__(self, single):
        super().__init__()
        self.table = nn.Embedding(SIZE, 6)
        kind = nn.LSTMCell if single else (lambda *sizes: nn.LSTM(*sizes, batch_first=True))
        self.layers = nn.ModuleList(kind(6, 6) for _ in range(11))
        self.out = nn.Linear(6, SIZE)

    def forward(self, symbols):
        states = self.table(symbols)
        for layer in self.layers:
            if isinstance(layer, nn.LSTM):
                states = layer(states)[0]
                continue
            state, steps = None, []
            for step in states.unbind(1):
                state = layer(step, state)
                steps.append(state[0])
            states = torch.stack(steps, 1)
        return self.out(states)


def original(make_one=Spro, seed=0, **how):
    """A module of random weights, large enough that symbols matter."""
    torch.manual_seed(seed)
    module = make_one(**how).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    return module


def saved(content, path):
    torch.save(content, path)
    return path


def same(module, folder, alphabet=TEXT, exact=True):
    """The folder's model has this alphabet and computes what the module does."""
    loaded = checkpoint.load(folder)
    assert loaded.config.alphabet == alphabet
    rows = torch.randint(len(alphabet), (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded(rows)[0], module(rows), **({} if exact else {"atol": 0.1, "rtol": 0.1})
        )
    return loaded


def refused(file, folder, *words, kind=TargetError, **options):
    """Importing fails with one sentence that holds these words, and nothing is written."""
    with pytest.raises(kind) as caught:
        make(file, folder, **{"alphabet": TEXT, **options})
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500 + 3 * len(str(file))
    for word in words:
        assert word in message, message
    assert not folder.exists()
    return message


# --- the forms that people save ---

NESTS = {
    "bare": lambda state: state,
    "model_state_dict": lambda state: {
        "epoch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "loss": 1.5,
    },
    "state_dict": lambda state: {"state_dict": state, "hyper_parameters": {"lr": 0.1}, "ema": dict(state)},
    "net": lambda state: {"weights": {"net": state}, "step": torch.tensor(7)},
    "optimizer first": lambda state: {
        "optim": {"a": {f"m{i}": torch.zeros(2) for i in range(99)}},
        "x": state,
    },
}


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_a_dictionary_of_tensors_is_found_wherever_it_is(nest, tmp_path):
    module = original()
    line = make(saved(nest(module.state_dict()), tmp_path / "a.pt"), tmp_path / "m", TEXT)
    assert line == f"gru, 2 layers of 12, embedding of 12, {SIZE} characters"
    same(module, tmp_path / "m")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.", "net.core."])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_prefixes_do_not_matter(prefix, cell, tmp_path):
    module = original(cell=cell, embedding=5, layers=3)
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    make(saved(state, tmp_path / "a.ckpt"), tmp_path / "m", TEXT)
    assert same(module, tmp_path / "m").config.cell == cell


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "a.safetensors"])
def test_files_of_every_suffix_are_read(name, tmp_path):
    module = original()
    write = save_file if name.endswith("safetensors") else torch.save
    write(module.state_dict(), tmp_path / name)
    make(tmp_path / name, tmp_path / "m", TEXT)
    same(module, tmp_path / "m")


def test_a_file_of_before_torch_1_6_is_read(tmp_path):
    module = original()
    torch.save(module.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    make(tmp_path / "a.pth", tmp_path / "m", TEXT)
    same(module, tmp_path / "m")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind, tmp_path):
    module = original()
    state = {name: tensor.to(kind) for name, tensor in module.state_dict().items()}
    make(saved(state, tmp_path / "a.pt"), tmp_path / "m", TEXT)
    loaded = same(module, tmp_path / "m", exact=kind == torch.float64)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    "how",
    [
        {"embedding": 0},
        {"embedding": 0, "hidden": SIZE, "layers": 1},
        {"embedding": 0, "bias": False, "cell": "lstm"},
        {"bias": False},
        {"bias": False, "embedding": 5},
        {"hidden": SIZE, "embedding": SIZE},
        {"embedding": 12, "hidden": 12, "layers": 1, "cell": "lstm"},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_one_hot_input_and_missing_biases_are_seen_from_the_shapes(how, suffix, tmp_path):
    module = original(**how)
    write = save_file if suffix == ".safetensors" else torch.save
    write(module.state_dict(), tmp_path / f"a{suffix}")
    make(tmp_path / f"a{suffix}", tmp_path / "m", TEXT)
    same(module, tmp_path / "m")


@pytest.mark.parametrize("once", [False, True])
def test_tied_weights_may_be_stored_once(once, tmp_path):
    module = original()
    module.decoder.weight = module.encoder.weight
    state = module.state_dict()
    if once:
        del state["encoder.weight"]
    make(saved(state, tmp_path / "a.pt"), tmp_path / "m", TEXT)
    same(module, tmp_path / "m")


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_layers_may_be_modules_of_their_own(single, suffix, tmp_path):
    module = original(Cells, single=single)
    write = save_file if suffix == ".safetensors" else torch.save
    write(module.state_dict(), tmp_path / f"a{suffix}")
    make(tmp_path / f"a{suffix}", tmp_path / "m", TEXT)
    assert same(module, tmp_path / "m").config.layers == 11


# --- what is refused ---


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"bidirectional": True}, ["also has rnn.weight_ih_l0_reverse (36, 12)"]),
        ({"cell": "lstm", "proj_size": 5}, ["rnn.weight_hh_l0 (48, 5)"]),
    ],
)
def test_another_network_is_refused_by_name_and_shape(how, words, tmp_path):
    refused(saved(original(**how).state_dict(), tmp_path / "a.pt"), tmp_path / "m", *words)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("norm.weight", torch.ones(12), ["also has norm.weight (12,)", "one linear layer"]),
        ("hidden.weight", torch.ones(12, 12), ["also has hidden.weight (12, 12)"]),
        ("decoder.weight", torch.ones(SIZE, 9), [f"decoder.weight ({SIZE}, 9)"]),
        ("encoder.weight", torch.ones(SIZE, 9), [f"encoder.weight ({SIZE}, 9)"]),
        ("rnn.weight_hh_l1", torch.ones(36, 9), ["tensor rnn.weight_hh_l1", "(36, 9)", "(36, 12)"]),
        ("rnn.weight_hh_l0", torch.ones(60, 12), ["rnn.weight_hh_l0 (60, 12)"]),
        ("rnn.weight_hh_l0", torch.ones(0), ["rnn.weight_hh_l0 (0,)"]),
        ("rnn.weight_hh_l0", torch.ones(0, 0), ["rnn.weight_hh_l0 (0, 0)"]),
        ("rnn.weight_hh_l0", torch.tensor(1.0), ["rnn.weight_hh_l0 ()"]),
        ("rnn.weight_hh_l0", torch.ones(37, 12), ["tensor rnn.weight_hh_l0", "(37, 12)", "(36, 12)"]),
        ("rnn.weight_ih_l0", torch.ones(36), ["rnn.weight_ih_l0 (36,)"]),
        ("rnn.bias_hh_l0", torch.ones(9), ["tensor rnn.bias_hh_l0", "(9,)", "(36,)"]),
        ("decoder.bias", torch.full((SIZE,), torch.nan), ["decoder.bias", "NaN"]),
        ("decoder.bias", torch.ones(SIZE, dtype=torch.int8), ["decoder.bias", "floating-point"]),
        ("decoder2.weight", torch.ones(SIZE, 12), [f"also has decoder2.weight ({SIZE}, 12)"]),
        ("lower.weight_hh", torch.ones(36, 12), ["also has lower.weight_hh (36, 12)"]),
    ],
)
def test_what_does_not_belong_is_named_with_its_shape(name, tensor, words, tmp_path):
    state = original().state_dict() | {name: tensor}
    refused(saved(state, tmp_path / "a.pt"), tmp_path / "m", *words)


def test_a_file_without_recurrent_layers_shows_what_it_has(tmp_path):
    file = saved(nn.Linear(3, 4).state_dict(), tmp_path / "a.pt")
    refused(file, tmp_path / "m", "has no such layers, but weight (4, 3), bias (4,)")
    refused(saved({"epoch": 3}, file), tmp_path / "m", "is not a dictionary of tensors (a state_dict)")


def test_two_stacks_or_two_networks_are_refused(tmp_path):
    state = original().state_dict()
    two = {f"{part}.{name}": tensor for part in ("encoder", "decoder") for name, tensor in state.items()}
    refused(saved(two, tmp_path / "a.pt"), tmp_path / "m", "encoder.rnn.weight_ih_l0 (36, 12)")
    file = saved({"actor": state, "critic": dict(state)}, tmp_path / "b.pt")
    refused(file, tmp_path / "m", "several networks, actor and critic")


class AttributeDict(dict):  # as Lightning has it
    """Hyper-parameters that are no plain data."""


def test_objects_in_a_checkpoint_are_named_and_not_read(tmp_path):
    state = original().state_dict()
    lightning = {"state_dict": state, "hyper_parameters": AttributeDict(lr=0.1)}
    words = ["AttributeDict", "save its state_dict: torch.save(model.state_dict(), 'weights.pt')"]
    refused(saved(lightning, tmp_path / "a.ckpt"), tmp_path / "m", *words)
    refused(
        saved(original(), tmp_path / "whole.pt"), tmp_path / "m", "holds more than tensors: objects such as"
    )
    (tmp_path / "junk.pt").write_bytes(b"junk")
    refused(tmp_path / "junk.pt", tmp_path / "m", "damaged")


def test_a_plain_rnn_is_imported_once_it_can_be_run(tmp_path):
    torch.manual_seed(0)
    rnn, embedding, output = nn.RNN(5, 8, batch_first=True), nn.Embedding(SIZE, 5), nn.Linear(8, SIZE)
    module = nn.ModuleDict({"rnn": rnn, "e": embedding, "o": output})
    file = saved(module.state_dict(), tmp_path / "a.pt")
    if "rnn" not in str(type(char_rnn().config).model_fields["cell"].annotation):
        refused(file, tmp_path / "m", "rnn.weight_hh_l0 (8, 8)")
    else:
        make(file, tmp_path / "m", TEXT)
        same(lambda symbols: output(rnn(embedding(symbols))[0]), tmp_path / "m")


# --- alphabets ---

INDEX = {symbol: i for i, symbol in enumerate(TEXT)}
BACK = dict(enumerate(TEXT))


@pytest.mark.parametrize(
    "more",
    [
        {"alphabet": TEXT},
        {"chars": list(TEXT)},
        {"char2idx": INDEX},
        {"vocab": {"stoi": INDEX, "size": SIZE}},
        {"hyper_parameters": {"itos": BACK}},
        {"idx_to_char": BACK},
        {"vocab_size": SIZE, "all_characters": tuple(TEXT)},
        {"tokens": "char", "vocab": "vocabulary.txt", "ix_to_char": BACK},
        {"chars": TEXT[:-1], "id2char": list(TEXT)},
    ],
    ids=str,
)
def test_the_checkpoint_may_hold_its_alphabet(more, tmp_path):
    module = original()
    make(saved({"model": module.state_dict(), **more}, tmp_path / "a.pt"), tmp_path / "m")
    same(module, tmp_path / "m")


def as_pickle(content, path):
    path.write_bytes(pickle.dumps(content))
    return str(path)


def as_text(text, path):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: TEXT,
        lambda folder: as_text(TEXT, folder / "alphabet.txt"),
        lambda folder: as_text(TEXT + "\n", folder / "alphabet"),
        lambda folder: as_text(json.dumps(list(TEXT)), folder / "alphabet.json"),
        lambda folder: as_text(json.dumps(INDEX), folder / "alphabet.json"),
        lambda folder: as_text(json.dumps(BACK), folder / "alphabet.json"),
        lambda folder: as_text(json.dumps({"itos": BACK, "vocab_size": SIZE}), folder / "meta.json"),
        lambda folder: as_pickle({"vocab_size": SIZE, "itos": BACK, "stoi": INDEX}, folder / "meta.pkl"),
    ],
)
def test_an_alphabet_is_a_text_or_a_file(write, tmp_path):
    module = original()
    make(saved(module.state_dict(), tmp_path / "a.pt"), tmp_path / "m", write(tmp_path), allow_pickle=True)
    same(module, tmp_path / "m")


def test_a_long_text_is_no_path(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    module = original(symbols=5000)
    make(saved(module.state_dict(), tmp_path / "a.pt"), tmp_path / "m", text)
    same(module, tmp_path / "m", text)


def test_printable_is_pythons(tmp_path):
    module = original(symbols=100, hidden=100, embedding=100)
    make(saved(module.state_dict(), tmp_path / "a.pt"), tmp_path / "m", "printable")
    same(module, tmp_path / "m", string.printable)


@pytest.mark.parametrize(
    ("alphabet", "words"),
    [
        ("abc", ["the alphabet has 3 symbols", f"knows {SIZE} (decoder.weight ({SIZE}, 12) in "]),
        ("", ["the checkpoint holds no alphabet", "--alphabet FILE, TEXT or printable", f"{SIZE} symbols"]),
        (TEXT[:-1] + "a", ["'a' more than once"]),
        (["<s>", *TEXT[1:]], ["symbols of several characters", "has 1: '<s>'"]),
        ({"a": 1, "b": 7}, ["holds no alphabet"]),
    ],
)
def test_a_wrong_alphabet_is_refused(alphabet, words, tmp_path):
    file = saved(original().state_dict(), tmp_path / "a.pt")
    given = alphabet if isinstance(alphabet, str) else as_text(json.dumps(alphabet), tmp_path / "a.json")
    refused(file, tmp_path / "m", *words, kind=UsageError, alphabet=given)


@pytest.mark.parametrize(
    ("name", "words"), [("nope.json", "there is no file"), ("broken.json", "is not JSON")]
)
def test_a_file_that_is_missing_or_broken_is_not_an_alphabet(name, words, tmp_path):
    torch.save(original().state_dict(), tmp_path / "net.pt")
    (tmp_path / "broken.json").write_text('{"a": 0,')
    with pytest.raises(UsageError, match=words):
        make(tmp_path / "net.pt", tmp_path / "out", str(tmp_path / name))


def test_a_pickled_alphabet_runs_no_code(tmp_path):
    file = saved(original().state_dict(), tmp_path / "a.pt")
    plain = as_pickle({"itos": BACK}, tmp_path / "meta.pkl")
    refused(file, tmp_path / "m", "--allow-pickle", kind=UsageError, alphabet=plain)
    harmful = as_pickle({"itos": BACK, "x": Malicious(tmp_path / "harm")}, tmp_path / "bad.pkl")
    words = ["bad.pkl is not a pickle of plain data", "mkdir"]
    refused(file, tmp_path / "m", *words, kind=UsageError, alphabet=harmful, allow_pickle=True)
    assert not (tmp_path / "harm").exists()
    (tmp_path / "cut.pkl").write_bytes(Path(plain).read_bytes()[:-9])
    cut = {"alphabet": str(tmp_path / "cut.pkl"), "allow_pickle": True}
    refused(file, tmp_path / "m", "not a pickle of plain data", kind=UsageError, **cut)


# --- folders of lmfuzz's own whose weights someone else wrote ---


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.model.", ""])
@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_with_nested_or_prefixed_weights_loads(prefix, nested, tmp_path):
    model = char_rnn(hidden=6, embedding=4)
    checkpoint.save(model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    saved({"epoch": 3, "model_state_dict": state} if nested else state, tmp_path / "m" / "model.pt")
    loaded = checkpoint.load(tmp_path / "m", allow_pickle=True)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    del state[f"{prefix}output.bias"]
    saved(state, tmp_path / "m" / "model.pt")
    with pytest.raises(TargetError, match=r"lacks tensors: output\.bias \(13,\)"):
        checkpoint.load(tmp_path / "m", allow_pickle=True)


def test_a_classifiers_own_prefix_is_put_back(tmp_path):
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(architecture="mlp", shape=(8, 8, 1)))
    checkpoint.save(model, tmp_path / "m")
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "m" / "model.safetensors")
    loaded = checkpoint.load(tmp_path / "m").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


# --- nanoGPT ---


class Block(nn.Module):
    """A block of nanoGPT's, in the plainest way."""

    def __init__(self, width, heads, bias):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.attn.c_proj = nn.Linear(width, width, bias=bias)
        self.mlp.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.mlp.c_proj = nn.Linear(4 * width, width, bias=bias)
        self.heads = heads

    def forward(self, x):
        rows, steps, width = x.shape
        parts = self.attn.c_attn(self.ln_1(x)).chunk(3, dim=2)
        query, key, value = (p.view(rows, steps, self.heads, -1).transpose(1, 2) for p in parts)
        scores = query @ key.mT / (width // self.heads) ** 0.5
        seen = torch.ones(steps, steps).tril().bool()
        mixed = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1) @ value
        x = x + self.attn.c_proj(mixed.transpose(1, 2).reshape(rows, steps, width))
        return x + self.mlp.c_proj(nn.functional.gelu(self.mlp.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    """nanoGPT's network: embeddings of tokens and places, blocks, a head that may be tied."""

    def __init__(self, bias=False, tied=True):
        super().__init__()
        width = 16
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(SIZE, width), "wpe": nn.Embedding(40, width),
            "h": nn.ModuleList(Block(width, 2, bias) for _ in range(2)),
            "ln_f": nn.LayerNorm(width, bias=bias),
        })  # fmt: skip
        self.lm_head = nn.Linear(width, SIZE, bias=False)
        if tied:
            self.transformer.wte.weight = self.lm_head.weight

    def forward(self, symbols):
        parts = self.transformer
        x = parts["wte"](symbols) + parts["wpe"](torch.arange(symbols.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 40, "vocab_size": SIZE, "dropout": 0.2}


def nano(path, prefix="", more=None, args=ARGS, **how):
    """A checkpoint as nanoGPT's training writes it, and its network."""
    module = original(NanoGPT, **how)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            assert parameter.abs().max() > 0, name
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()} | (more or {})
    optimizer = torch.optim.AdamW(module.parameters())
    content = {
        "model": state, "optimizer": optimizer.state_dict(), "model_args": args, "iter_num": 9,
        "best_val_loss": torch.tensor(1.5), "config": {"device": "cuda", "compile": True, "dataset": "x"},
    }  # fmt: skip
    return saved(content, path), module


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"bias": True, "prefix": "_orig_mod."},
        {"tied": False, "prefix": "module."},
        {"more": {"transformer.h.0.attn.bias": torch.ones(1, 1, 40, 40)}},
    ],
    ids=str,
)
def test_a_character_model_of_nanogpt_becomes_a_hugging_face_folder(how, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file, module = nano(tmp_path / "ckpt.pt", **how)
    meta = as_pickle({"vocab_size": SIZE, "itos": BACK, "stoi": INDEX}, tmp_path / "meta.pkl")
    line = make(file, tmp_path / "m", meta, allow_pickle=True)
    assert line == f"gpt2, 2 layers of 16, 2 heads, a window of 40, {SIZE} characters"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    rows = torch.randint(SIZE, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(rows).logits, module(rows))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    text = "  a b\n\nzz  \n"
    assert tokenizer(text).input_ids == [INDEX[character] for character in text]
    assert tokenizer("a, (?)b").input_ids == tokenizer("a b").input_ids
    assert tokenizer.decode([INDEX[c] for c in TEXT * 2]) == TEXT * 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"args": {}}, ["lacks the model_args"]),
        ({"args": {**ARGS, "n_head": 3}}, ["model_args"]),
        ({"args": {**ARGS, "n_layer": 3}}, ["lacks tensors: transformer.h.2.attn.c_attn.weight (16, 48)"]),
        ({"args": {**ARGS, "block_size": 50}}, ["transformer.wpe.weight", "(40, 16)", "(50, 16)"]),
        ({"more": {"value.weight": torch.ones(3)}}, ["has unknown tensors: value.weight (3,)"]),
    ],
)
def test_another_gpt_is_refused(how, words, tmp_path):
    refused(nano(tmp_path / "ckpt.pt", **how)[0], tmp_path / "m", *words)


def test_a_gpt_of_words_is_refused(tmp_path):
    file, _ = nano(tmp_path / "ckpt.pt")
    words = [f"the alphabet has 3 symbols, and the model knows {SIZE} (transformer.wte.weight ({SIZE}, 16)"]
    refused(file, tmp_path / "m", *words, kind=UsageError, alphabet="abc")
    assert np.all(original(NanoGPT)(torch.zeros(1, 2, dtype=torch.long)).shape == (1, 2, SIZE))
