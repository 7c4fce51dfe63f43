"""Recurrent networks in Keras's files compute what Keras's equations say."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from lmfuzz.errors import TargetError
from lmfuzz.targets import checkpoint
from lmfuzz.targets.importing.folder import make

h5py = pytest.importorskip("h5py", reason="the extra lmfuzz[keras] is not installed")
TEXT = "\n abcdefgh"
SIZE, WIDTH, READS = len(TEXT), 5, 4
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(kernel, own, bias, x, state):
    hidden, cell = state
    into, keep, new, out = np.split(x @ kernel + hidden @ own + bias, 4, axis=-1)
    cell = sigmoid(keep) * cell + sigmoid(into) * np.tanh(new)
    return sigmoid(out) * np.tanh(cell), cell


def gru(kernel, own, bias, x, state):
    hidden = state[0]
    update, reset, new = np.split(x @ kernel + bias[0], 3, axis=-1)
    update_own, reset_own, new_own = np.split(hidden @ own + bias[1], 3, axis=-1)
    update, reset = sigmoid(update + update_own), sigmoid(reset + reset_own)
    hidden = update * hidden + (1 - update) * np.tanh(new + reset * new_own)
    return hidden, hidden


STEPS = {"LSTM": lstm, "GRU": gru}


class Network:
    """Weights in Keras's form: maybe an embedding, recurrent layers, a dense layer."""

    def __init__(self, kind, layers=2, embedding=True, distributed=False, seed=0):
        rng = np.random.default_rng(seed)
        wide = GATES[kind] * WIDTH
        self.kind, self.layers = kind, []  # class, name, settings, the names of weights, weights
        if embedding:
            self._add(
                "Embedding", "letters", {"mask_zero": False}, {"embeddings": rng.normal(size=(SIZE, READS))}
            )
        for i in range(layers):
            below = WIDTH if i else READS if embedding else SIZE
            bias = rng.normal(size=(2, wide) if kind == "GRU" else wide)
            weights = {"kernel": (below, wide), "recurrent_kernel": (WIDTH, wide)}
            drawn = {name: rng.normal(size=shape) for name, shape in weights.items()} | {"bias": bias}
            settings = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}
            self._add(kind, f"part_{'zyx'[i]}", settings, drawn)  # not in the order of the alphabet
            self._add("Dropout", f"drop_{i}", {"rate": 0.1}, {})
        dense = {"kernel": rng.normal(size=(WIDTH, SIZE)), "bias": rng.normal(size=SIZE)}
        self._add("Dense", "out", {"activation": "softmax"}, dense)
        self.distributed = distributed

    def _add(self, kind, name, settings, weights):
        weights = {key: weight.astype(np.float32) for key, weight in weights.items()}
        self.layers.append((kind, name, settings, weights))

    def logits(self, symbols):
        states = np.eye(SIZE)[symbols]
        for kind, _, _, weights in self.layers:
            if kind == "Embedding":
                states = states @ weights["embeddings"]
            elif kind == "Dense":
                states = states @ weights["kernel"] + weights["bias"]
            elif kind != "Dropout":
                state = (np.zeros((len(symbols), WIDTH)),) * 2
                steps = []
                for t in range(states.shape[1]):
                    state = STEPS[kind](*weights.values(), states[:, t], state)
                    steps.append(state[0])
                states = np.stack(steps, 1)
        return states

    @property
    def config(self):
        layers = [{"class_name": "InputLayer", "config": {"name": "input_1"}}]
        for kind, name, settings, _ in self.layers:
            layer = {"class_name": kind, "config": {"name": name, **settings}}
            if kind == "Dense" and self.distributed:
                layer = {"class_name": "TimeDistributed", "config": {"name": name, "layer": layer}}
            layers.append(layer)
        return {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}

    def whole(self, file):
        """Write what ``model.save("x.h5")`` does."""
        with h5py.File(file, "w") as content:
            content.attrs["model_config"] = json.dumps(self.config)
            for kind, name, _, weights in self.layers:
                group = content.create_group(f"model_weights/{name}")
                inner = "dense" if kind == "Dense" else f"{kind.lower()}_cell"
                for key, weight in weights.items():
                    group[f"{name}/{inner}/{key}:0"] = weight
            content["optimizer_weights/adam/out/kernel/m:0"] = np.zeros((WIDTH, SIZE))

    def weights(self, file):
        """Write what ``model.save_weights("x.weights.h5")`` does."""
        counts = {}
        with h5py.File(file, "w") as content:
            for kind, _, _, weights in self.layers:
                of = "time_distributed" if kind == "Dense" and self.distributed else kind.lower()
                number = counts[of] = counts.get(of, -1) + 1
                inner = "cell/" if kind in GATES else "layer/" if of == "time_distributed" else ""
                for i, weight in enumerate(weights.values()):
                    content[f"layers/{of}{f'_{number}' if number else ''}/{inner}vars/{i}"] = weight
            content["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
            content["optimizer/vars/1"] = np.zeros(3)

    def keras(self, file):
        """Write what ``model.save("x.keras")`` does."""
        inside = io.BytesIO()
        self.weights(inside)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("config.json", json.dumps(self.config))
            archive.writestr("model.weights.h5", inside.getvalue())

    def save(self, path):
        write = {"h5": self.whole, "weights.h5": self.weights, "keras": self.keras}
        write[path.name.partition(".")[2]](path)
        return path


@pytest.mark.parametrize("name", ["a.h5", "a.weights.h5", "a.keras"])
@pytest.mark.parametrize(
    "how",
    [
        {"kind": "LSTM", "layers": 3, "distributed": True},
        {"kind": "LSTM", "layers": 1, "embedding": False},
        {"kind": "GRU"},
        {"kind": "GRU", "embedding": False, "distributed": True},
    ],
    ids=str,
)
def test_a_network_of_keras_computes_the_same(name, how, tmp_path):
    network = Network(**how)
    line = make(network.save(tmp_path / name), tmp_path / "m", TEXT)
    layers = how.get("layers", 2)
    assert line.startswith(f"{how['kind'].lower()}, {layers} layer{'s' if layers > 1 else ''} of {WIDTH}")
    rows = np.random.default_rng(1).integers(SIZE, size=(3, 12))
    with torch.inference_mode():
        found = checkpoint.load(tmp_path / "m")(torch.from_numpy(rows))[0].numpy()
    np.testing.assert_allclose(found, network.logits(rows), atol=1e-4)


def changed(position, kind=None, **settings):
    network = Network("GRU")
    found, name, known, weights = network.layers[position]
    network.layers[position] = kind or found, name, known | settings, weights
    return network


@pytest.mark.parametrize("name", ["a.h5", "a.keras"])
@pytest.mark.parametrize(
    ("network", "words"),
    [
        (changed(1, kind="Attention"), "layer part_z (Attention) of {} cannot be imported"),
        (changed(3, kind="Bidirectional"), "layer part_y (Bidirectional) of {} cannot be imported"),
        (changed(3, reset_after=False), "part_y (GRU) of {} has reset_after=False; lmfuzz imports True"),
        (changed(1, recurrent_activation="hard_sigmoid"), "has recurrent_activation=hard_sigmoid"),
        (changed(0, mask_zero=True), "layer letters (Embedding) of {} has mask_zero=True"),
        (changed(-1, activation="relu"), "has activation=relu; lmfuzz imports softmax or linear or"),
    ],
)
def test_another_layer_is_refused_by_its_name(name, network, words, tmp_path):
    file = network.save(tmp_path / name)
    with pytest.raises(TargetError) as caught:
        make(file, tmp_path / "m", TEXT)
    assert words.format(file) in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_weights_alone_show_a_gru_without_reset_after(tmp_path):
    network = Network("GRU", layers=1)
    network.layers[1][3]["bias"] = network.layers[1][3]["bias"][0]
    with pytest.raises(TargetError, match=r"layers/gru/cell/vars/2 \(15,\)"):
        make(network.save(tmp_path / "a.weights.h5"), tmp_path / "m", TEXT)


def test_what_is_not_read_is_named_with_its_shape(tmp_path):
    file = Network("LSTM").save(tmp_path / "a.weights.h5")
    with h5py.File(file, "a") as content:
        content["layers/normal/vars/0"] = np.ones(WIDTH)
    with pytest.raises(TargetError, match=r"also has layers/normal/vars/0 \(5,\)"):
        make(file, tmp_path / "m", TEXT)


@pytest.mark.parametrize("name", ["a.h5", "a.keras"])
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(TargetError, match="is not a sound file of Keras"):
        make(tmp_path / name, tmp_path / "m", TEXT)
