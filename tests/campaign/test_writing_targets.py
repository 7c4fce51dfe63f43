"""Parts of a user's own that write into the arrays they are given, and models without finite numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.begun import MODEL, begun, parts
from lmfuzz.campaign.build import FEW
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.loop import run as run_loop
from lmfuzz.objectives.detectors import Detector
from lmfuzz.spec import Spec
from lmfuzz.targets.function import FunctionTarget
from lmfuzz.targets.toy import Toy
from lmfuzz.targets.twins.pair import Pair
from lmfuzz.types import Batch, Evidence

WANTS = frozenset({"text", "hidden_last"})


class Scribbler:
    """Shows the sum of each row's symbols, and overwrites them."""

    space = TextSpace(tuple("abcdefghij"))
    channels = WANTS
    identity = "scribbler"

    def run(self, batch: Batch, wants: frozenset[str]) -> dict[str, Any]:
        valid = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
        sums = np.where(valid, batch.data, 0).sum(axis=1)
        for array in (batch.data, batch.lengths, batch.origin):
            torch.from_numpy(array).zero_()
        if (sums == 13).any():
            raise ValueError("thirteen")
        shown = {"text": np.array(list(map(str, sums)), object), "hidden_last": np.float32(sums)[:, None]}
        return {name: shown[name] for name in wants}

    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> np.ndarray:
        batch.data[:] = 0
        return np.zeros((len(batch), new), np.int32)

    def margin_gradients(self, batch: Batch, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch.data[:] = 0
        return np.zeros(len(batch)), np.zeros(batch.data.shape)


def rows(*symbols: tuple[int, ...]) -> Batch:
    return Batch.of([np.array(row, np.int32) for row in symbols])


def test_a_target_may_write_into_its_batch_and_changes_nothing() -> None:
    batch, before = rows((1, 2), (9, 4), (3,)), rows((1, 2), (9, 4), (3,))
    executor = LocalExecutor(Scribbler())
    trace = executor.run(batch, WANTS | {"prompt", "origin"})
    assert trace["text"].tolist() == ["3", "", "3"]  # the halves ran with the same rows
    assert trace["prompt"].tolist() == ["bc", "je", "d"]
    executor.sample(batch, 2, 1.0, np.random.default_rng(0))
    executor.gradients(batch, np.zeros(3, int))
    for name in Batch.__slots__:
        assert np.array_equal(getattr(batch, name), getattr(before, name)), name


def test_the_base_of_a_pair_may_do_so_too() -> None:
    one, other = Scribbler(), Scribbler()
    for target in (one, other):
        target.info = Toy().info
    trace = Pair(one, other).run(rows((1, 2), (3,)), frozenset({"base/text", "twin/text"}))
    assert trace["base/text"].tolist() == trace["twin/text"].tolist() == ["3", "3"]


def test_a_campaign_of_such_a_target_finds_what_is_there(tmp_path: Path) -> None:
    class Bug(Scribbler):
        def run(self, batch: Batch, wants: frozenset[str]) -> dict[str, Any]:
            shown = Toy(loop_key="vk").run(batch, frozenset(wants))
            batch.data[:] = 0
            return dict(shown)

    Bug.space, Bug.channels = Toy().space, Toy().channels
    (tmp_path / "seeds").write_text("the v\nonce k\nvk here\n")
    spec = Spec(model=MODEL, seeds=[str(tmp_path / "seeds")], objectives=["repetition"], budget="300x")
    campaign = begun(spec, Bug())
    found = [finding for step in campaign.steps() for finding in step.findings]
    assert found
    assert all("vk" in finding.prompt and finding.failed == finding.runs for finding in found)


def test_a_detector_that_writes_is_told_so_before_the_campaign() -> None:
    def lower(batch: Batch, trace: dict[str, Any]) -> Any:
        trace["text"][:] = ""
        return np.zeros(len(batch))

    def shift(batch: Batch, trace: dict[str, Any]) -> Any:
        batch.data[:] += 1
        return np.zeros(len(batch))

    def wrong(batch: Batch, trace: dict[str, Any]) -> Any:
        raise ValueError("of its own")

    batch = rows((1, 2), (3,))
    trace = LocalExecutor(Toy()).run(batch, frozenset({"text"}))
    for detect in (lower, shift):
        with pytest.raises(UsageError, match=f"objective '{detect.__name__}' changes an array that others"):
            Detector(detect.__name__, detect)(batch, trace)
    with pytest.raises(ValueError, match="of its own"):
        Detector("wrong", wrong)(batch, trace)


def test_evidence_cannot_write_either() -> None:
    class Sly:
        def __call__(self, batch: Batch, trace: dict[str, Any]) -> Any:
            return np.ones(len(batch))

        def evidence(self, batch: Batch, trace: dict[str, Any], row: int, column: int) -> Evidence:
            batch.data[row] = 0
            return Evidence("x", "y")

    batch = rows((1, 2), (3,))
    with pytest.raises(ValueError, match="read-only"):
        Detector("sly", Sly()).evidence(batch, LocalExecutor(Toy()).run(batch, frozenset({"text"})), 0, 0)
    assert batch.row(0).tolist() == [1, 2]


def test_a_feature_that_writes_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Clean:\n"
        "    needs = frozenset({'hidden_last'})\n"
        "    def fit(self, trace): pass\n"
        "    def __call__(self, trace):\n"
        "        trace['hidden_last'] -= 1\n"
        "        return trace['hidden_last']\n"
    )
    spec = Spec(model=MODEL, feature=f"{tmp_path / 'own.py'}:Clean", objectives=["repetition"])
    with pytest.raises(UsageError, match=r"the feature .*own.py:Clean changes an array that others read"):
        begun(spec, Toy())


