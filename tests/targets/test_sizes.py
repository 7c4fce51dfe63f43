"""Configurations that ask for far more than the files with the weights hold."""

import json
import resource
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from helpers import small_lms
from lmfuzz.errors import TargetError
from lmfuzz.targets.hf.contents import Header
from lmfuzz.targets.hf.loader import load
from lmfuzz.targets.hf.options import HFOptions

WRONG = {  # a field, what it says, and what the files say instead
    "llama": {
        "num_hidden_layers": (10**6, "the weights in FILES hold 2 layers"),
        "hidden_size": (100_000, "model.embed_tokens.weight in FILES has the shape (400, 32)"),
        "vocab_size": (10**9, "model.embed_tokens.weight in FILES has the shape (400, 32)"),
        "intermediate_size": (10**8, "model.layers.0.mlp.gate_proj.weight in FILES has the shape (64, 32)"),
        "num_key_value_heads": (
            10**7, "model.layers.0.self_attn.k_proj.weight in FILES has the shape (16, 32)"
        ),
        "head_dim": (10**7, "model.layers.0.self_attn.q_proj.weight in FILES has the shape (32, 32)"),
    },
    "gpt2": {
        "n_layer": (10**6, "the weights in FILES hold 2 layers"),
        "n_positions": (10**9, "transformer.wpe.weight in FILES has the shape (128, 32)"),
        "n_inner": (10**9, "transformer.h.0.mlp.c_fc.weight in FILES has the shape (32, 128)"),
        "num_labels": (10**9, "the weights in FILES hold 2 layers"),
    },
    "qwen2": {"num_hidden_layers": (10**12, "the weights in FILES hold 2 layers")},
    "mamba": {"state_size": (10**9, "backbone.layers.0.mixer.A_log in FILES has the shape (64, 4)")},
}  # fmt: skip
CASES = [(kind, field) for kind, fields in WRONG.items() for field in fields]


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def save(folder: Path, kind: str, form: str) -> str:
    """Save a model; return what errors call its files."""
    small_lms.save(folder, kind)
    if form == "sharded":
        (folder / "model.safetensors").unlink()
        small_lms.model(kind).save_pretrained(folder, max_shard_size="30KB")
        names = sorted(path.name for path in folder.glob("model-*.safetensors"))
        return f"{names[0]} to {names[-1]}"
    if form == "pickled":
        (folder / "model.safetensors").unlink()
        torch.save(small_lms.model(kind).state_dict(), folder / "pytorch_model.bin")
        return "pytorch_model.bin"
    return "model.safetensors"


def said(folder: Path) -> str:
    """Return how a folder is refused, which must neither take long nor fill the memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(TargetError) as error:
        load(str(folder), HFOptions(), allow_pickle=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB
    assert time.perf_counter() - started < 20
    return str(error.value)


@pytest.mark.parametrize("form", ["single", "sharded", "pickled"])
@pytest.mark.parametrize(("kind", "field"), CASES)
def test_a_size_that_the_weights_do_not_have_is_refused(
    tmp_path: Path, kind: str, field: str, form: str
) -> None:
    files = save(tmp_path, kind, form)
    load(str(tmp_path), HFOptions(), allow_pickle=True)
    value, instead = WRONG[kind][field]
    edit(tmp_path, **{field: value})
    words = f"the config.json of {tmp_path} says {field} {value}, but {instead.replace('FILES', files)}"
    assert said(tmp_path) == words


def test_a_size_of_which_no_tensor_speaks_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama", "single")
    edit(tmp_path, model_type="gptj", n_layer=2, n_embd=32, n_head=4, rotary_dim=8)
    edit(tmp_path, max_position_embeddings=10**9)
    assert said(tmp_path) == (
        f"the config.json of {tmp_path} asks for a far larger model than model.safetensors holds; its largest"
        " number is n_positions 1000000000"
    )


def test_packed_and_tied_weights_hold_more_than_their_header_says(tmp_path: Path) -> None:
    save(tmp_path, "gpt2", "single")
    found = Header.find(str(tmp_path), True, allow_pickle=False)
    config = small_lms.model("gpt2").config
    numbers = sum(weights.numel() for weights in small_lms.model("gpt2").parameters())
    found.require_sizes("it", config, trust_remote_code=False)
    packed = deepcopy(config)
    packed.vocab_size, packed.quantization_config = 10**5, {"bits": 4}
    small = Header("it.safetensors", {"transformer.wte.weight": (10**5, 16)}, 10**6 + numbers)
    small.require_sizes("it", packed, trust_remote_code=False)
    packed.vocab_size = 10**7
    with pytest.raises(TargetError, match=r"says vocab_size 10000000, but transformer\.wte\.weight in it"):
        small.require_sizes("it", packed, trust_remote_code=False)
