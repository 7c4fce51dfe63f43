"""Sound checkpoints come back as they were; each unsound one is refused in one sentence."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.hostile import Malicious
from helpers.plain import char_rnn, rows
from lmfuzz.errors import TargetError
from lmfuzz.spec import Spec
from lmfuzz.targets import checkpoint
from lmfuzz.targets.loading import load_target
from lmfuzz.targets.modules.target import RNNTarget

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(char_rnn(hidden=6, embedding=4), tmp_path / "model")
    return tmp_path / "model"


def refused(folder, *words, **options):
    """Loading fails with one sentence that holds these words."""
    with pytest.raises(TargetError) as caught:
        checkpoint.load(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    for word in words:
        assert word in message
    return message


def with_tensors(folder, change):
    """The checkpoint after ``change`` was made to its dictionary of tensors."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def with_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def as_pickle(folder, content, name="model.pt"):
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(content, folder / name)
    return folder


# --- sound ones ---


def test_a_config_may_begin_with_a_byte_order_mark(folder):
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert checkpoint.load(folder).config.hidden == 6


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_saved_model_comes_back_as_it_was(cell, layers, tmp_path):
    model = char_rnn(cell, layers, hidden=6, embedding=4, alphabet='aB\n"\\é\U0001f600/')
    checkpoint.save(model, tmp_path / "new" / "folder")
    loaded = checkpoint.load(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    batch = rows([3, 5, 1], 8)
    before, after = (RNNTarget(m).run(batch, frozenset({"tokens"}))["tokens"] for m in (model, loaded))
    np.testing.assert_array_equal(before, after)
    assert RNNTarget(model).identity == RNNTarget(loaded).identity


def test_saving_again_replaces_what_was_there(folder):
    other = char_rnn("gru", hidden=5, embedding=3, seed=9)
    checkpoint.save(other, folder)
    assert torch.equal(checkpoint.load(folder).output.weight, other.output.weight)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_precisions_become_float32(folder, kind):
    def convert(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(kind)

    half = load_file(with_tensors(folder, convert) / "model.safetensors")
    for name, tensor in checkpoint.load(folder).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, half[name].float())


def test_a_pickled_state_dict_is_read_when_that_is_allowed(folder):
    wanted = checkpoint.load(folder).state_dict()
    as_pickle(folder, wanted)
    loaded = checkpoint.load(folder, allow_pickle=True).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in wanted.items())


def test_safetensors_are_read_where_a_pickle_lies_beside(folder):
    (folder / "training.pt").write_bytes(b"no pickle at all")
    checkpoint.load(folder)
    checkpoint.load(folder, allow_pickle=True)


# --- files ---


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere"), "config.json")


def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("{}")
    refused(tmp_path / "file", "file")


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, str(folder), "config.json")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, str(folder), "model.safetensors")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99])
def test_truncated_weights(folder, share):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(folder, str(path))


def test_weights_that_are_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)
    refused(folder, str(folder / "model.safetensors"))


# --- config ---


@pytest.mark.parametrize(
    "content", [b"", b"{", b"alphabet: abc", b"null", b"[]", b"7", b"\xff\xfe{}", b"[" * 99999]
)
def test_a_config_that_is_no_json_object(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(folder, str(folder / "config.json"))
    with pytest.raises(TargetError, match=r"config\.json"):
        load_target(Spec(model=str(folder)))


def test_a_key_that_is_not_unicode_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "\ud800": 1}))
    refused(folder, "cannot be used", "unicode")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "gpt2"),
        ("version", 2),
        ("cell", "cnn"),
        ("hidden", 0),
        ("hidden", "many"),
        ("hidden", 10**30),
        ("embedding", -3),
        ("embedding", 2.5),
        ("layers", 0),
        ("layers", None),
        ("layers", 10**9),
        ("alphabet", "a"),
        ("alphabet", "abca"),
        ("alphabet", ["a", "b"]),
        ("dropout", 0.1),
    ],
)
def test_a_config_with_a_wrong_field_names_it(folder, field, value):
    refused(with_config(folder, **{field: value}), str(folder / "config.json"), field)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"zzz": 1}, "{} has an unknown key 'zzz'"),
        ({"hiden": 1}, "{} has an unknown key 'hiden'; did you mean 'hidden'?"),
        ({"hidden": "x"}, 'in {}, hidden must be a whole number, not "x"'),
        ({"cell": "cnn"}, "in {}, cell must be 'lstm', 'gru' or 'rnn', not \"cnn\""),
        ({"alphabet": "a"}, "in {}, alphabet must hold at least two characters, each of them once"),
    ],
)
def test_a_wrong_config_is_refused_in_words_of_its_own(folder, changes, sentence):
    assert refused(with_config(folder, **changes)) == sentence.format(folder / "config.json")