def test_a_search_may_change_what_it_is_told(tmp_path: Path) -> None:
    made = parts(Spec(model=MODEL, objectives=["repetition"], budget="200x"), Toy())
    search, told = made.search, made.search.tell

    def tell(batch: Batch, trace: Any, margins: np.ndarray, novel: np.ndarray) -> None:
        told(batch, trace, margins, novel)
        batch.data[:] = -5
        margins[:] = 1

    search.tell = tell  # type: ignore[method-assign]
    campaign = Campaign.begin(made)
    plan = search, campaign.executor, campaign.feature, campaign.objectives, campaign.archive
    steps = list(run_loop(*plan, campaign.findings, campaign.budget, 32, made.wants))
    assert min(step.batch.data.min() for step in steps) >= 0
    assert not any(step.findings for step in steps if (step.margins <= 0).all())


# -- without finite numbers --


class Broken(Scribbler):
    """Shows NaN for all rows: as states, or only as log probabilities."""

    channels = frozenset({"text", "hidden_last", "tokens", "logprob", "magnitude", "nonfinite"})
    states = np.nan

    def run(self, batch: Batch, wants: frozenset[str]) -> dict[str, Any]:
        count = len(batch)
        shown = {
            "text": np.full(count, "aaaaaaaaaaaaaaaa", object),
            "hidden_last": np.float32(self.states * batch.lengths)[:, None],
            "tokens": np.ones((count, 3), np.int32), "logprob": np.full((count, 3), np.nan, np.float32),
            "magnitude": np.full(count, np.inf, np.float32), "nonfinite": np.full(count, "layer 0", object),
        }  # fmt: skip
        return {name: shown[name] for name in wants}


class BrokenLogits(Broken):
    states = 1.0


@pytest.mark.parametrize("kind", [Broken, BrokenLogits])
@pytest.mark.parametrize("feature", ["hidden_last", "output_cells:probabilities=false"])
def test_a_model_that_is_finite_nowhere_is_a_finding_if_that_is_looked_for(
    tmp_path: Path, kind: type[Broken], feature: str
) -> None:
    (tmp_path / "seeds").write_text("abc\nde\nfghi\n")
    spec = Spec(model=MODEL, seeds=[str(tmp_path / "seeds")], budget="100x", feature=feature)
    campaign = begun(spec.model_copy(update={"objectives": ["nonfinite"]}), kind())
    assert "every seed leads to NaN or infinity" in campaign.calibration.words()
    assert [f.evidence.signature for step in campaign.steps() for f in step.findings] == ["layer 0"] * 3
    with pytest.raises(UsageError, match="every seed leads to NaN or infinity, so the outputs mean nothing"):
        begun(spec.model_copy(update={"objectives": ["repetition"]}), kind())


def test_a_model_that_is_finite_nowhere_is_refused_before_calibration(tmp_path: Path) -> None:
    (tmp_path / "seeds").write_text("\n".join("abcd"[i % 4] * (1 + i // 4) for i in range(40)))
    target, ran = Broken(), []
    run = target.run
    target.run = lambda batch, wants: ran.append(len(batch)) or run(batch, wants)
    spec = Spec(model=MODEL, seeds=[str(tmp_path / "seeds")], objectives=["repetition"], budget="100x")
    with pytest.raises(UsageError, match="every seed leads to NaN"):
        begun(spec, target)
    assert sum(ran) <= 2 * FEW


def test_a_function_of_which_all_values_are_infinite_is_a_finding() -> None:
    target = FunctionTarget(lambda x: x[:, :1] / 0 * torch.inf, BoxSpace((2,), 0.5, 1.0), "inf")
    spec = Spec(model=MODEL, objectives=["nonfinite"], budget="50x", count=4)
    found = [finding for step in begun(spec, target).steps() for finding in step.findings]
    assert found
