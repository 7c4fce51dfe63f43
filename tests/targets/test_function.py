"""Functions of tensors as targets, and the bundled example of one."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.objectives.detectors import Detector
from lmfuzz.plugins.modules import resolve
from lmfuzz.targets.function import FunctionTarget, on

BOX = BoxSpace((2, 3), -1.0, 1.0)
BASE = {"text", "hidden_last", "magnitude", "nonfinite", "gradient"}
EXAMPLE = Path(__file__).parents[2] / "corpora" / "examples" / "broken_loss.py"


def target(function, space: BoxSpace = BOX) -> FunctionTarget:
    return FunctionTarget(function, space, "f")


def rows(count: int = 6, space: BoxSpace = BOX):
    rng = np.random.default_rng(2)
    return space.batch(rng.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32))


def sums(x):
    return {"total": x.sum(dim=(1, 2)), "squares": x**2}


def test_a_dict_of_outputs_is_shown_by_name():
    shown, batch = target(sums), rows()
    trace = shown.run(batch, shown.channels)
    assert shown.channels == BASE | {"total", "squares"}
    total = batch.data.sum(axis=(1, 2))
    np.testing.assert_allclose(trace["total"], total, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(trace["squares"], batch.data**2)
    flat = np.concatenate([trace["total"][:, None], (batch.data**2).reshape(6, 6)], axis=1)
    np.testing.assert_array_equal(trace["hidden_last"], flat)
    np.testing.assert_array_equal(trace["magnitude"], np.abs(flat).max(axis=1))
    assert trace["text"][0] == f"total {trace['total'][0]:.4g}, squares {trace['squares'][0, 0, 0]:.4g}"
    assert {trace[name].dtype.name for name in ("total", "squares", "hidden_last", "gradient")} == {"float32"}
    np.testing.assert_array_equal(trace["gradient"], np.ones((6, 2, 3)))


def test_a_bare_tensor_is_value_and_its_gradient_is_exact():
    shown, batch = target(lambda x: (x**3).flatten(1)), rows()
    trace = shown.run(batch, frozenset({"value", "gradient"}))
    np.testing.assert_allclose(trace["value"], (batch.data**3).reshape(6, 6), rtol=1e-5)
    np.testing.assert_allclose(trace["gradient"], 3 * batch.data**2, rtol=1e-5)


def test_the_gradient_is_computed_only_where_it_is_wanted():
    asked = []

    def note(x):
        asked.append(x.requires_grad)
        return x.sum(dim=(1, 2))

    shown = target(note)
    asked.clear()
    shown.run(rows(), frozenset({"value", "text", "magnitude"}))
    assert asked == [False]
    shown.run(rows(), frozenset({"gradient"}))
    assert asked == [False, True]


@pytest.mark.parametrize(
    "function",
    [lambda x: x.round().int().sum(dim=(1, 2)), lambda x: torch.from_numpy(np.sin(x.detach().numpy()))],
)
def test_what_autograd_does_not_know_has_gradients_of_nan(function):
    shown = target(function)
    trace = shown.run(rows(), frozenset({"value", "gradient"}))
    assert np.isnan(trace["gradient"]).all()
    assert trace["gradient"].shape == (6, 2, 3)
    assert trace["value"].dtype == np.float32


def test_a_function_that_writes_into_its_input_changes_no_rows():
    shown, batch = target(lambda x: x.mul_(2).sum(dim=(1, 2))), rows()
    before = batch.data.copy()
    trace = shown.run(batch, frozenset({"value", "gradient"}))
    again = shown.run(batch, frozenset({"value"}))
    np.testing.assert_array_equal(batch.data, before)
    np.testing.assert_array_equal(trace["value"], again["value"])
    np.testing.assert_array_equal(trace["gradient"], np.full((6, 2, 3), 2))


def test_what_is_not_finite_is_named():
    shown = target(lambda x: {"near": x.sum(dim=(1, 2)), "log": x[:, 0, 0].log(), "inf": 1 / x[:, 0, 1]})
    batch = BOX.batch(np.array([[[0.5, 0.5, 0]] * 2, [[-0.5, 0, 0]] * 2, [[0.5, 0, 0]] * 2], np.float32))
    trace = shown.run(batch, frozenset({"nonfinite", "magnitude", "text"}))
    assert trace["nonfinite"].tolist() == ["", "log", "inf"]
    assert np.isinf(trace["magnitude"]).tolist() == [False, True, True]
    assert trace["text"][1] == "near -1, log nan, inf inf"


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root, self.weight = Root(), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (self.root(x) * self.weight).nan_to_num().sum(dim=(1, 2))


def test_a_module_is_a_function_and_its_inside_is_watched():
    net = Net().eval()
    shown = target(net)
    batch = BOX.batch(np.array([np.full((2, 3), 0.25), np.full((2, 3), -0.25)], np.float32))
    trace = shown.run(batch, frozenset({"value", "nonfinite", "gradient"}))
    np.testing.assert_allclose(trace["value"], [3, 0])
    assert trace["nonfinite"].tolist() == ["", "root"]
    np.testing.assert_allclose(trace["gradient"][0], 1.0)
    assert not any(part._forward_hooks for part in net.modules())
    with pytest.raises(TargetError, match="training mode"):
        target(Net())


def test_hooks_are_gone_when_the_function_raises():
    net = Net().eval()
    shown = target(net)
    net.root.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        shown.run(rows(), frozenset({"magnitude"}))
    assert not any(part._forward_hooks for part in net.modules())


def test_the_box_is_declared_on_functions_and_classes():
    @on(BOX)
    def declared(x):
        return x

    @on(BOX)
    class Declared(Net):
        pass

    assert declared.space is Declared().space is BOX
    assert declared(3) == 3


def test_identity_is_what_the_function_does():
    def identity(function, space=BOX):
        return target(function, space).identity

    def scaled(scale):
        return eval(f"lambda x: (x * {scale}).sum(dim=(1, 2))")

    assert identity(scaled(2)) == identity(scaled(2))
    assert identity(scaled(2)) != identity(scaled(3))
    assert identity(scaled(2)) != identity(scaled(2), BoxSpace((2, 3)))
    assert identity(lambda x: x.exp()) != identity(lambda x: x.cos())
    assert identity(torch.sin) == identity(torch.sin)
    assert identity(functools.partial(torch.mul, other=2)) == identity(functools.partial(torch.mul, other=2))
    one, other = Net().eval(), Net().eval()
    assert identity(one) == identity(other)
    with torch.no_grad():
        other.weight[0] = 2
    assert identity(one) != identity(other)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda x: x @ torch.ones(4),
            r"cannot be run on .* of shape \(2, 2, 3\): Runtime",
        ),
        (lambda x: x.sum(), r"gives value of shape \(\) for a batch of 2"),
        (lambda x: x[:1], r"gives value of shape \(1, 2, 3\) for a batch of 2"),
        (lambda x: x[:, :0], r"gives value of shape \(2, 0, 3\)"),
        (lambda x: 3.0, "gives 'value': float"),
        (lambda x: {"loss": 3.0}, "gives 'loss': float"),
        (lambda x: {}, "gives nothing"),
        (lambda x: {"text": x}, "an output has the name of the channel text; rename it"),
        (lambda x: x + torch.rand(()), "gives different value each time"),
    ],
)
def test_what_cannot_be_a_target_is_told_in_one_sentence(function, sentence):
    with pytest.raises(TargetError, match=f"^f: .*{sentence}|^f {sentence}") as caught:
        target(function)
    assert "\n" not in str(caught.value)


# -- the bundled example --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken():
    function = resolve(f"{EXAMPLE}:broken_loss")
    return FunctionTarget(function, function.space, "broken_loss")


@pytest.fixture(scope="module")
def vanishing():
    return Detector("Vanishing", resolve(f"{EXAMPLE}:Vanishing")())


def at(broken, *logits: float):
    return broken.space.batch(np.array(logits, np.float32)[:, None])


def test_the_broken_loss_is_the_cross_entropy_and_its_gradient(broken):
    batch = at(broken, -5.0, 0.0, 2.0, 8.0)
    trace = broken.run(batch, frozenset({"loss", "slope", "gradient"}))
    np.testing.assert_allclose(trace["loss"], [math.log1p(math.exp(t)) for t in (-5, 0, 2, 8)], rtol=1e-3)
    np.testing.assert_allclose(trace["slope"], [1 / (1 + math.exp(-t)) for t in (-5, 0, 2, 8)], rtol=1e-3)
    np.testing.assert_allclose(trace["gradient"][:, 0], trace["slope"], rtol=1e-6)


def test_random_sampling_finds_where_the_gradient_vanishes(broken, vanishing):
    rng = np.random.default_rng(0)
    batch = at(broken, *rng.uniform(-100, 100, 256))
    trace = broken.run(batch, broken.channels)
    hits = vanishing(batch, trace)[:, 0] > 0
    np.testing.assert_array_equal(hits, (trace["loss"] > 0.01) & (trace["slope"] < 1e-4))
    assert 64 < hits.sum() < 192
    assert batch.data[hits].min() > 16.6
    row = int(np.flatnonzero(hits)[0])
    evidence = vanishing.evidence(batch, trace, row, 0)
    assert evidence.signature == "vanishing"
    assert evidence.words == "the loss is 27.63, and its gradient 0"


def test_the_margin_is_graded(broken, vanishing):
    def margins(loss, slope):
        trace = {"loss": np.array(loss, np.float32), "slope": np.array(slope, np.float32)}
        return vanishing(at(broken, *loss), trace)[:, 0]

    falling = margins([10.0] * 5, [1.0, 1e-2, 1e-3, 1e-5, 0.0])
    rising = margins([0.0, 1e-9, 1e-3, 0.1, 0.2], [1e-8] * 5)
    for graded in (falling, rising):
        assert np.isfinite(graded).all()
        assert (np.diff(graded) >= 0).all()
        assert (np.diff(graded[:3]) > 0).all()
        assert (graded > 0).tolist() == [False, False, False, True, True]
    assert np.isnan(margins([np.nan], [0.0])).all()


def test_the_margin_leads_uphill_along_the_logit(broken, vanishing):
    batch = at(broken, -40.0, -30.0, -20.0, -10.0, -7.0)
    trace = broken.run(batch, frozenset({"loss", "slope"}))
    climb = vanishing(batch, trace)[:, 0]
    assert (np.diff(climb) >= 0).all()
    assert climb[-1] > climb[0]
