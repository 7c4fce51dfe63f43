"""Twins of Hugging Face's causal language models: called as their bases are, near them, and not the same."""

import inspect
from copy import deepcopy
from functools import cache

import pytest
import torch
import transformers
from torch import nn

from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.validate import fingerprint

torch.set_num_threads(1)

SYMBOLS = 97
NEAR = {  # how well a twin's logits go with its base's, at least
    "fp16": 0.99999, "bf16": 0.999, "int8": 0.999, "int8:per=tensor": 0.997, "int4": 0.85, "round:6": 0.95,
    "prune:0.2": 0.9, "tflite": 0.99, "dynamic": 0.99, "torchao": 0.999, "torchao:scheme=int8dq": 0.998,
    "torchao:scheme=int4": 0.85,
}  # fmt: skip
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=SYMBOLS, n_embd=64, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def family(name, **more):
    """A model of a family that names its sizes as Llama does."""
    shape = {
        "vocab_size": SYMBOLS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.2,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**shape, **more)
    return getattr(transformers, f"{name}ForCausalLM")(config)


GROUPED = {"num_key_value_heads": 2}
MODELS = {
    "gpt2": gpt2,
    "llama": lambda: family("Llama", **GROUPED),
    "qwen2": lambda: family("Qwen2", **GROUPED, tie_word_embeddings=True),
    "qwen3": lambda: family("Qwen3", **GROUPED, head_dim=16),
    "mistral": lambda: family("Mistral", **GROUPED, sliding_window=None),
    "gpt_neox": lambda: family("GPTNeoX"),
}


@cache
def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


@cache
def twin_of(name, recipe):
    return make_twin(made(name), recipe)


@cache
def prompts():
    return torch.randint(0, SYMBOLS, (3, 9), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def read(model, ids, **more):
    """What a model says; its cache is called by another name from transformers 5.24 on."""
    if "memory" in more:
        named = "cache" in inspect.signature(model.forward).parameters
        more["cache" if named else "past_key_values"] = more.pop("memory")
    return model(input_ids=ids, return_dict=True, **more)


def agreement(one, other):
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def memory(model):
    return {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())} - {0}


CASES = [(name, recipe) for name in ("gpt2", "llama") for recipe in NEAR] + [
    (name, recipe)
    for name in ("qwen2", "qwen3", "mistral", "gpt_neox")
    for recipe in ("fp16", "int8", "int4", "dynamic", "torchao")
]


@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_a_twin_says_nearly_what_its_base_says_in_the_same_form(name, recipe):
    base, ids = made(name), prompts()
    state, wanted = deepcopy(base.state_dict()), read(base, ids)
    twin = twin_of(name, recipe)
    assert all(torch.equal(base.state_dict()[key], value) for key, value in state.items())
    assert torch.equal(read(base, ids).logits, wanted.logits)
    out = read(twin.module, ids)
    assert type(out) is type(wanted)
    assert out.logits.dtype == torch.float32
    assert out.keys() == wanted.keys()
    assert NEAR[recipe] < agreement(out.logits, wanted.logits)
    assert (out.logits - wanted.logits).abs().max() > 1e-4
    assert fingerprint(twin.module, "") != fingerprint(base, "")


@pytest.mark.parametrize("recipe", NEAR)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_twin_shares_nothing_with_its_base_and_can_be_copied(name, recipe):
    base, twin = made(name), twin_of(name, recipe).module
    assert not memory(base) & memory(twin)
    assert twin.config is not base.config
    assert twin.generation_config is not base.generation_config
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in base.modules())
    other = deepcopy(twin)
    assert torch.equal(read(other, prompts()).logits, read(twin, prompts()).logits)
    assert fingerprint(other, "") == fingerprint(twin, "")


# --- how a target calls them: padded, with masks of every kind, and step by step ---

PADS = torch.tensor([4, 0, 2])


def masks():
    """The same padding on the left as a mask (B, T), as (B, 1, T, T) of truths, and as numbers to add."""
    places = torch.arange(9)
    plain = places >= PADS[:, None]
    seen = plain[:, None, None] & (places <= places[:, None])
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return plain.long(), seen, added


def positions():
    return (torch.arange(9) - PADS[:, None]).clamp(min=0)


STEADY = [recipe for recipe in NEAR if recipe != "dynamic"]  # whose rows change with what is beside them


@pytest.mark.parametrize("recipe", STEADY)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_and_masks_make_no_difference(name, recipe):
    twin, ids = twin_of(name, recipe).module, prompts()
    found = [
        read(twin, ids, attention_mask=mask, position_ids=positions(), use_cache=False, logits_to_keep=1)
        for mask in masks()
    ]
    near = 0.05 if recipe in HALF else 0.15 if recipe.endswith("dq") or recipe == "tflite" else 1e-4
    for row, pad in enumerate(PADS.tolist()):
        alone = read(twin, ids[row : row + 1, pad:]).logits[:, -1]
        for out in found:
            assert out.logits.shape == (3, 1, SYMBOLS)
            assert (out.logits[row] - alone).abs().max() < near


