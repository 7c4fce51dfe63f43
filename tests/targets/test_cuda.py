"""Causal language models on a GPU: the same as on the CPU, where there is a GPU to see it on."""

import numpy as np
import pytest
import torch

from helpers import small_lms
from lmfuzz.errors import UsageError
from lmfuzz.targets.hf import decoding as writing
from lmfuzz.targets.hf.repeat_probe import Repeating
from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.twins.pair import CHANNELS as PAIRED
from lmfuzz.targets.twins.pair import TextPair

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

PROMPTS = ["How now, my lord", "A", "Speak again, thou run", "the moon and the stars are", "O"]
GAPS = frozenset({"phrase_gap/fw/king", "phrase_gap//the moon"})
NEAR = {"rtol": 2e-3, "atol": 2e-3}  # sums are added in another order
RECIPES = ("fp16", "bf16", "int8", "int4", "prune:0.5", "tflite", "torchao")


def rows(target, prompts=PROMPTS):
    return target.space.batch([target.space.encode(prompt) for prompt in prompts])


def same(one, other):
    """Whether two traces say the same, to rounding."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], **NEAR, err_msg=name)
        else:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("level", ["char", "token"])
@pytest.mark.parametrize("kind", small_lms.SIZES)
def test_every_channel_is_what_it_is_on_the_cpu(kind, level, temperature):
    how = {"level": level, "temperature": temperature, "stop": ("the",)}
    cpu, cuda = (small_lms.target(kind, device=device, **how) for device in ("cpu", "cuda"))
    assert cuda.reader.device.type == "cuda"
    assert (cuda.reader.padded, cuda.reader.own_cache) == (cpu.reader.padded, cpu.reader.own_cache)
    wants = frozenset(name for name in cpu.channels if not name.endswith("/"))
    wants |= GAPS if cpu.reader.padded else frozenset()
    same(cpu.run(rows(cpu), wants), cuda.run(rows(cuda), wants))


def test_a_chat_template_and_rows_that_leave_early_change_nothing():
    how = {"chat": True, "system": "Be brief", "ends": tuple(range(0, 400, 9)), "max_new": 30}
    cpu, cuda = (small_lms.target("llama", device=device, **how) for device in ("cpu", "cuda"))
    wants = frozenset({"text", "ended", "tokens", "hidden_mean", *GAPS})
    same(cpu.run(rows(cpu), wants), cuda.run(rows(cuda), wants))


def test_what_a_pair_shows_is_what_it_is_on_the_cpu():
    def pair(device):
        base = small_lms.target("llama", device=device)
        return TextPair(base, base.like(small_lms.target("llama", model_seed=1, device=device).module, "two"))

    one, two = pair("cpu"), pair("cuda")
    same(one.run(rows(one), PAIRED | {"text"}), two.run(rows(two), PAIRED | {"text"}))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_twin_is_made_and_run_where_its_base_is(recipe):
    base = small_lms.target("llama", device="cuda")
    twin = base.like(make_twin(base.module, recipe).module, recipe)
    shown = TextPair(base, twin).run(rows(base), PAIRED)
    assert np.isfinite(shown["kl"][:, 0]).all()
    assert (shown["kl"][:, 0] > 0).any()


def test_a_twin_whose_kernels_run_on_cpus_alone_is_refused():
    with pytest.raises(UsageError, match="dynamic"):
        make_twin(small_lms.target("llama", device="cuda").module, "dynamic")


def test_tokens_are_as_alike_and_as_often_repeated_as_on_the_cpu():
    cpu, cuda = (small_lms.target("gpt2", device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu.lexicon.indicator, cuda.lexicon.indicator, **NEAR)
    some = np.arange(5, 60, dtype=np.int32)
    said = [np.concatenate([found for _, found in Repeating(t.reader)(some)]) for t in (cpu, cuda)]
    np.testing.assert_allclose(*said, **NEAR)


def test_continuations_are_drawn_there():
    target = small_lms.target("llama", device="cuda")
    drawn = [target.sample(rows(target), 9, 1.0, np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(*drawn)
    assert drawn[0].shape == (len(PROMPTS), 9)


def test_a_batch_is_halved_when_the_memory_of_the_gpu_runs_out(monkeypatch):
    target = small_lms.target("llama", device="cuda")
    expected = target.run(rows(target), frozenset({"tokens", "text"}))
    begin = writing.Writer._begin

    def short(self, prompts, steps):
        if len(prompts) > 2:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")  # a petabyte
        return begin(self, prompts, steps)

    monkeypatch.setattr(writing.Writer, "_begin", short)
    same(expected, target.run(rows(target), frozenset({"tokens", "text"})))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_campaign_runs_on_it_and_its_findings_fail_again(dtype, sh, tmp_path):
    small_lms.save(tmp_path / "model")
    where = (
        "--device",
        "cuda",
        "--dtype",
        dtype,
        "--max-new",
        "20",
        "--max-length",
        "24",
        "--budget",
        "800x",
    )
    done = sh(
        "fuzz", str(tmp_path / "model"), *where, "--objective", "repetition", "--budget", "800x", "-o", "c"
    )
    assert done.code == 1, done.err
    assert "--batch 64 is small" in done.err
    again = sh("replay", "c")
    assert again.code == 1, again.err
    assert all(": still fails" in line for line in again.out.splitlines()), again.out
