"""Two targets as one: who runs, and under which names."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.protocols import Sampler, TargetInfo
from lmfuzz.targets.image import ImageTarget
from lmfuzz.targets.toy import SEEDS, Toy
from lmfuzz.targets.twins.pair import Pair, prefixed, split
from lmfuzz.types import unknown

BOX = BoxSpace((2, 2, 1))


@dataclass
class Stub:
    """Shows its number in every channel, and remembers what it was asked for."""

    number: float
    space: Space = BOX
    channels: frozenset[str] = frozenset({"text", "value", "gap/"})
    asked: list[frozenset[str]] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return f"stub {self.number}"

    @property
    def info(self) -> TargetInfo:
        return TargetInfo()

    def run(self, batch, wants):
        self.asked.append(wants)
        return {name: np.full(len(batch), self.number) for name in wants}


def image(bias: float, classes: int = 2, shape=(2, 2, 1)) -> ImageTarget:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes)).eval()
    with torch.no_grad():
        module[1].bias[0] += bias
    return ImageTarget(module, BoxSpace(shape), f"linear {bias}")


def rows(count: int = 4):
    return BOX.batch(np.random.default_rng(1).random((count, 2, 2, 1)))


def test_channels_have_prefixes_and_the_twins_have_none_as_well():
    pair = Pair(Stub(1), Stub(2, channels=frozenset({"text", "value", "loss"})))
    assert pair.channels == {
        "text", "value", "loss", "twin/text", "twin/value", "twin/loss",
        "base/text", "base/value", "base/gap/",
    }  # fmt: skip
    assert unknown({"base/gap/x", "twin/gap/x", "gap/x"}, pair.channels) == ["gap/x", "twin/gap/x"]


def test_each_model_runs_once_with_exactly_its_own_wants():
    base, twin = Stub(1), Stub(2)
    wants = frozenset({"base/value", "base/gap/a", "twin/value", "value", "gap/b"})
    trace = Pair(base, twin).run(rows(), wants)
    assert base.asked == [{"value", "gap/a"}]
    assert twin.asked == [{"value", "gap/b"}]
    assert {name: array[0] for name, array in trace.items()} == {
        "base/value": 1, "base/gap/a": 1, "twin/value": 2, "value": 2, "gap/b": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("want", "runs"), [("base/value", (1, 0)), ("twin/value", (0, 1)), ("text", (0, 1))])
def test_a_model_of_which_nothing_is_wanted_does_not_run(want, runs):
    base, twin = Stub(1), Stub(2)
    Pair(base, twin).run(rows(), frozenset({want}))
    assert (len(base.asked), len(twin.asked)) == runs


def test_split_and_prefixed():
    assert split(frozenset({"base/a", "twin/b", "c"})) == ({"a"}, {"b", "c"})
    assert split(frozenset()) == (frozenset(), frozenset())
    assert list(prefixed({"a": np.zeros(1)}, "base/")) == ["base/a"]


def test_the_text_of_two_classifiers_tells_of_both():
    base, twin = image(0.0), image(9.0)
    trace = Pair(base, twin).run(rows(), frozenset({"text", "base/text", "twin/label", "label"}))
    assert trace.keys() == {"text", "base/text", "twin/label", "label"}
    alone = twin.run(rows(), frozenset({"text", "label"}))
    expected = [f"base {b}, twin {t}" for b, t in zip(trace["base/text"], alone["text"], strict=True)]
    assert trace["text"].tolist() == expected
    np.testing.assert_array_equal(trace["label"], alone["label"])
    np.testing.assert_array_equal(trace["twin/label"], alone["label"])


def test_a_pair_of_text_models_shows_the_twins_text_and_families():
    base, twin = Toy(), Toy(steps=20)
    pair = Pair(base, twin)
    batch = base.space.batch([base.space.encode(seed) for seed in SEEDS])
    wants = frozenset({"text", "base/text", "base/phrase_gap//sesame", "phrase_gap//sesame"})
    assert unknown(wants, pair.channels) == []
    trace = pair.run(batch, wants)
    assert [len(text) for text in trace["text"]] == [20] * 4
    np.testing.assert_array_equal(trace["base/text"], base.run(batch, frozenset({"text"}))["text"])
    np.testing.assert_array_equal(trace["base/phrase_gap//sesame"], trace["phrase_gap//sesame"])


def test_it_samples_where_the_base_can():
    class Writer(Stub):
        def sample(self, batch, new, temperature, rng):
            return np.full((len(batch), new), 7, np.int32)

    assert not isinstance(Pair(Stub(1), Writer(2)), Sampler)
    drawn = Pair(Writer(1), Stub(2)).sample(rows(), 3, 1.0, np.random.default_rng(0))
    assert drawn.tolist() == [[7, 7, 7]] * 4


def test_identity_is_that_of_both_in_order():
    assert Pair(Stub(1), Stub(2)).identity == Pair(Stub(1), Stub(2)).identity
    assert len({Pair(Stub(a), Stub(b)).identity for a in (1, 2, 3) for b in (1, 2, 3)}) == 9


def test_a_row_on_which_one_model_raises_is_isolated():
    class Picky(Stub):
        def run(self, batch, wants):
            if (batch.data > 0.9).any():
                raise ValueError("too bright")
            return super().run(batch, wants)

    batch = BOX.batch(np.stack([np.full(BOX.shape, v, np.float32) for v in (0.1, 1.0, 0.5)]))
    trace = LocalExecutor(Pair(Picky(1.0), Stub(2.0))).run(batch, frozenset({"base/value", "value"}))
    assert trace["crash"].tolist() == ["", "ValueError: too bright", ""]
    assert np.isnan(trace["base/value"]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("base", "twin", "sentence"),
    [
        (Stub(1), Stub(2, BoxSpace((3, 3, 1))), r"the twin has shape \(3, 3, 1\), its base \(2, 2, 1\)"),
        (Stub(1), Stub(2, replace(BOX, high=255.0)), r"the twin has high 255.0, its base 1.0"),
        (Stub(1), Stub(2, TextSpace(("a", "b"))), "the twin reads texts, its base tensors"),
        (
            Stub(1, TextSpace(("a", "b"))), Stub(2, TextSpace(("a", "b", "z"))),
            "alphabet has 3 symbols, its base's 2, and they differ in 'z'",
        ),
        (Stub(1, TextSpace(("a", "b"))), Stub(2, TextSpace(("b", "a"))), "they differ in their order"),
        (Stub(1, TextSpace(("a", "b"))), Stub(2, TextSpace(("a", "b"), 2)), "the twin has min_length 2"),
    ],
)  # fmt: skip
def test_models_that_read_other_rows_are_no_pair(base, twin, sentence):
    with pytest.raises(TargetError, match=sentence):
        Pair(base, twin)


def test_models_of_other_classes_are_no_pair():
    with pytest.raises(TargetError, match="the twin has 3 classes, its base 2"):
        Pair(image(0.0), image(0.0, classes=3))
    with pytest.raises(TargetError, match=r"shape \(3, 2, 1\)"):
        Pair(image(0.0), image(0.0, shape=(3, 2, 1)))
