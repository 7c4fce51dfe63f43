"""What a model folder holds besides the model: adapters, left-over weights, settings of generate."""

import json
import warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from helpers import small_lms
from lmfuzz.errors import TargetError
from lmfuzz.spec import Spec
from lmfuzz.targets.hf.contents import not_applied
from lmfuzz.targets.hf.loader import CausalFolder, load, wrap
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.loading import load_target
from lmfuzz.targets.sampling import Decoding

torch.set_num_threads(1)
WITH_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="needs lmfuzz[peft]")
WITHOUT_PEFT = pytest.mark.skipif(find_spec("peft") is not None, reason="only where peft is not installed")
SHORT = {"max_new": 8, "max_length": 24}
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_lms.save(tmp_path / "model")


def said(folder: Path, how: HFOptions | None = None, **more: bool) -> str:
    with pytest.raises(TargetError) as error:
        load_target(Spec(model=str(folder), **{**SHORT, **more}))
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(folder: Path, file: str, **changes: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_tensors(folder: Path, **more: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **{key.replace("__", "."): value for key, value in more.items()}}, path,
              {"format": "pt"})  # fmt: skip


def notes(folder: Path, **more: object) -> tuple[str, ...]:
    info = load_target(Spec(model=str(folder), **{**SHORT, **more})).info
    return tuple(note for note in info.notes if "padding" not in note)


# -- adapters --


def adapter(place: Path, base: str, kind: str = "llama", **more: object) -> torch.nn.Module:
    """Save a LoRA with random weights, and return the model that it makes."""
    import peft

    lora = peft.LoraConfig(r=4, target_modules=more.pop("modules", ["q_proj", "v_proj"]), **more)
    with warnings.catch_warnings(action="ignore"):  # of peft's use of transformers
        made = peft.get_peft_model(deepcopy(small_lms.model(kind)), lora)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if "lora_B" in name:
                weights.normal_()
    made.save_pretrained(place)
    edit(place, "adapter_config.json", base_model_name_or_path=base)
    return made.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(3, 19)[None]).logits


@WITHOUT_PEFT
def test_an_adapter_that_cannot_be_applied_is_named_with_the_extra(folder: Path, tmp_path: Path) -> None:
    words = "the model has an adapter (adapter_config.json), which needs peft: pip install 'lmfuzz[peft]'"
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert words in said(folder)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    assert words in said(alone)


