"""The trainer, on a small text: what it writes can be loaded, and it has learnt something."""

import importlib.util
import math
import random
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from lmfuzz.targets import checkpoint

torch.set_num_threads(1)

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_char_rnn.py"
SMALL = ["--hidden", "16", "--embedding", "8", "--batch", "8", "--width", "32"]


@pytest.fixture(scope="module")
def trainer():
    spec = importlib.util.spec_from_file_location("train_char_rnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = random.Random(0).choices(["thé", "cat", "sat", "on", "a", "mat.\n"], k=2000)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(words), encoding="utf-8")
    return path


def train(trainer, text, folder, *options):
    result = CliRunner().invoke(trainer.main, [str(text), str(folder), *SMALL, *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def printed_loss(result):
    assert result.exit_code == 0, result.output
    return float(re.search(r"validation loss (\S+) nats/character; written", result.output).group(1))


@pytest.mark.parametrize(
    "options", [["--layers", "1"], ["--cell", "gru", "--layers", "2", "--dropout", "0.2"]]
)
def test_one_epoch_makes_a_sound_checkpoint_that_has_learnt(trainer, text, tmp_path, options):
    untrained = printed_loss(train(trainer, text, tmp_path / "before", *options, "--epochs", "0"))
    trained = printed_loss(train(trainer, text, tmp_path / "after", *options, "--epochs", "1"))
    content = text.read_text(encoding="utf-8")
    alphabet = "".join(sorted(set(content)))
    assert untrained == pytest.approx(math.log(len(alphabet)), rel=0.15)
    assert 0 < trained < untrained - 0.2

    model = checkpoint.load(tmp_path / "after")
    assert model.config.alphabet == alphabet
    assert (model.config.hidden, model.config.embedding) == (16, 8)
    assert model.config.layers == int(options[options.index("--layers") + 1])
    symbols = torch.tensor([alphabet.index(c) for c in content])[len(content) * 9 // 10 :]
    with torch.inference_mode():  # all of it at once, where the trainer carries the state along
        logits, _ = model(symbols[None, :-1])
    loss = torch.nn.functional.cross_entropy(logits[0], symbols[1:]).item()
    assert trained == pytest.approx(loss, abs=1e-3)


def test_the_loss_does_not_depend_on_the_pieces_it_is_read_in(trainer, text, tmp_path):
    train(trainer, text, tmp_path / "model", "--epochs", "0")
    model = checkpoint.load(tmp_path / "model")
    symbols = torch.randint(len(model.config.alphabet), (50,), generator=torch.Generator().manual_seed(1))
    losses = [trainer.validation_loss(model, symbols, width) for width in (1, 7, 49, 1000)]
    assert losses == pytest.approx(losses[:1] * 4, rel=1e-5)


def test_training_again_with_the_same_seed_gives_the_same_model(trainer, text, tmp_path):
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        train(trainer, text, tmp_path / name, "--epochs", "1", "--layers", "1", "--seed", seed)
    one, same, other = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_windows_follow_one_another_in_each_lane(trainer):
    symbols = torch.arange(1000)
    steps = trainer.windows(symbols, 4, 30, torch.Generator().manual_seed(0))
    assert {tuple(step.shape) for step in steps} == {(4, 31)}
    whole = torch.stack(steps)  # (steps, lanes, 31)
    assert (whole.diff(dim=2) == 1).all()
    assert torch.equal(whole[1:, :, 0], whole[:-1, :, -1]), "the next window starts at the last one's end"
    assert len(whole[:, :, :-1].unique()) == whole[:, :, :-1].numel() > 800, "nothing is read twice"


def test_the_learning_rate_warms_up_and_falls(trainer):
    rates = [trainer.learning_rate(i / 1000, 1.0) for i in range(1001)]
    peak = rates.index(max(rates))
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1)
    assert peak == 20
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "0 characters"),
        (b"too short to learn from", "23 characters"),
        (b"ab" * 159 + b"a", "319 characters"),
        (b"a" * 5000, "1 of them different"),
        (b"\xff\xfe" * 5000, "UTF-8"),
    ],
)
def test_a_text_that_nothing_can_be_learnt_from_is_refused(trainer, tmp_path, content, word):
    (tmp_path / "text").write_bytes(content)
    result = train(trainer, tmp_path / "text", tmp_path / "model", "--epochs", "1")
    assert result.exit_code == 2
    assert word in " ".join(result.output.split())
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("seed", range(6))
def test_the_shortest_text_that_is_taken_is_trained_on(trainer, tmp_path, seed):
    (tmp_path / "text").write_bytes(b"ab" * 160)
    options = ["--epochs", "1", "--layers", "1", "--seed", str(seed)]
    result = train(trainer, tmp_path / "text", tmp_path / "model", *options)
    assert "train 0.0000" not in result.output, "no window was trained on"
    assert 0 < printed_loss(result) < 2