@pytest.mark.parametrize("recipe", STEADY)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_twin_goes_on_from_the_cache_that_it_is_given(name, recipe):
    twin, ids = twin_of(name, recipe).module, prompts()
    plain, _, added = masks()
    whole = read(twin, ids, attention_mask=added, position_ids=positions(), use_cache=False).logits[:, -1]
    given = transformers.DynamicCache()
    first = read(
        twin, ids[:, :6], attention_mask=plain[:, :6], position_ids=positions()[:, :6], memory=given,
        use_cache=True,
    )  # fmt: skip
    assert any(value is given for value in first.values())
    assert given.layers[0].keys.dtype == HALF.get(recipe, torch.float32)
    last = read(
        twin, ids[:, 6:], attention_mask=added[:, :, 6:], position_ids=positions()[:, 6:], memory=given,
        use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    near = 0.05 if recipe in HALF else 0.15 if recipe.endswith("dq") or recipe == "tflite" else 1e-4
    assert (last.logits[:, 0] - whole).abs().max() < near


@pytest.mark.parametrize("recipe", HALF)
def test_numbers_that_mask_stay_finite_in_half_precision(recipe):
    twin, (_, _, added) = twin_of("qwen2", recipe).module, masks()
    everything = torch.full_like(added, torch.finfo(torch.float32).min)
    assert read(twin, prompts(), attention_mask=everything).logits.isfinite().all()
    by_kind = {"full_attention": added}
    out = read(twin, prompts(), attention_mask=by_kind, position_ids=positions()).logits
    assert torch.equal(out, read(twin, prompts(), attention_mask=added, position_ids=positions()).logits)
    assert by_kind["full_attention"] is added
    assert added.dtype == torch.float32


@pytest.mark.parametrize("scheme", ["int8", "int8dq", "int4"])
def test_torchao_s_rows_do_not_look_at_their_neighbours(scheme):
    twin, ids = (
        twin_of("llama", str(f"torchao:scheme={scheme}".removesuffix(":scheme=int8"))).module,
        prompts(),
    )
    alone = torch.cat([read(twin, row[None]).logits for row in ids])
    torch.testing.assert_close(alone, read(twin, ids).logits, atol=1e-4, rtol=1e-4)


# --- half precision is what transformers makes of a checkpoint ---


@pytest.mark.parametrize("recipe", HALF)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_a_cast_twin_is_the_checkpoint_loaded_in_that_precision(name, recipe, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    base = made(name)
    base.save_pretrained(tmp_path)
    loaded = type(base).from_pretrained(tmp_path, dtype=HALF[recipe]).eval()
    ids = prompts().repeat(1, 6)  # the last of 54 positions turn far
    assert torch.equal(read(twin_of(name, recipe).module, ids).logits, read(loaded, ids).logits.float())


# --- what is converted, and what is left alone ---


def test_all_that_a_gpt_2_multiplies_by_is_converted_but_its_tied_head():
    base = made("gpt2")
    folded = [name for name, part in base.named_modules() if type(part).__name__ == "Conv1D"]
    assert len(folded) == 8
    for recipe in set(NEAR) - set(HALF):
        twin = twin_of("gpt2", recipe)
        assert twin.converted == tuple(f"{name} (Conv1D)" for name in folded)
        assert "8 tensors of 8 Conv1D " in twin.words
        assert twin.words.endswith(
            "; left alone: 2 Embedding, 5 LayerNorm, biases, 1 Linear (tied to the embedding)"
        )
        state = twin.module.state_dict()
        for name, old in base.state_dict().items():
            assert torch.equal(state[name], old) == (name.removesuffix(".weight") not in folded)
            assert state[name].shape == old.shape
        assert twin.module.lm_head.weight is twin.module.transformer.wte.weight


def test_a_head_of_its_own_is_converted():
    for recipe in set(NEAR) - set(HALF):
        twin = twin_of("llama", recipe)
        assert len(twin.converted) == 15
        assert "lm_head (Linear)" in twin.converted
        assert "tied" not in twin.words
        assert torch.equal(twin.module.model.embed_tokens.weight, made("llama").model.embed_tokens.weight)
    assert "14 tensors of 14 Linear " in twin_of("qwen2", "int8").words


def test_inputs_that_make_no_whole_groups_are_left_alone_by_torchao():
    torch.manual_seed(0)
    base = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=SYMBOLS, n_embd=72, n_layer=1, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    twin = make_twin(base, "torchao:int4")
    assert twin.converted == ("transformer.h.0.mlp.c_proj (Conv1D)",)  # 4 * 72 inputs
    assert twin.words.endswith(
        "3 Conv1D (inputs not a multiple of 32), biases, 1 Linear (tied to the embedding)"
    )
    assert isinstance(twin.module.transformer.h[0].mlp.c_proj, nn.Linear)
    assert not isinstance(twin.module.transformer.h[0].mlp.c_fc, nn.Linear)
    difference = (read(twin.module, prompts()).logits - read(base, prompts()).logits).abs().max()
    assert 1e-5 < difference < 0.1
