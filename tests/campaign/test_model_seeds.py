"""Seeds that the model itself writes, and when it does so unasked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.begun import MODEL, parts
from helpers.shell import Shell
from helpers.small_lms import target
from lmfuzz.campaign.model_seeds import write_seeds
from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.spec import Spec
from lmfuzz.targets import checkpoint
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.toy import Toy
from lmfuzz.types import Batch

GREEK = tuple(map(chr, range(0x3B1, 0x3B1 + 30)))
WRITER = """
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.targets.toy import Toy

class Writer(Toy):
    def __init__(self):
        super().__init__(phrase_key="xyz", loop_key="vk")
        self.space = TextSpace(tuple(map(chr, range(0x3B1, 0x3B1 + 30))), 1, 32)
    def sample(self, batch, new, temperature, rng):
        assert temperature == 1
        return rng.integers(30, size=(len(batch), new), dtype="int32")
"""


class Writer(Toy):
    """A toy that can be sampled: it writes any symbol but the last, or one symbol only."""

    def __init__(self, symbols: tuple[str, ...] = GREEK, most: int = 32, monotone: bool = False) -> None:
        super().__init__()
        self.space, self._monotone = TextSpace(symbols, 1, most), monotone

    def sample(self, batch, new, temperature, rng):
        assert temperature == 1
        assert batch.lengths.tolist() == [1] * len(batch)
        many = 1 if self._monotone else len(self.space.symbols) - 1
        return rng.integers(many, size=(len(batch), new), dtype=np.int32)


def seeds(target, **settings):
    made = parts(Spec(model=MODEL, objectives=["repetition"], **settings), target)
    return made.context.space.texts(made.context.seeds), made.notes


def test_the_model_writes_as_many_prompts_as_it_is_asked_for():
    texts, notes = seeds(Writer(), seeds=["model:100", f"text:{GREEK[0] * 3}"], min_length=3, max_length=9)
    assert len(set(texts)) == len(texts) == 101
    assert {len(text) for text in texts} == set(range(3, 10))
    assert texts[-1] == GREEK[0] * 3
    assert not notes
    assert any(GREEK[-1] in text[0] for text in texts)  # the first symbol is any; the model writes the rest
    assert not any(GREEK[-1] in text[1:] for text in texts)
    assert len(seeds(Writer(), seeds=["model:9"], count=4)[0]) == 4


def test_the_seed_of_the_campaign_decides_what_is_written():
    first = seeds(Writer(), seeds=["model:5"], seed=1)
    assert seeds(Writer(), seeds=["model:5"], seed=1) == first != seeds(Writer(), seeds=["model:5"], seed=2)


def test_prompts_are_legal_and_no_longer_than_they_need_be():
    space = TextSpace(GREEK, 80, 90)
    rng = np.random.default_rng(0)
    assert {len(text) for text in write_seeds("model:20", Writer(most=99), space, rng)} == {80}
    assert max(map(len, write_seeds("model:90", Writer(most=999), TextSpace(GREEK, 1, 999), rng))) <= 64
    assert len(write_seeds("model:2", Writer(most=1), TextSpace(GREEK, 1, 1), rng)) == 2


@pytest.mark.parametrize("level", ["char", "token"])
def test_a_language_model_writes_seeds(level):
    model = target(level=level, max_length=16)
    texts = write_seeds("model:6", model, model.space, np.random.default_rng(0))
    rows = model.space.batch([model.space.encode(text) for text in texts])
    assert len(texts) == 6
    assert model.space.legal(rows).all()


def test_a_model_that_repeats_itself_writes_fewer():
    texts, _ = seeds(Writer(GREEK[:1], 4, monotone=True), seeds=["model:10"])
    assert sorted(texts) == [GREEK[0] * n for n in range(1, 5)]


@pytest.mark.parametrize("name", ["model:", "model:0", "model:-3", "model:many", "model:²"])
def test_a_wrong_number_gets_a_sentence(name):
    with pytest.raises(UsageError, match=f"^{name} does not say how many seeds the model is to write; give"):
        seeds(Writer(), seeds=[name])


def test_a_model_that_cannot_be_sampled_gets_a_sentence():
    with pytest.raises(UsageError, match=r"^model:4: this model cannot be sampled, so it cannot write seeds"):
        seeds(Toy(), seeds=["model:4"])

    class Broken(Writer):
        def sample(self, *_):
            raise RuntimeError("no ink")

    with pytest.raises(UsageError, match=r"^the model cannot write seeds: RuntimeError: no ink"):
        seeds(Broken(), seeds=["model:4"])


def test_the_model_writes_seeds_if_its_alphabet_lacks_most_of_the_bundled_ones():
    texts, notes = seeds(Writer())
    why = "because the model's alphabet lacks most of the bundled ones (corpora:seeds)"
    assert len(texts) == 64
    assert notes[0] == f"seeds: 64 written by the model, {why}"
    assert len(seeds(Writer(), count=7)[0]) == 7
    ascii_only = Writer(tuple(map(chr, [10, *range(32, 127)])))
    assert "The" in " ".join(seeds(ascii_only)[0])
    unable = Toy()
    unable.space = TextSpace(GREEK, 1, 32)
    with pytest.raises(UsageError, match="no prompt in corpora:seeds has 1 to 32 characters"):
        seeds(unable)


def test_a_campaign_whose_seeds_were_written_or_piped_is_resumed(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("writer.py").write_text(WRITER)
    objective = ("--objective", "repetition")
    begun = sh("fuzz", "writer.py:Writer", *objective, "--budget", "300x", "-o", "written")
    assert "64 seeds" in begun.out
    assert "seeds: 64 written by the model, because " in begun.out
    with Path("seeds.txt").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        piped = sh("fuzz", "model.py:easy", "--seeds", "-", *objective, "--budget", "300x", "-o", "piped")
    assert "4 seeds" in piped.out
    for directory in ("written", "piped"):
        resumed = sh("resume", directory, "--budget", "600x")
        assert resumed.code in (0, 1), resumed


def test_the_model_writes_seeds_if_the_bundled_ones_surprise_it():
    model = checkpoint.load(resource("models:shakespeare"))
    assert not [note for note in seeds(RNNTarget(model))[1] if "seeds" in note]
    letters = model.config.alphabet
    model.config = model.config.model_copy(update={"alphabet": letters[30:] + letters[:30]})
    target = RNNTarget(model)
    texts, notes = seeds(target)
    assert len(texts) == 64
    assert notes[0].startswith("seeds: 64 written by the model, because it expects the bundled ones less")
    loss = target.loss(Batch.of([target.space.encode(text) for text in ("To be", "T")]))
    symbols = torch.from_numpy(target.space.encode("To be")).long()
    logs = model(symbols[None, :-1])[0][0].log_softmax(dim=1)
    np.testing.assert_allclose(loss, [-logs[torch.arange(4), symbols[1:]].mean(), np.nan], rtol=1e-4)
