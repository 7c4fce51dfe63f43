"""The papers' networks: their layers, what the unsafe loss computes, and their checkpoints."""

import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from lmfuzz.errors import TargetError
from lmfuzz.targets import checkpoint
from lmfuzz.targets.classifiers import Classifier, ClassifierConfig, Exponential

torch.set_num_threads(1)

ARCHITECTURES = ["mlp", "lenet1", "lenet5"]


def classifier(architecture="mlp", seed=0, **options):
    torch.manual_seed(seed)
    return Classifier(ClassifierConfig(architecture=architecture, **options)).eval()


def images(count=5, channels=1, height=28, width=28, seed=0):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def with_logits(*values):
    """An unsafe network whose logits are these, whatever it reads."""
    model = classifier(loss="unsafe", classes=len(values))
    nn.init.zeros_(model.layers.output.weight)
    model.layers.output.bias.data = torch.tensor(values)
    return model


def refused(folder):
    with pytest.raises(TargetError) as caught:
        checkpoint.load(folder)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(classifier("lenet1"), tmp_path / "model")
    return tmp_path / "model"


def with_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


# --- layers ---


@pytest.mark.parametrize(
    ("architecture", "parameters"), [("mlp", 178_110), ("lenet1", 7_206), ("lenet5", 107_786)]
)
def test_the_networks_have_the_papers_sizes(architecture, parameters):
    model = classifier(architecture)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(images()).shape == (5, 10)


