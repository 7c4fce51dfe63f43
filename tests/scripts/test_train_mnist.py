"""The trainer of the papers' networks, on a small set of digits: what it writes is sound and has learnt."""

import gzip
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import lmfuzz
from lmfuzz.inputs.datasets import DATA
from lmfuzz.targets import checkpoint

torch.set_num_threads(1)

SCRIPTS = Path(__file__).parents[2] / "scripts"

import environment  # noqa: E402
import train_mnist  # noqa: E402

BUNDLED = Path(lmfuzz.__file__).parent / "models" / "mnist"
ACCURACY = {"unsafe": 96, "safe": 96, "lenet1": 98.5, "lenet5": 98.5}  # per cent


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_set(folder, side=28, labels=lambda labels: labels):
    """Images of ten kinds, each a bright row with noise, as MNIST's four files."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 300), ("t10k", 100)):
        kinds = rng.integers(10, size=count)
        values = rng.integers(60, size=(count, side, side))
        values[np.arange(count), 2 * kinds + 4] = 250
        write_idx(folder / "mnist" / f"{name}-images-idx3-ubyte.gz", values)
        write_idx(folder / "mnist" / f"{name}-labels-idx1-ubyte.gz", labels(kinds))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(monkeypatch, data):
    def run(*arguments):
        monkeypatch.setenv(DATA, str(data))
        result = CliRunner().invoke(train_mnist.main, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_each_network_is_written_with_a_card_that_says_what_it_does(run, data, tmp_path):
    result = run("--steps", 8, tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(",")[0] for line in lines] == ["unsafe", "safe", "lenet1", "lenet5"]
    images, labels = train_mnist.labelled("mnist")
    for name, line in zip(train_mnist.RECIPES, lines, strict=True):
        model = checkpoint.load(tmp_path / name)
        assert model.config == train_mnist.RECIPES[name].config
        with torch.inference_mode():
            out = model(images)
        logits = out["logits"] if name == "unsafe" else out
        accuracy = (logits.argmax(dim=1) == labels).float().mean().item()
        card = (tmp_path / name / "README.md").read_text()
        for text in (line, card):
            assert f"{accuracy:.2%}" in text
            assert f"{logits.max().item():.1f} (exp overflows" in text
        assert f"{sum(p.numel() for p in model.parameters())} parameters" in card
        assert f"--only {name} --initialisation 0 --steps 8" in card


def test_what_is_trained_has_learnt(run, tmp_path):
    accuracy = {}
    for steps in (1, 150):
        output = run("--only", "unsafe", "--steps", steps, tmp_path / str(steps)).output
        accuracy[steps] = float(re.search(r"test accuracy ([\d.]+)%", output).group(1))
    assert accuracy[1] < 40
    assert accuracy[150] > 90


def test_an_initialisation_gives_the_same_network_alone_and_among_others(run, tmp_path):
    for folder, *options in (
        ("all",),
        ("same", "--only", "safe"),
        ("other", "--only", "safe", "--initialisation", 1),
    ):
        run("--steps", 3, *options, tmp_path / folder)
    same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("same", "other"))
    assert (tmp_path / "all" / "safe" / "model.safetensors").read_bytes() == same != other


def test_the_data_come_from_the_option_first(run, tmp_path):
    write_set(tmp_path / "wrong", side=24)
    assert run("--only", "safe", "--steps", 1, "--data", tmp_path / "wrong", tmp_path / "m").exit_code == 2
    assert run("--only", "safe", "--steps", 1, tmp_path / "m").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"side": 30}, "are 30x30; MNIST's are 28x28"),
        ({"labels": lambda labels: labels + 1}, "must have labels, 0 to 9"),
        ({"labels": lambda labels: labels[:-1]}, "299 labels"),
    ],
)
def test_data_that_are_not_mnists_are_refused(run, tmp_path, changes, words):
    write_set(tmp_path, **changes)
    result = run("--data", tmp_path, tmp_path / "model")
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_ends_the_training(run, tmp_path, monkeypatch):
    unsafe = train_mnist.RECIPES["unsafe"]
    large = replace(unsafe, kernels=lambda kernel: torch.nn.init.uniform_(kernel, -9, 9))
    monkeypatch.setitem(train_mnist.RECIPES, "unsafe", large)
    result = run("--only", "unsafe", "--initialisation", 7, "--steps", 5, tmp_path / "model")
    assert result.exit_code == 1
    assert "unsafe, initialisation 7: the loss is nan in step 1 of 5" in result.output
    assert "nothing was written" in result.output
    assert not (tmp_path / "model").exists()


def test_the_script_runs_with_any_python(monkeypatch, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "train_mnist.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--initialisation" in done.stdout
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["scripts/some", "--option"])
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    with pytest.raises(SystemExit, match=r"some: there is no \.venv here yet; run \./scripts/setup first"):
        environment.enter()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    environment.enter()
    assert started == [(python, [str(python), "scripts/some", "--option"])]
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    environment.enter()
    assert len(started) == 1


def on_card(name):
    """The first number after each key in the bundled network's card."""
    card = (BUNDLED / name / "README.md").read_text()
    return {key: float(number) for key, number in re.findall(r"^\| ([^|]+) \| ([\d.]+)", card, re.MULTILINE)}


@pytest.mark.parametrize("name", train_mnist.RECIPES)
def test_the_bundled_networks_are_those_of_the_recipes(name):
    model = checkpoint.load(BUNDLED / name)
    assert model.config == train_mnist.RECIPES[name].config
    said = on_card(name)
    assert said["test accuracy"] >= ACCURACY[name]
    assert said["training"] == train_mnist.RECIPES[name].steps


@pytest.mark.skipif(DATA not in os.environ, reason=f"{DATA} is not set: no MNIST")
@pytest.mark.parametrize("name", train_mnist.RECIPES)
def test_the_bundled_networks_do_what_their_cards_say(name):
    if not (Path(os.environ[DATA]) / "mnist").is_dir():
        pytest.skip(f"{DATA} has no mnist")
    said = on_card(name)
    measured = train_mnist.measure(checkpoint.load(BUNDLED / name), *train_mnist.labelled("mnist"))
    assert 100 * measured.accuracy == pytest.approx(said["test accuracy"], abs=0.03)  # machines round
    assert measured.largest == pytest.approx(said["largest logit on a test image"], abs=0.1)
    assert measured.spread == pytest.approx(said["largest distance between two logits"], abs=0.1)
    assert measured.nonfinite == said["test images with non-finite outputs"] == 0