def test_a_foreign_config_is_told_the_right_format(folder):
    (folder / "config.json").write_text('{"alphabet": "abc", "hidden": 3}')
    refused(folder, "is not one of lmfuzz's", 'with "format": "lmfuzz-char-rnn" or "lmfuzz-classifier"')


def test_a_config_without_an_alphabet_names_it(folder):
    (folder / "config.json").write_text('{"format": "lmfuzz-char-rnn"}')
    refused(folder, "alphabet")


# --- tensors ---


def test_missing_tensors_are_named(folder):
    with_tensors(folder, lambda tensors: [tensors.pop(name) for name in ("output.bias", "rnn.bias_hh_l1")])
    refused(folder, "lacks", "output.bias (13,), rnn.bias_hh_l1 (24,)")


def test_extra_tensors_are_named(folder):
    with_tensors(folder, lambda tensors: tensors.update({"head.weight": torch.zeros(2)}))
    refused(folder, "unknown", "head.weight")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("rnn.weight_ih_l1", (24, 7)), ("embedding.weight", (4, 13)), ("output.bias", (1, 13))],
)
def test_a_misshapen_tensor_is_named_with_both_shapes(folder, name, shape):
    right = tuple(load_file(folder / "model.safetensors")[name].shape)
    with_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    refused(folder, name, str(shape), str(right))


@pytest.mark.parametrize(
    "changes", [{"hidden": 2**20}, {"layers": 3}, {"layers": 1}, {"alphabet": "ab"}, {"cell": "gru"}]
)
def test_a_config_of_another_model_is_refused_before_memory_is_taken_for_it(folder, changes):
    refused(with_config(folder, **changes), str(folder))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["rnn.weight_hh_l0"][3, 2] = value

    refused(with_tensors(folder, spoil), "rnn.weight_hh_l0", "NaN or infinite")


def test_weights_that_are_too_large_for_float32(folder):
    def widen(tensors):
        tensors["output.bias"] = tensors["output.bias"].double() + 1e300

    refused(with_tensors(folder, widen), "output.bias")


def test_weights_that_are_no_floating_point_numbers(folder):
    def quantise(tensors):
        tensors["output.weight"] = (tensors["output.weight"] * 16).to(torch.int8)

    refused(with_tensors(folder, quantise), "output.weight")


# --- pickles ---


@pytest.mark.parametrize(
    "name", ["model.pt", "pytorch_model.bin", "weights.pth", "x.pkl", "a.pickle", "b.ckpt"]
)
def test_a_pickle_is_not_read_unless_that_is_allowed(folder, tmp_path, name):
    as_pickle(folder, {"weight": Malicious(tmp_path / "harm")}, name)
    refused(folder, str(folder / name), "--allow-pickle", "model.safetensors")
    assert not (tmp_path / "harm").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_pickle_does_no_harm_where_pickles_are_allowed(folder, tmp_path, write):
    (folder / "model.safetensors").unlink()
    write({"weight": Malicious(tmp_path / "harm")}, folder / "model.pt")
    message = refused(folder, str(folder / "model.pt"), "more than tensors", allow_pickle=True)
    assert not (tmp_path / "harm").exists()
    assert "weights_only" not in message, "no advice to read it all the same"
    pickle.loads(pickle.dumps(Malicious(tmp_path / "harm")))
    assert (tmp_path / "harm").exists(), "the pickle is malicious indeed"


def test_a_pickled_module_is_refused(folder):
    refused(as_pickle(folder, char_rnn(hidden=6, embedding=4)), "more than tensors", allow_pickle=True)


@pytest.mark.parametrize(
    "content", [[1], {"model": {"epoch": 3}}, {3: torch.zeros(2)}, {"optimizer": {"x": torch.zeros(3)}}, None]
)
def test_a_pickle_of_something_else_is_refused(folder, content):
    refused(as_pickle(folder, content), "state_dict", allow_pickle=True)


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"text"])
def test_a_damaged_pickle_is_refused(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(content)
    refused(folder, str(folder / "model.pt"), allow_pickle=True)


@pytest.mark.parametrize(
    "strange", [lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: t.to(torch.complex64)]
)
def test_a_pickle_of_strange_tensors_is_refused(folder, strange):
    tensors = checkpoint.load(folder).state_dict()
    tensors["output.weight"] = strange(tensors["output.weight"])
    refused(as_pickle(folder, tensors), "output.weight", allow_pickle=True)


def test_pickled_tensors_are_checked_like_others(folder):
    tensors = dict(checkpoint.load(folder).state_dict())
    bias = tensors.pop("output.bias")
    refused(as_pickle(folder, tensors), "lacks", "output.bias", allow_pickle=True)
    bias[0] = torch.nan
    message = refused(as_pickle(folder, tensors | {"output.bias": bias}), "output.bias", allow_pickle=True)
    assert re.search("NaN", message)
