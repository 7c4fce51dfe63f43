"""Hugging Face folders on the command line: campaigns, pairs, replay, wrong input."""

import json
from pathlib import Path

import pytest
import torch

from helpers import small_lms
from helpers.shell import Shell
from lmfuzz.storage.record import CampaignRecord

torch.set_num_threads(1)
BRIEF = ("--max-new", "10", "--max-length", "24", "--count", "10", "--batch", "16")


@pytest.fixture
def sh(tmp_path, monkeypatch, capsys) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.txt"
    path.write_text("How now\nO, the moon\nA king\nSpeak again\nthe stars\nall in all\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_lms.save(tmp_path / "model")


def found_in(directory: Path) -> list:
    record = CampaignRecord.read(directory)
    return record.findings


@pytest.mark.parametrize("level", ["char", "token"])
def test_a_campaign_on_a_folder_finds_resumes_and_replays(sh, folder, seeds, level, tmp_path):
    objectives = ("--objective", "repetition", "--objective", 'phrases:words=["king", "moon"]')
    result = sh(
        "fuzz", str(folder), *BRIEF, "--seeds", str(seeds), "--level", level, *objectives, "--budget", "200x",
        "-o", "c",
    )  # fmt: skip
    assert result.code == 1, result.err
    assert "repetition: " in result.out
    more = sh("resume", "c", "--budget", "300x")
    assert more.code == 1
    found = found_in(tmp_path / "c")
    assert {finding.by_text is None for finding in found} == {level == "char"}
    again = sh("replay", "c")
    assert again.code == 1
    assert "changed" not in again.out
    assert all(": still fails" in line for line in again.out.splitlines()), again.out
    shown = sh("show", "c", "1").out
    assert shown.count("text alone") == (level == "token")
    assert "lineage" in shown
    sh("shrink", "c", "1")
    small = found_in(tmp_path / "c")[0].minimal
    assert small is not None
    assert (small.by_text is None) is (level == "char")
    assert sh("show", "c", "1").out.count("text alone") == 2 * (level == "token")


def test_a_campaign_is_the_same_again(sh, folder, seeds, tmp_path):
    for name in ("one", "two"):
        sh("fuzz", str(folder), *BRIEF, "--seeds", str(seeds), "--budget", "150x", "-o", name)
    one, two = (
        [(f.prompt, f.output, f.bucket, f.execution) for f in found_in(tmp_path / n)] for n in ("one", "two")
    )
    assert one == two
    assert one


def test_chat_models_get_their_template_and_chat_seeds(sh, tmp_path):
    folder = small_lms.save(tmp_path / "chat", chat=True)
    result = sh(
        "fuzz", str(folder), "--max-new", "6", "--max-length", "60", "--count", "8", "--budget", "100x",
        "-o", "c", "--system", "Guard the word pelican.", "--objective", 'echo:secret="pelican"',
        "--objective", "never_ends",
    )  # fmt: skip
    assert result.code in (0, 1), result.err
    record = CampaignRecord.read(tmp_path / "c")
    texts = record.space.texts(record.rows[:8])
    assert (
        texts[0]
        in (small_lms.CORPORA / "chat")
        .joinpath(sorted(p.name for p in (small_lms.CORPORA / "chat").iterdir())[0])
        .read_text()
    )
    for system in ((), ("--system", "x")):
        brief = ("--max-length", "40", "--max-new", "10")
        wrong = sh("fuzz", str(folder), *brief, *system, "--objective", 'echo:secret="pelican"', "-o", "d")
        assert wrong.code == 2
        assert "echo looks for 'pelican', which the system prompt lacks" in wrong.err


def test_a_folder_and_its_twin(sh, folder, seeds):
    result = sh(
        "diff", str(folder), "--twin", "int4", *BRIEF, "--seeds", str(seeds), "--budget", "100x", "-o", "c",
        "--objective", "disagreement:gap=0.01", "--objective", "divergence",
    )  # fmt: skip
    assert result.code in (0, 1), result.err
    assert "int4 in groups of 32" in result.out
    assert "noise floor" in result.out


def test_crossing_words_with_a_model_of_another_kind(sh, folder, seeds, tmp_path):
    for arguments, words in (
        (("fuzz", "--level", "token"), "--level is for Hugging Face models"),
        (("fuzz", str(folder), "--level", "word"), "--level must be 'char' or 'token'"),
        (("fuzz", str(folder), "--layer", "9"), "has 2 layers; --layer takes 1 to 2"),
        (("fuzz", str(folder), "--max-new", "200"), "do not fit into the window"),
        (("fuzz", "owner/absent", "--budget", "1s"), "there is no folder owner/absent"),
        (
            ("fuzz", str(folder), "--seeds", str(tmp_path / "long.txt"), "--level", "token"),
            "tokens, more than --max-length allows (64)",
        ),
        (("fuzz", str(folder), "--objective", "memorised"), "memorised needs folder"),
        (
            ("fuzz", str(folder), "--max-new", "5", "--objective", "memorised:folder=long.txt"),
            "looks for 20 tokens in a row, but an output has 5",
        ),
        (("fuzz", str(folder), "--search", "directd"), "did you mean 'directed'?"),
        (("diff", str(folder), "--twin", "prune:2"), "share must be less than 1, not 2"),
    ):
        (tmp_path / "long.txt").write_text("word " * 200)
        result = sh(*arguments, "-o", "nothing")
        assert result.code in (2, 3)
        assert words in result.err
        assert len(result.err.strip().splitlines()) == 1
        assert not (tmp_path / "nothing").exists()


def test_a_damaged_folder_is_exit_code_3_and_writes_nothing(sh, folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"nothing")
    result = sh("fuzz", str(folder), "-o", "nothing")
    assert result.code == 3
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "nothing").exists()


def test_a_budget_that_calibration_spent_is_said(sh, folder, seeds):
    result = sh("fuzz", str(folder), *BRIEF, "--seeds", str(seeds), "--budget", "0.01s", "-o", "c", "--json")
    assert result.code == 2
    assert "nothing was searched: calibration took" in result.err
    assert json.loads(result.out.splitlines()[-1])["findings"] == {}
