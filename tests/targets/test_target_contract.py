"""What every target promises, over all that can be one here: a target is added by one line of ``TARGETS``."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lmfuzz
from helpers import small_lms
from helpers.begun import MODEL, parts
from helpers.plain import char_rnn
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.protocols import Classifier, Differentiable, HasLexicon, Sampler, Target, TargetInfo
from lmfuzz.spec import Spec
from lmfuzz.targets.capabilities import Compressible, Followable
from lmfuzz.targets.function import FunctionTarget
from lmfuzz.targets.image import ImageTarget
from lmfuzz.targets.kinds import with_info
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.toy import Toy
from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.twins.pair import Pair, TextPair, pair
from lmfuzz.types import Batch, Trace, unknown

SAMPLED = Decoding(max_new=8, temperature=0.7, stop=("a",))
GREEDY = Decoding(max_new=8)
IMAGE, BOX = BoxSpace((6, 5, 1)), BoxSpace((3,), -1.0, 1.0)
CAPABILITIES = (Sampler, Differentiable, Followable, HasLexicon, Compressible, Classifier)
INTEGERS = {"tokens": np.int32, "token_ends": np.int32, "label": np.int64, "parting": np.int64}
TEXTS = ("text", "nonfinite", "parting_symbols")


class Bigram(nn.Module):
    """The next symbol by the last two."""

    alphabet = "abcd e"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(6, 6)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, 6)."""
        now = self.table(symbols) * 3
        return now + now.roll(1, dims=1) * (torch.arange(symbols.shape[1]) > 0)[:, None]