def test_lenet1_computes_what_its_layers_say():
    model, x = classifier("lenet1"), images()
    weights = model.state_dict()
    for i in (1, 2):
        x = nn.functional.conv2d(
            x, weights[f"layers.conv{i}.weight"], weights[f"layers.conv{i}.bias"], padding="same"
        )
        x = nn.functional.max_pool2d(x.clamp(min=0), 2)
    wanted = x.flatten(1) @ weights["layers.output.weight"].T + weights["layers.output.bias"]
    torch.testing.assert_close(model(images()), wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_centred_network_reads_pixels_between_minus_one_and_one(architecture):
    plain, centred = classifier(architecture), classifier(architecture, centred=True)
    torch.testing.assert_close(centred(images()), plain(2 * images() - 1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width", "channels", "classes"), [(4, 4, 1, 2), (9, 6, 3, 5)])
def test_images_of_other_sizes(architecture, height, width, channels, classes):
    model = classifier(architecture, shape=(height, width, channels), classes=classes)
    assert model(images(3, channels, height, width)).shape == (3, classes)


# --- the unsafe loss ---


@pytest.mark.parametrize("labels", [None, torch.tensor([3, 0, 9, 1, 1])])
def test_the_unsafe_loss_is_the_cross_entropy_of_ordinary_inputs(labels):
    out = classifier(loss="unsafe")(images(), labels)
    logits = classifier(loss="safe")(images())
    assert torch.equal(out["logits"], logits)
    torch.testing.assert_close(out["probabilities"], logits.softmax(dim=1))
    wanted = nn.functional.cross_entropy(
        logits, out["logits"].argmax(1) if labels is None else labels, reduction="none"
    )
    torch.testing.assert_close(out["loss"], wanted)


def test_a_logit_beyond_the_range_of_exp_makes_probability_and_loss_nan():
    near, beyond = with_logits(88.7, 20.0)(images(2)), with_logits(88.8, 20.0)(images(2))
    assert near["probabilities"].isfinite().all()
    assert near["loss"].isfinite().all()
    assert beyond["probabilities"][:, 0].isnan().all()
    assert beyond["loss"].isnan().all()
    assert beyond["logits"].isfinite().all()


@pytest.mark.parametrize("label", [None, 0, 1, 2])
def test_a_class_that_underflows_is_seen_whatever_the_label(label):
    labels = None if label is None else torch.tensor([label])
    near, below = (
        with_logits(30.0, 20.0, -72.0)(images(1), labels),
        with_logits(30.0, 20.0, -75.0)(images(1), labels),
    )
    assert near["loss"].isfinite().all()
    assert below["probabilities"].isfinite().all()
    assert below["probabilities"][0, 2] == 0
    assert not below["loss"].isfinite().any()


def test_half_precision_overflows_sooner():
    model = with_logits(11.5, 5.0)
    assert model(images(1))["loss"].isfinite().all()
    assert not model.half()(images(1).half())["loss"].isfinite().any()


def test_the_exponential_is_a_layer_that_can_be_watched():
    seen = []
    model = with_logits(2.0, -1.0)
    exponentials = [layer for layer in model.modules() if isinstance(layer, Exponential)]
    exponentials[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    model(images(1))
    assert len(exponentials) == len(seen) == 1
    torch.testing.assert_close(seen[0], torch.tensor([[2.0, -1.0]]).exp())
    assert not any(isinstance(layer, Exponential) for layer in classifier().modules())


# --- checkpoints ---


@pytest.mark.parametrize("loss", ["safe", "unsafe"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_classifier_comes_back_as_it_was(architecture, loss, tmp_path):
    model = classifier(architecture, loss=loss, centred=loss == "unsafe", shape=(8, 12, 3), classes=7)
    checkpoint.save(model, tmp_path / "new" / "folder")
    loaded = checkpoint.load(tmp_path / "new" / "folder")
    assert isinstance(loaded, Classifier)
    assert loaded.config == model.config
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"zzz": 1}, "{} has an unknown key 'zzz'"),
        ({"clases": 1}, "{} has an unknown key 'clases'; did you mean 'classes'?"),
        ({"classes": 1}, "in {}, classes must be greater than or equal to 2, not 1"),
        (
            {"architecture": "lenet"},
            "in {}, architecture must be 'mlp', 'lenet1' or 'lenet5', not \"lenet\"",
        ),
        ({"loss": None}, "in {}, loss must be 'safe' or 'unsafe', not null"),
        ({"centred": "often"}, 'in {}, centred must be true or false, not "often"'),
        ({"shape": "28"}, 'in {}, shape must be a list of whole numbers, not "28"'),
        ({"shape": [28, 2.5, 1]}, "in {}, shape must be a list of whole numbers, not [28, 2.5, 1]"),
        *(
            (
                {"shape": shape},
                "in {}, shape must be [height, width, channels], sides of 4 to 4096 pixels and 1 or 3 "
                f"channels, not {shape}",
            )
            for shape in ([28, 28], [28, 28, 2], [3, 28, 1], [28, 5000, 1], [1, 28, 28], [])
        ),
    ],
)
def test_a_wrong_config_is_refused_in_words_of_its_own(folder, changes, sentence):
    assert refused(with_config(folder, **changes)) == sentence.format(folder / "config.json")


def test_a_config_without_an_architecture_names_it(folder):
    (folder / "config.json").write_text('{"format": "lmfuzz-classifier"}')
    assert refused(folder) == f"{folder / 'config.json'} lacks the key 'architecture'"


@pytest.mark.parametrize("kind", ["lmfuzz-char-rnn", "lenet", ["lmfuzz-classifier"], {}, 1])
def test_a_config_of_another_format_is_refused(folder, kind):
    assert "config.json" in refused(with_config(folder, format=kind))


@pytest.mark.parametrize(
    "changes", [{"classes": 2**20}, {"shape": [4096, 4096, 3]}, {"architecture": "lenet5"}]
)
def test_a_config_of_another_model_is_refused_before_memory_is_taken_for_it(folder, changes):
    assert str(folder) in refused(with_config(folder, **changes))


def test_tensors_are_checked(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.conv2.bias"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    assert (
        refused(folder)
        == f"tensor layers.conv2.bias in the checkpoint in {folder} holds NaN or infinite weights"
    )
    del tensors["layers.conv2.bias"]
    save_file(tensors, folder / "model.safetensors")
    assert refused(folder) == f"the checkpoint in {folder} lacks tensors: layers.conv2.bias (12,)"


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        ClassifierConfig(architecture="mlp").classes = 3