def test_an_adapter_alone_must_say_what_it_adapts(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "does not say which model it adapts; set base_model_name_or_path" in said(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    assert "the adapter of" in said(tmp_path)


@WITH_PEFT
@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_is_merged_into_the_weights(folder: Path, tmp_path: Path, alone: bool) -> None:
    place = tmp_path / "adapter" if alone else folder
    expected = logits(adapter(place, str(folder) if alone else "somebody/else"))
    found = load(str(place), HFOptions())
    assert torch.allclose(logits(found.model), expected, atol=1e-4)
    assert not torch.allclose(logits(small_lms.model("llama")), expected, atol=1e-2)
    assert found.notes[0] == f"the adapter in {place} (LORA) is merged into the weights of {folder}"
    assert not [name for name, _ in found.model.named_modules() if "lora" in name]
    assert isinstance(load_target(Spec(model=str(place), twin="int8", **SHORT)).base, CausalLM)


@WITH_PEFT
def test_an_adapter_brings_its_own_tokenizer(folder: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", str(folder))
    assert load(str(tmp_path / "adapter"), HFOptions()).tokens.before == ""
    small_lms.tokenizer(chat=True).save_pretrained(tmp_path / "adapter")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "<|im_start|>user" in load(str(tmp_path / "adapter"), HFOptions()).tokens.before


@WITH_PEFT
def test_adapters_that_cannot_be_merged(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    adapter(place, "models/typo")
    assert "adapter is an adapter of models/typo: there is no folder models/typo" in said(place)
    edit(place, "adapter_config.json", base_model_name_or_path=str(small_lms.save(tmp_path / "g", "gpt2")))
    assert "cannot be merged into the weights of" in said(place)
    edit(place, "adapter_config.json", base_model_name_or_path=str(folder))
    weights = place / "adapter_model.safetensors"
    torch.save(load_file(weights), place / "adapter_model.bin")
    state = load_file(weights)
    weights.unlink()
    assert "has no adapter_model.safetensors; save it, or pass --allow-pickle to read" in said(place)
    assert load(str(place), HFOptions(), allow_pickle=True).notes[0].endswith(f"weights of {folder}")
    (place / "adapter_model.bin").unlink()
    assert said(place).endswith("has no adapter_model.safetensors; save it")
    lost = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    save_file({("x" + key if key == lost else key): value for key, value in state.items()}, weights)
    note = load(str(place), HFOptions()).notes[0]
    assert "1 tensor (base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight) missing" in note
    assert f"1 tensor (x{lost.removesuffix('.weight')}" in note
    edit(place, "adapter_config.json", peft_type="PROMPT_TUNING", num_virtual_tokens=4)
    assert "is a PROMPT_TUNING, not weights such as LoRA's" in said(place)


# -- weights --


def test_weights_that_the_config_does_not_ask_for_are_said(folder: Path) -> None:
    assert notes(folder) == ()
    edit(folder, "config.json", num_hidden_layers=1)
    (note,) = notes(folder)
    assert "hold 9 tensors (model.layers.1.input_layernorm.weight to model.layers.1.self_attn.v_proj" in note
    assert "that its config.json does not ask for, so not used" in note


def test_weights_that_change_nothing_are_not_said(folder: Path, tmp_path: Path) -> None:
    with_tensors(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    assert notes(folder) == ()
    gpt = small_lms.save(tmp_path / "gpt2", "gpt2")
    with_tensors(
        gpt,
        transformer__h__0__attn__bias=torch.ones(1, 1, 128, 128),
        transformer__h__0__attn__masked_bias=torch.tensor(-1e4),
        lm_head__weight=load_file(gpt / "model.safetensors")["transformer.wte.weight"].clone(),
    )
    assert notes(gpt) == ()
    with_tensors(gpt, v_head__summary__weight=torch.ones(1, 32))
    assert "hold 1 tensor (v_head.summary.weight) that" in notes(gpt)[0]


# -- settings of generate --


def test_settings_of_generate_that_are_not_applied_are_said(folder: Path) -> None:
    edit(folder, "generation_config.json", repetition_penalty=1.3, suppress_tokens=[3, 4], num_beams=1)
    (note,) = notes(folder)
    assert note == (
        "generation_config.json sets repetition_penalty 1.3, suppress_tokens [3, 4], which lmfuzz does not"
        " apply"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": [], "num_beams": 1}, []),
        ({"temperature": 0.6, "top_p": 0.9, "min_p": 0.1}, []),  # without sampling they change nothing
        ({"max_new_tokens": 50, "max_length": 4096}, []),
        ({"min_new_tokens": 4}, ["sets min_new_tokens 4, which"]),
        ({"forced_bos_token_id": 0}, ["sets forced_bos_token_id 0, which"]),
        ({"no_repeat_ngram_size": 3, "num_beams": 4}, ["sets no_repeat_ngram_size 3, num_beams 4, which"]),
        ({"max_length": 20}, ["sets max_length 20, which"]),
        ({"max_new_tokens": 20}, ["to do the same, add --max-new 20"]),
        ({"stop_strings": ["User:", "x"]}, ["to do the same, add --stop User: --stop x"]),
        ({"do_sample": True}, ["add --temperature 1.0 --top-k 50"]),
        ({"do_sample": True, "temperature": 0.6, "top_k": 0, "top_p": 0.9},
         ["add --temperature 0.6 --top-p 0.9"]),
        ({"do_sample": True, "min_p": 0.1}, ["sets min_p 0.1, which", "add --temperature 1.0 --top-k 50"]),
    ],
)  # fmt: skip
def test_only_settings_that_change_the_output_are_said(settings: dict, expected: list[str]) -> None:
    found = not_applied(GenerationConfig(**settings), Decoding(max_new=50), 64)
    assert len(found) == len(expected)
    assert all(words in note for note, words in zip(found, expected, strict=True))


def test_settings_that_are_given_are_not_said() -> None:
    settings = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, top_p=0.9, stop_strings="x")
    assert not_applied(settings, Decoding(50, 0.6, 0, ("x",), 20, 0.9), 64) == []
    assert not_applied(None, Decoding(), 64) == []
    (note,) = not_applied(settings, Decoding(50, 0.6, 0, ("x",)), 64)
    assert note.endswith("add --top-k 20 --top-p 0.9")


def test_sampling_as_advised_draws_from_what_generate_draws_from(folder: Path) -> None:
    edit(folder, "generation_config.json", do_sample=True, temperature=0.7)
    (note,) = notes(folder)
    assert note.endswith("to do the same, add --temperature 0.7 --top-k 50")
    target = load_target(Spec(model=str(folder), temperature=0.7, top_k=50, **SHORT))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = model.generate(
        torch.tensor([[5, 6, 7]]), max_new_tokens=1, output_scores=True, return_dict_in_generate=True
    )
    scores = target.sampler._restrict(logits_after(model, [5, 6, 7])) / 0.7
    assert torch.allclose(scores.softmax(-1), asked.scores[0].softmax(-1), atol=1e-5)


def logits_after(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[:, -1]


def test_a_generation_config_that_is_not_json_is_not_passed_over(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": 5,}')
    assert "generation_config.json is not JSON: JSONDecodeError" in said(folder)


# -- byte order marks --


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_byte_order_mark_is_named_with_its_file(folder: Path, file: str) -> None:
    path = folder / file
    text = path.read_text()
    for content in (MARK + text.encode(), text.encode("utf-16")):
        path.write_bytes(content)
        assert f"{path} begins with a byte order mark, which transformers does not" in said(folder)


def test_a_mark_in_a_chat_template_would_be_in_every_prompt(tmp_path: Path) -> None:
    folder = small_lms.save(tmp_path / "chat", chat=True)
    template = folder / "chat_template.jinja"
    template.write_bytes(MARK + template.read_bytes())
    assert "chat_template.jinja begins with a byte order mark" in said(folder)


# -- tokens beyond the embeddings --


def with_token(folder: Path, name: str = "[PAD]", special: bool = True) -> Path:
    """The folder with a token more in its tokenizer than its model knows."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {**tokenizer["added_tokens"][0], "id": small_lms.VOCABULARY, "content": name, "special": special}
    tokenizer["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("level", ["char", "token"])
def test_tokens_beyond_the_embeddings_are_in_no_prompt(folder: Path, level: str, special: bool) -> None:
    plain = load_target(Spec(model=str(folder), level=level, **SHORT))
    edit(with_token(folder, special=special), "tokenizer_config.json", pad_token="[PAD]")
    target = load_target(Spec(model=str(folder), level=level, **SHORT))
    words = "no prompt has [PAD], which the tokenizer has beyond the model's 400 embeddings"
    assert words in target.info.notes
    assert target.space.symbols == plain.space.symbols
    batch = target.space.batch([target.space.encode("a [PAD] b")])
    assert target._prompts(batch) == plain._prompts(batch)
    assert max(target._prompts(batch)[0]) < small_lms.VOCABULARY
    wants = frozenset({"text", "logprob"})
    assert target.run(batch, wants)["text"] == plain.run(batch, wants)["text"]


def test_prompts_that_need_such_a_token_are_refused_with_its_name(folder: Path, tmp_path: Path) -> None:
    chat = with_token(small_lms.save(tmp_path / "chat", chat=True), "<|turn|>")
    (chat / "chat_template.jinja").write_text("<|turn|>" + small_lms.CHAT)
    assert "need the token <|turn|>, which is beyond the model's 400 embeddings" in said(chat)
    assert load(str(chat), HFOptions(template="raw")).notes[0].startswith("no prompt has <|turn|>, which")
    tokenizer = json.loads((with_token(folder, "<s>") / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [small_lms.VOCABULARY], "tokens": ["<s>"]}},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "need the token <s>, which is beyond the model's 400 embeddings" in said(folder)


def test_a_model_that_is_an_object_may_have_such_a_token_too() -> None:
    tokenizer = deepcopy(small_lms.tokenizer())
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    found = wrap(small_lms.model("llama"), tokenizer, "it", HFOptions())
    assert isinstance(found, CausalFolder)
    assert found.tokens.size == small_lms.VOCABULARY
    assert found.notes == ("no prompt has [PAD], which the tokenizer has beyond the model's 400 embeddings",)
