"""From the name of a model to a target: what is right, and one sentence for whatever is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.shell import forget_files
from lmfuzz.errors import TargetError
from lmfuzz.objectives.numeric import Nonfinite
from lmfuzz.spec import Spec
from lmfuzz.targets import checkpoint
from lmfuzz.targets.loading import load_target
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.toy import Toy
from lmfuzz.types import PAD, Batch

ALPHABET = "abcd \n"
FACTORIES = """
import torch
from torch import nn
from lmfuzz.errors import TargetError
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig

def rnn():
    return CharRNN(CharRNNConfig(alphabet="abc", embedding=2, hidden=2, layers=1))

class Bigram(nn.Module):
    alphabet = "abcd"
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 4)
    def forward(self, symbols):
        return self.table(symbols)

class Nameless(Bigram):
    alphabet = None

class Twice(Bigram):
    alphabet = "aabc"

class Wide(Bigram):
    alphabet = "abcde"

class Broken(Bigram):
    def forward(self, symbols):
        raise RuntimeError("no gears")

def fails():
    raise ValueError("no weights here")

def refuses():
    raise TargetError("fetch the weights first")

def nothing():
    return 3

made = Bigram()
"""


def said(model: str | Path, **more: object) -> str:
    with pytest.raises(TargetError) as error:
        load_target(Spec(model=str(model), **more))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FACTORIES)
    return path


def test_no_model_is_the_bundled_one_and_decodes_as_the_spec_says() -> None:
    target = load_target(
        Spec(max_new=3, stop=["x"], decode_seed=4, temperature=0.5, min_length=2, max_length=9)
    )
    assert isinstance(target, RNNTarget)
    assert target.decoding == Decoding(3, 0.5, 4, ("x",))
    assert (target.space.min_length, target.space.max_length) == (2, 9)
    assert torch.get_num_threads() == 1


def test_a_checkpoint_folder(tmp_path: Path) -> None:
    model = CharRNN(CharRNNConfig(alphabet="ab", embedding=2, hidden=2, layers=1))
    checkpoint.save(model, tmp_path / "m")
    assert load_target(Spec(model=str(tmp_path / "m"))).space.symbols == ("a", "b")
    assert load_target(Spec(model=f"{tmp_path}/m/")).identity == RNNTarget(model).identity


def test_factories(factories: Path) -> None:
    assert isinstance(load_target(Spec(model=f"{factories}:rnn")), RNNTarget)
    for name in ("Bigram", "made"):
        target = load_target(Spec(model=f"{factories}:{name}", max_new=5))
        assert isinstance(target, ModuleTarget)
        assert target.decoding.max_new == 5
    assert isinstance(load_target(Spec(model="lmfuzz.targets.toy:toy")), Toy)
    assert isinstance(load_target(Spec(model="lmfuzz.targets.toy:Toy")), Toy)


def test_what_is_wrong_is_said_in_one_sentence(factories: Path, tmp_path: Path) -> None:
    assert said("no/such/folder").startswith("there is no checkpoint folder no/such/folder")
    assert (
        said(factories)
        == f"{factories} is a Python file; name the function that makes the model: {factories}:make"
    )
    assert "no 'Bigrm'; did you mean 'Bigram'?" in said(f"{factories}:Bigrm")
    assert "there is no file" in said(f"{tmp_path}/absent.py:x")
    assert "there is no module 'absent_module'" in said("absent_module:x")
    assert f"raised ValueError: no weights here ({factories}, line 32)" in said(f"{factories}:fails")
    assert said(f"{factories}:refuses") == f"{factories}:refuses: fetch the weights first"
    assert "an object of type int is neither a torch module, nor a function" in said(f"{factories}:nothing")
    assert "has no alphabet" in said(f"{factories}:Nameless")
    assert "has 'a' twice, as symbols 0 and 1" in said(f"{factories}:Twice")
    assert "gives (2, 3, 4) for symbols (2, 3); it must give (2, 3, 5)" in said(f"{factories}:Wide")
    assert "cannot be run on symbols: RuntimeError: no gears" in said(f"{factories}:Broken")
    assert "takes no parameters" in said(f"{factories}:Bigram:size=3")
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\nx.y\n")
    assert f"AttributeError: 'int' object has no attribute 'y' ({broken}, line 2)" in said(f"{broken}:x")
    weights = tmp_path / "weights.pt"
    weights.touch()
    assert "neither TorchScript nor an exported program" in said(weights)
    (tmp_path / "notes.txt").touch()
    assert "is not a model; give a checkpoint folder" in said(tmp_path / "notes.txt")
    assert "has no config.json" in said(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 3}))
    assert said(tmp_path).startswith(f"{tmp_path / 'weights.pt'} is a pickle, which can run code")


class Memory(nn.Module):
    """Logits that depend on the whole text, so that padding or a wrong place would show."""

    alphabet = ALPHABET

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rnn = nn.GRU(len(ALPHABET), len(ALPHABET), batch_first=True)
        self.start = nn.Parameter(torch.zeros(1))

    def forward(self, symbols: Tensor) -> tuple[Tensor, str]:
        hidden, _ = self.rnn(torch.nn.functional.one_hot(symbols, len(ALPHABET)).float() * 4)
        return hidden * 6 + self.start, "and something else"


def rows(*texts: str) -> Batch:
    return Batch.of([np.array([ALPHABET.index(c) for c in text], np.int32) for text in texts])


WANTS = frozenset({"text", "tokens", "logprob", "entropy", "hidden_last", "magnitude", "nonfinite"})


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_any_module_decodes_as_row_by_row_whatever_the_padding(temperature: float) -> None:
    target = ModuleTarget(Memory(), "memory", Decoding(max_new=7, temperature=temperature))
    batch = rows("a", "bad", "cab", "dd ab\nc", "b")
    batch.data[0, 3] = 5
    got = target.run(batch, WANTS)
    assert set(got) == WANTS
    for i in range(len(batch)):
        alone = target.run(batch.alone(i), WANTS)
        for name in WANTS:
            if got[name].dtype.kind == "f":
                np.testing.assert_allclose(got[name][i], alone[name][0], atol=1e-5)
            else:
                assert np.array_equal(got[name][i], alone[name][0])
    text = [ALPHABET.index(c) for c in "bad"]
    with torch.inference_mode():
        for step in range(7):
            logits = target.module(torch.tensor([text]))[0][0, -1]
            if not temperature:
                best = torch.log_softmax(logits, 0).max()
                np.testing.assert_allclose(got["logprob"][1, step], best, atol=1e-4)
            text.append(int(target.sampler.choose(step, logits[None])))
    assert got["text"][1] == "".join(ALPHABET[s] for s in text[3:])
    assert len(set(got["text"])) > 1


def test_a_module_stops_where_it_is_told_and_says_where_it_breaks() -> None:
    whole = ModuleTarget(Memory(), "memory", Decoding(max_new=7))
    text = str(whole.run(rows("bad"), frozenset({"text"}))["text"][0])
    stop = text[3]
    cut = ModuleTarget(Memory(), "memory", Decoding(max_new=7, stop=(stop,)))
    got = cut.run(rows("bad"), WANTS)
    at = text.index(stop)
    assert got["text"][0] == text[:at]
    assert (got["tokens"][0] == PAD).tolist() == [step >= at for step in range(7)]
    assert cut.identity != whole.identity
    broken = Memory()
    broken.start.data[:] = np.inf
    got = ModuleTarget(broken, "broken", Decoding(max_new=7)).run(rows("bad", "a"), WANTS)
    assert got["nonfinite"].tolist() == ["logits, symbol 1 of the prompt"] * 2
    assert (Nonfinite()(rows("bad", "a"), got) > 0).all()


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("None", "made.py:make gives None; it must give the model: end it with: return model"),
        ("{'a': 1}", "made.py:make gives a dict of 1 entries; if these are weights (a state_dict), put them"),
        ("3", "an object of type int is neither a torch module"),
    ],
)
def test_a_factory_that_returns_another_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returned: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.py").write_text(f"def make():\n    return {returned}\n")
    forget_files()
    with pytest.raises(TargetError) as raised:
        load_target(Spec(model="made.py:make"))
    assert words in str(raised.value)