class Plain:
    """A target of one's own, with the four members that are asked for and not one more."""

    __slots__ = ()
    space, channels, identity = TextSpace(tuple("abc")), frozenset({"text", "hidden_last"}), "plain"

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The prompts, backwards."""
        shown = {
            "text": np.array([text[::-1] for text in self.space.texts(batch)], dtype=object),
            "hidden_last": batch.lengths[:, None].astype(np.float32),
        }
        return {name: shown[name] for name in wants}


def classifier(seed: int = 0, *, rounds: bool = False) -> ImageTarget:
    torch.manual_seed(seed)
    first: list[nn.Module] = [nn.Conv2d(1, 2, 3), Rounded()] if rounds else [nn.Conv2d(1, 2, 3), nn.ReLU()]
    module = nn.Sequential(*first, nn.Flatten(), nn.Linear(24, 3)).eval()
    return ImageTarget(module, IMAGE, "small")


class Rounded(nn.Module):
    """Has no gradient but 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest integers."""
        return (x * 8).round()


def function(*, inverse: bool = False) -> FunctionTarget:
    if inverse:
        return FunctionTarget(lambda x: {"loss": (-x).exp().sum(dim=1), "twice": x * 3}, BOX, "inverse")
    return FunctionTarget(lambda x: {"loss": x.exp().sum(dim=1), "twice": x * 2}, BOX, "function")


def twin(base: Any, recipe: str) -> Pair:
    """The pair of a target and its compressed twin."""
    made = base.like(make_twin(base.module, recipe).module, "twin")
    made.identity += recipe
    return pair(base, made, recipe)


def plain_pair() -> Pair:
    other = with_info(Plain(), Spec())
    other.identity = "another"
    return pair(with_info(Plain(), Spec()), other)


LSTM, WRITES = ("lstm", 2, 20), {Sampler, Followable, Compressible}
IN_TOKENS = {"level": "token", "marker": True, "temperature": 0.8}
TARGETS: dict[str, tuple[Any, set[type]]] = {  # what makes it, and what it can do
    "toy": (Toy, set()),
    "a plain object": (lambda: with_info(Plain(), Spec()), set()),
    "an LSTM": (lambda: RNNTarget(char_rnn(*LSTM), GREEDY), WRITES),
    "an LSTM, sampled": (lambda: RNNTarget(char_rnn(*LSTM), SAMPLED), WRITES),
    "a GRU": (lambda: RNNTarget(char_rnn("gru"), SAMPLED), WRITES),
    "a module": (lambda: ModuleTarget(Bigram(), "bigram", GREEDY), WRITES),
    "a module, sampled": (lambda: ModuleTarget(Bigram(), "bigram", SAMPLED), WRITES),
    "a function": (function, set()),
    "a classifier": (classifier, {Differentiable, Compressible, Classifier}),
    "a classifier that rounds": (lambda: classifier(rounds=True), {Compressible, Classifier}),
    "GPT-2": (lambda: small_lms.target("gpt2"), WRITES | {HasLexicon}),
    "a llama in tokens": (lambda: small_lms.target("llama", **IN_TOKENS), WRITES | {HasLexicon}),
    "bloom": (lambda: small_lms.target("bloom", chat=True, stop=("e",)), WRITES | {HasLexicon}),
    "two toys": (lambda: pair(Toy(), Toy(steps=20)), set()),
    "two plain objects": (plain_pair, set()),
    "two LSTMs": (lambda: twin(RNNTarget(char_rnn(*LSTM), SAMPLED), "int4"), {Sampler}),
    "two GRUs": (lambda: twin(RNNTarget(char_rnn("gru"), GREEDY), "prune:0.3"), {Sampler}),
    "an LSTM and a module": (lambda: twin(RNNTarget(char_rnn(hidden=80), GREEDY), "tflite"), {Sampler}),
    "two modules": (lambda: pair(*(ModuleTarget(Bigram(i), "b", GREEDY) for i in (0, 1))), {Sampler}),
    "two functions": (lambda: pair(function(), function(inverse=True)), set()),
    "two classifiers": (lambda: pair(classifier(), classifier(1)), {Differentiable}),
    "a classifier's twin": (lambda: twin(classifier(), "int8"), {Differentiable}),
    "one that rounds and not": (
        lambda: pair(classifier(), classifier(1, rounds=True)), {Differentiable},
    ),
    "two that round": (lambda: pair(*(classifier(i, rounds=True) for i in (0, 1))), set()),
    "two llamas": (lambda: twin(small_lms.target("llama", **IN_TOKENS), "int8"), {Sampler, HasLexicon}),
}  # fmt: skip
NAMES = [*TARGETS]
WIDTH = "the toy counts a key that only begins at the end of a row, where the batch is wide enough"
made = cache(lambda name: TARGETS[name][0]())


def rows(target: Target) -> Batch:
    """Legal rows, texts of different lengths, one of them with rubbish behind it."""
    rng = np.random.default_rng(3)
    if isinstance(target.space, BoxSpace):
        values = rng.uniform(target.space.low, target.space.high, (5, *target.space.shape))
        return target.space.batch(values.astype(np.float32))
    batch = Batch.of([target.space.draw(rng, (n,)) for n in (4, 1, 9, 4, 6)])
    batch.data[1, 1:] = batch.data[2, 1:]
    return batch


def wanted(target: Target) -> frozenset[str]:
    """All channels, and one of each family."""
    return frozenset(name + "f/ab" if name.endswith("/") else name for name in target.channels)


def dtype(name: str) -> Any:
    name = name.removeprefix("base/").removeprefix("twin/")
    return np.bool_ if name == "ended" else np.object_ if name in TEXTS else INTEGERS.get(name, np.float32)


def same(one: Any, other: Any) -> bool:
    if np.asarray(one).dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True))
    return np.array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    target = made(name)
    assert isinstance(target, Target)
    assert isinstance(target.space, TextSpace | BoxSpace)
    assert isinstance(target.channels, frozenset)
    assert "text" in target.channels
    assert isinstance(target.info, TargetInfo)
    assert target.identity
    assert target.identity == TARGETS[name][0]().identity


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_what_is_wanted_of_every_row_and_changes_none(name: str) -> None:
    target = made(name)
    batch, wants = rows(target), wanted(target)
    assert not unknown(wants, target.channels)
    data, lengths = batch.data.copy(), batch.lengths.copy()
    trace = target.run(batch, wants)
    assert trace.keys() == wants
    assert {n: (len(array), array.dtype) for n, array in trace.items()} == {n: (5, dtype(n)) for n in wants}
    assert target.run(batch, frozenset()) == {}
    for some in (frozenset({"text"}), frozenset(sorted(wants)[::2]), frozenset(sorted(wants)[1::2])):
        part = target.run(batch, some)
        assert part.keys() == some
        assert all(same(part[n], trace[n]) for n in some)
    np.testing.assert_array_equal(batch.data, data)
    np.testing.assert_array_equal(batch.lengths, lengths)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(reason=WIDTH, strict=True)] if "toy" in name else [])
        for name in NAMES
    ],
)
def test_a_row_is_the_same_alone_and_among_others(name: str) -> None:
    target = made(name)
    batch, wants = rows(target), wanted(target)
    together, turned = target.run(batch, wants), target.run(batch[::-1], wants)
    for row in range(len(batch)):
        alone = target.run(batch.alone(row), wants)
        for channel in wants:
            assert same(alone[channel][0], together[channel][row]), channel
            assert same(turned[channel][::-1][row], together[channel][row]), channel


@pytest.mark.parametrize("name", NAMES)
def test_it_can_do_what_it_says_and_says_what_it_can_do(name: str) -> None:
    target, (_, able) = made(name), TARGETS[name]
    assert {kind for kind in CAPABILITIES if isinstance(target, kind)} == able
    batch = rows(target)
    data, labels = batch.data.copy(), np.array([0, 1, 2, 1, 0])
    if isinstance(target, Sampler):
        one, two = (target.sample(batch, 4, 0.8, np.random.default_rng(1)) for _ in range(2))
        assert (one.shape, one.dtype) == ((5, 4), np.int32)
        assert target.space.legal(Batch.of([*one])).all()
        np.testing.assert_array_equal(one, two)
    if isinstance(target, Differentiable):
        values, gradients = target.margin_gradients(batch, labels)
        assert (values.shape, gradients.shape) == ((5,), batch.data.shape)
        assert np.isfinite(gradients).all()
        assert gradients.any()
    if isinstance(target, Classifier):
        assert target.run(batch, frozenset({"label"}))["label"].max() < len(target.classes)
    if isinstance(target, HasLexicon):
        assert len(target.lexicon.rare)
        assert target.lexicon.neighbours(np.array([7, 9]), 3).shape == (2, 3)
    np.testing.assert_array_equal(batch.data, data)


@pytest.mark.parametrize("name", [name for name in NAMES if Compressible in TARGETS[name][1]])
def test_it_is_the_same_target_around_the_same_module(name: str) -> None:
    target = made(name)
    again = target.like(target.module, "again")
    assert type(again) is type(target)
    assert (again.identity, again.space, again.channels) == (target.identity, target.space, target.channels)


@pytest.mark.parametrize("name", [name for name in NAMES if Followable in TARGETS[name][1]])
def test_what_it_writes_has_the_largest_scores_and_following_it_finds_them_again(name: str) -> None:
    target = made(name)
    batch = rows(target)
    written = target.decode(batch, frozenset({"logits", "text"}))
    going = target.going(written.tokens)
    best = target.sampler.scores(written.logits).argmax(dim=2)
    assert torch.equal(best[going], written.tokens[going])
    followed = target.follow(batch, written.tokens, written.prompt)
    assert torch.allclose(followed[going], written.logits[going], rtol=1e-3, atol=1e-4)
    text = frozenset({"text"})
    assert target.show(batch, written, text)["text"].tolist() == target.run(batch, text)["text"].tolist()
    assert len(target.vocabulary) == written.logits.shape[2]
    assert target.language == TARGETS[name][0]().language


def test_a_twin_that_can_follow_its_base_makes_a_pair_of_texts() -> None:
    follows = {name for name in NAMES if isinstance(made(name), TextPair)}
    assert follows == {"two LSTMs", "two GRUs", "two modules", "an LSTM and a module", "two llamas"}


# -- a user's own --


class Talkative(Plain):
    """Says of itself what earlier versions asked for, by the same names."""

    notes, seeds, sparing, told = ("it is slow",), "corpora:chat", True, "be brief"

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """Always the same symbol."""
        return np.full((len(batch), new), 1, np.int32)


class Wraps(Plain):
    """Has a module inside."""

    def __init__(self) -> None:
        self.model = Bigram()
        self.space = TextSpace(tuple(Bigram.alphabet))


def test_a_plain_object_says_of_itself_what_it_has_names_for() -> None:
    target = with_info(Talkative(), Spec())
    assert target.info == TargetInfo(("it is slow",), "corpora:chat", sparing=True, told="be brief")
    assert isinstance(target, Sampler)
    assert with_info(Plain(), Spec()).info == TargetInfo()
    assert with_info(toy := Toy(), Spec()) is toy


def test_the_module_inside_a_plain_object_can_have_a_twin() -> None:
    target = with_info(Wraps(), Spec(max_new=4))
    assert isinstance(target, Compressible)
    other = target.like(Bigram(1), "another")
    assert isinstance(other, ModuleTarget)
    assert pair(target, other).run(rows(target), frozenset({"base/text", "text"})).keys() == {
        "base/text",
        "text",
    }


def test_a_campaign_takes_a_plain_object_and_its_word(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("abc\nca\n")
    spec = Spec(model=MODEL, objectives=["repetition"], seeds=[str(seeds)])
    talkative = parts(spec, Talkative())
    assert talkative.notes == ("it is slow",)
    assert "tail" in talkative.context.operators
    assert "tail" not in parts(spec, Plain()).context.operators


def test_nothing_but_the_door_for_plain_objects_probes_a_target() -> None:
    probes = re.compile(r'(?:get|has)attr\((?:self\.)?(?:target|base|twin|found)(?:\.\w+)*, "')
    root = Path(lmfuzz.__file__).parent
    found = {path.name for path in root.rglob("*.py") if probes.search(path.read_text(encoding="utf-8"))}
    assert found == {"kinds.py"}
