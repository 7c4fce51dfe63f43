"""The scan for under-trained tokens: what it finds, that it asks about all, what the command line shows."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import planted
from helpers.shell import Shell
from lmfuzz.analysis.token_scan import FIXED, VERDICTS, Scan
from lmfuzz.campaign import choose
from lmfuzz.errors import TargetError
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.hf.repeat_probe import Repeating
from lmfuzz.targets.loading import load_target

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return planted.save(tmp_path_factory.mktemp("planted"), tied=True)


def strict(text: str):
    def refused(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refused)


def test_every_token_is_asked_about_once_and_batches_change_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    largest = Repeating._largest

    def noted(self: Repeating, tokens: torch.Tensor) -> object:
        asked.extend(tokens.tolist())
        return largest(self, tokens)

    monkeypatch.setattr(Repeating, "_largest", noted)
    whole, small = Scan(Spec(model=folder, **FIXED)), Scan(Spec(model=folder, batch_tokens=51, **FIXED))
    assert sum(whole) == sum(small) == len(whole) == planted.SIZE
    assert asked == [*range(planted.SIZE)] * 2
    assert set(small) == {3, planted.SIZE % 3}  # batches of 51 tokens, 17 of each prompt
    np.testing.assert_allclose(small.probability, whole.probability, rtol=1e-3, atol=1e-6)
    assert small.verdicts == whole.verdicts


def test_the_probability_is_that_of_the_token_behind_its_repeats(folder: str) -> None:
    scan = Scan(Spec(model=folder, **FIXED))
    list(scan)
    model = planted.model(True)
    for token in (5, 300, planted.NEVER[0]):
        with torch.no_grad():
            logits = model(torch.tensor([[0, *[token] * 16]])).logits[0, -2:]  # END stands in front
        expected = logits.softmax(dim=1)[:, token].max()
        assert scan.probability[token] == pytest.approx(float(expected), rel=1e-4)
    shown = [i for i in range(1, planted.SIZE) if i not in {*planted.NEVER, *planted.HIGH}]
    assert (scan.probability[shown] > 0.1).all()
    assert (scan.probability[[*planted.NEVER]] < 0.001).all()


def test_the_planted_tokens_are_shown_and_the_exit_code_says_so(sh: Shell, folder: str) -> None:
    done = sh("tokens", folder, "--json")
    assert done.code == 1
    assert done.out.count("\n") == 1
    assert done.err == ""  # no bar where there is no terminal
    found = strict(done.out)
    assert [token["id"] for token in found["tokens"]] == [*range(planted.SIZE)]
    assert found["tied"] is True
    assert found["known_unused"] == 13 + 3  # bytes, and rows of no token
    assert found["mute"] < 0.05
    assert sum(found["counts"].values()) == planted.SIZE
    verdicts = {token["id"]: token["verdict"] for token in found["tokens"]}
    ordinary = [token for token in found["tokens"] if token["kind"] == "ordinary"]
    assert {t["id"] for t in ordinary if t["verdict"] == "under-trained"} == {*planted.NEVER}
    assert {verdicts[i] for i in planted.HIGH} <= {"under-trained", "unused", "fine"}
    assert "unused" not in {t["verdict"] for t in ordinary}
    text = planted.tokenizer().decode([planted.NEVER[0]])
    assert found["tokens"][planted.NEVER[0]]["text"] == text
    shown = sh("tokens", folder, "--top", "300")
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"{planted.SIZE} tokens: {found['counts']['under-trained']} under-trained")
    assert lines[2].split() == ["id", "indicator", "norm", "probability", "verdict", "kind", "text"]
    assert len(lines) == 3 + 300 + 1
    first = lines[3 : 3 + found["counts"]["under-trained"]]
    assert all("under-trained" in line for line in first)
    assert any(line.split()[0] == str(planted.NEVER[0]) and line.endswith(f'"{text}"') for line in first)
    assert lines[-1].startswith(f"and {planted.SIZE - 300} more")
    assert sh("tokens", folder, "--top", "0").out.count("\n") == 3


def test_verdicts_follow_from_the_two_limits(folder: str) -> None:
    scan = Scan(Spec(model=folder, **FIXED))
    low, high = (int(i) for i in (scan.ids[scan.indicators.argmin()], scan.ids[scan.indicators.argmax()]))
    scan.vocabulary = SimpleNamespace(
        indicator=scan.vocabulary.indicator, threshold=scan.vocabulary.threshold,
        unspelled=np.array([planted.NEVER[1]]), kinds=scan.vocabulary.kinds,
    )  # fmt: skip
    scan.probability[:] = 0.5
    scan.probability[[*planted.NEVER[:2], high]] = 0.009
    scan.probability[planted.NEVER[2]] = np.nan  # nothing that the model could say
    expected = {planted.NEVER[0]: "under-trained", planted.NEVER[1]: "unused"}
    expected |= {planted.NEVER[2]: "under-trained", planted.NEVER[3]: "suspicious", high: "fine"}
    assert {i: scan.verdicts[i] for i in expected} == expected
    assert scan.verdicts[low] == "suspicious"
    assert scan.found == 2
    assert set(scan.verdicts) == set(VERDICTS)


def test_a_model_that_repeats_nothing_is_said_to(folder: str) -> None:
    scan = Scan(Spec(model=folder, **FIXED))
    scan.probability[:] = 1e-5
    assert scan.mute == 1
    assert "rests on the indicator alone" in list(scan.lines(3))[2]


def test_batches_are_halved_when_memory_runs_out(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Scan(Spec(model=folder, **FIXED))
    read, sizes = scan._repeating.reader.read, []

    def short(ids: torch.Tensor, cache: object, **more: int) -> object:
        sizes.append(len(ids))
        if len(ids) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return read(ids, cache, **more)

    monkeypatch.setattr(scan._repeating.reader, "read", short)
    assert sum(scan) == planted.SIZE
    assert max(sizes[-3:]) <= 50 < sizes[0]
    monkeypatch.setattr(scan._repeating.reader, "read", lambda *_, **__: np.empty(10**15))
    with pytest.raises(TargetError, match="no memory for a prompt of 17 tokens"):
        list(scan)


def test_it_is_for_causal_language_models_alone(sh: Shell, tmp_path: Path) -> None:
    for model in ("model.py:easy", "corpora:examples/broken_loss.py:broken_loss"):
        assert "is not a Hugging Face causal language model" in sh.refused("tokens", model)
    assert "there is no checkpoint folder nowhere" in sh.refused("tokens", "nowhere", code=3)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    assert "encoder-decoder" in sh.refused("tokens", "bert", code=3)


def test_operators_on_tokens_take_part_where_rows_are_tokens(sh: Shell, folder: str) -> None:
    small = ("--max-length", "8", "--max-new", "4", "--batch", "16", "--objective", "repetition:times=40")
    Path("seeds.txt").write_text("abc\nbad gab\n")
    done = sh.fuzz("--level", "token", "-o", "run", *small, model=folder, budget="600x")
    assert done.code == 0, done
    record = CampaignRecord.read(Path("run"))
    assert {"neighbour", "rare", "respell"} <= set(record.operators)
    made = dict(zip(record.operators, record.tally.mutants, strict=True))
    assert all(made[name] > 0 for name in ("neighbour", "rare", "respell"))
    done = sh.fuzz("-o", "characters", *small, model=folder, budget="300x")
    assert done.code == 0, done
    record = CampaignRecord.read(Path("characters"))
    assert not {"neighbour", "rare", "respell"} & set(record.operators)
    for name in ("neighbour", "rare", "respell"):
        for model in (folder, "model.py:easy"):
            said = sh.refused("fuzz", model, "--seeds", "seeds.txt", "--operator", name)
            assert (
                said == f"the operator {name} changes tokens; it needs a model of tokens and the level "
                "token (--level token)"
            )
    assert "does not fit" in sh.refused("image", "nan", "models:mnist/lenet1", "--operator", "rare")


def test_a_pair_of_models_has_what_its_base_knows(folder: str) -> None:
    spec = Spec(model=folder, twin="bf16", **FIXED)
    pair = load_target(spec)
    assert choose.lexicon(pair) is pair.base.lexicon
    assert {"neighbour", "rare", "respell"} <= set(choose.operators(spec, pair))
    at_characters = load_target(spec.model_copy(update={"level": "char", "twin": ""}))
    assert choose.lexicon(at_characters) is None
