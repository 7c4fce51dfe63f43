"""Importing from the command line, and testing what was imported."""

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.shell import Shell

TEXT = "\n abcdefghijklmnopqrstuvwxyz"


def spro() -> dict[str, torch.Tensor]:
    """The weights of a GRU under the names that most copies of char-rnn.pytorch use."""
    torch.manual_seed(0)
    parts = {"encoder": nn.Embedding(28, 9), "rnn": nn.GRU(9, 9, 2), "decoder": nn.Linear(9, 28)}
    return nn.ModuleDict(parts).state_dict()


def test_an_imported_model_is_tested(sh: Shell) -> None:
    torch.save({"epoch": 1, "model_state_dict": spro(), "chars": list(TEXT)}, "best model.ckpt")
    done = sh("import", "best model.ckpt", "-o", "new/model")
    assert done.code == 0
    assert done.out.splitlines() == [
        "lmfuzz: new/model holds a model: gru, 2 layers of 9, embedding of 9, 28 characters",
        "lmfuzz: test it with: lmfuzz fuzz new/model",
    ]
    done = sh("fuzz", "new/model", "--seeds", "text:the quick brown fox", "--budget", "300x", "-o", "run")
    assert done.code in (0, 1), done
    assert "look at one with" in done.out or "nothing was found" in done.out
    assert sh("import", "best model.ckpt", "-o", "quiet", "-q").out == ""


@pytest.mark.parametrize("level", ["char", "token"])
def test_an_imported_nanogpt_is_tested(sh: Shell, level: str) -> None:
    torch.manual_seed(0)
    width, state = 8, dict[str, torch.Tensor]()
    for name, shape in {
        "wte": (28, width), "wpe": (30, width), "h.0.ln_1": (width,), "h.0.ln_2": (width,), "ln_f": (width,),
        "h.0.attn.c_attn": (3 * width, width), "h.0.attn.c_proj": (width, width),
        "h.0.mlp.c_fc": (4 * width, width), "h.0.mlp.c_proj": (width, 4 * width),
    }.items():  # fmt: skip
        state[f"_orig_mod.transformer.{name}.weight"] = torch.randn(shape)
    args = {"n_layer": 1, "n_head": 2, "n_embd": width, "block_size": 30, "bias": False, "vocab_size": 28}
    torch.save({"model": state, "model_args": args}, "ckpt.pt")
    assert sh("import", "ckpt.pt", "-o", "gpt", "--alphabet", TEXT).code == 0
    more = ["--level", level, "--max-length", "15", "--max-new", "12", "--count", "5"]
    done = sh("fuzz", "gpt", "--seeds", "text:the fox", *more, "--budget", "100x", "-o", "run")
    assert done.code in (0, 1), done


def test_a_checkpoint_that_is_fuzzed_names_the_command(sh: Shell) -> None:
    for name in ("my gru.pt", "my gru.pth", "my gru.bin", "my gru.ckpt", "my gru.best.safetensors"):
        torch.save(spro(), name)
        words = sh.refused("fuzz", name, code=3)
        assert "a checkpoint, weights without what runs them" in words
        assert f"lmfuzz import '{name}' -o 'my gru'" in words


def test_a_folder_that_is_there_is_kept(sh: Shell) -> None:
    torch.save({"state_dict": spro(), "alphabet": TEXT}, "a.pt")
    Path("full").mkdir()
    (Path("full") / "notes.txt").touch()
    for there in ("full", "a.pt"):
        words = sh.refused("import", "a.pt", "-o", there)
        assert words == f"{there} is there already; give a new folder"
    Path("empty").mkdir()
    assert sh("import", "a.pt", "-o", "empty").code == 0


def test_wrong_files_and_alphabets_are_refused(sh: Shell) -> None:
    torch.save(spro(), "a.pt")
    assert "does not exist" in sh.refused("import", "none.pt", "-o", "m")
    wrong = "the alphabet has 100 symbols, and the model knows 28 (decoder.weight (28, 9) in a.pt)"
    assert sh.refused("import", "a.pt", "-o", "m", "--alphabet", "printable").startswith(wrong)
    torch.save(nn.Linear(2, 3).state_dict(), "b.pt")
    assert "b.pt has no such layers, but weight (3, 2)" in sh.refused("import", "b.pt", "-o", "m", code=3)
