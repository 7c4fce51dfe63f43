"""Decoding options and targets that decode by themselves; the progress of calibration."""

import numpy as np
import pytest

from helpers.begun import MODEL, parts
from lmfuzz.api import running
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Decodes
from lmfuzz.spec import Spec
from lmfuzz.types import Batch, Trace


class Backwards:
    """Writes the prompt backwards."""

    space, channels, identity = TextSpace(tuple("abc")), frozenset({"text", "hidden_last"}), "backwards"

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        shown = {
            "text": np.array([text[::-1] for text in self.space.texts(batch)], dtype=object),
            "hidden_last": batch.lengths[:, None].astype(np.float32),
        }
        return {name: shown[name] for name in wants}


class Obedient(Backwards):
    """Writes as it is told."""

    def __init__(self) -> None:
        self.told: dict[str, object] = {}

    def set_decoding(self, **settings: object) -> None:
        self.told, self.identity = settings, f"backwards {settings}"


def spec(**settings: object) -> Spec:
    return Spec(model=MODEL, objectives=["repetition"], seeds=["text:abc", "text:ca"], **settings)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"max_new": 9}, "--max-new"), ({"temperature": 0.5}, "--temperature"), ({"stop": ["c"]}, "--stop"),
        ({"decode_seed": 3}, "--decode-seed"), ({"temperature": 1.0, "top_k": 2}, "--temperature"),
    ],
)  # fmt: skip
def test_options_that_a_target_does_not_take_are_refused(settings: dict, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        parts(spec(**settings), Backwards())
    assert str(caught.value).startswith(f"{option} has no effect: the target {MODEL} decodes by itself")


def test_options_are_handed_to_a_target_that_takes_them() -> None:
    target = Obedient()
    made = parts(spec(max_new=9, temperature=0.5, stop=["c"]), target)
    assert target.told == {
        "max_new": 9, "temperature": 0.5, "seed": 0, "stop": ("c",), "top_k": 0, "top_p": 1.0,
    }  # fmt: skip
    used = made.evaluator.target
    assert isinstance(used, Decodes)
    assert used.identity == target.identity != Backwards.identity


def test_calibration_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY", 0.0)
    notes: list[str] = []
    made = parts(spec(batch=16), Backwards())
    seeds = len(made.context.seeds)
    Campaign.begin(made, running._calibrating(notes.append))
    assert notes[0] == f"calibrating: {seeds} of {notes[0].split()[3]} executions"
    done, total = (int(notes[-1].split()[i]) for i in (1, 3))
    assert done == total
