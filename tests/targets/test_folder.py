"""Hugging Face folders and hub names: what loads, and what is said of those that do not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import small_lms
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.inputs.seeds import read as seeds_of
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.spec import Spec
from lmfuzz.targets.hf.loader import load
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.loading import load_target
from lmfuzz.targets.twins.pair import Pair, TextPair

torch.set_num_threads(1)
SHORT = {"max_new": 8, "max_length": 24}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_lms.save(tmp_path / "model")


def said(name: object, how: HFOptions | None = None, **more: bool) -> str:
    with pytest.raises(TargetError) as error:
        load(str(name), how or HFOptions(), **more)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    return str(error.value)


def edit(folder: Path, file: str, **changes: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_becomes_a_target_that_writes_what_generate_writes(folder: Path) -> None:
    target = load_target(Spec(model=str(folder), **SHORT))
    assert isinstance(target, CausalLM)
    batch = target.space.batch([target.space.encode("How now")])
    expected = small_lms.target(max_new=8, max_length=24).run(batch, frozenset({"text"}))["text"]
    assert target.run(batch, frozenset({"text"}))["text"] == expected
    assert target._ends == (0,)
    assert target.identity == load_target(Spec(model=str(folder), **SHORT)).identity


def test_new_gelu_is_computed_by_torch_and_writes_the_same(tmp_path: Path) -> None:
    folder = small_lms.save(tmp_path / "gpt2", "gpt2")
    target = load_target(Spec(model=str(folder), **SHORT))
    kinds = {type(part).__name__ for part in target.module.modules()}
    assert "GELU" in kinds
    assert "NewGELUActivation" not in kinds
    batch = target.space.batch([target.space.encode("How now"), target.space.encode("O")])
    expected = small_lms.target("gpt2", max_new=8, max_length=24).run(batch, frozenset({"tokens"}))
    assert target.run(batch, frozenset({"tokens"}))["tokens"].tolist() == expected["tokens"].tolist()


def test_precisions(folder: Path) -> None:
    assert next(load(str(folder), HFOptions()).model.parameters()).dtype == torch.float32
    target = load_target(Spec(model=str(folder), dtype="bfloat16", **SHORT))
    assert target.reader.dtype == torch.bfloat16
    assert target.reader.padded
    batch = target.space.batch([target.space.encode("How now"), target.space.encode("O")])
    trace = target.run(batch, frozenset({"hidden_last", "logprob"}))
    assert trace["hidden_last"].dtype == trace["logprob"].dtype == "float32"


def test_templates_and_system_prompts(tmp_path: Path) -> None:
    folder = small_lms.save(tmp_path / "chat", chat=True)
    plain = load(str(folder), HFOptions(template="raw", system="Be brief. ")).tokens
    assert (plain.before, plain.behind, plain.special) == ("Be brief. ", "", True)
    chat = load(str(folder), HFOptions(system="Be brief.")).tokens
    assert chat.before == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert chat.behind == "<|im_end|>\n<|im_start|>assistant\n"
    wrapped = small_lms.tokenizer(chat=True)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]
    expected = wrapped.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert chat.prompts(["What is it?"]) == [expected]
    assert load_target(Spec(model=str(folder), **SHORT)).info.seeds == "corpora:chat"


@pytest.mark.parametrize("level", ["char", "token"])
def test_an_uncased_tokenizer_reads_capitals(folder: Path, tmp_path: Path, level: str) -> None:
    edit(folder, "tokenizer.json", normalizer={"type": "Lowercase"})
    target = load_target(Spec(model=str(folder), level=level, **SHORT))
    (seeds := tmp_path / "seeds.txt").write_text("Who Goes There\nwho goes there\n")
    read = seeds_of([str(seeds)], target.space).batch
    upper, lower = target._prompts(read)
    assert upper == lower
    assert target.space.texts(read)[0] == ("Who Goes There" if level == "char" else "who goes there")


def test_a_template_that_strips_prompts_does_so(tmp_path: Path) -> None:
    folder = small_lms.save(tmp_path / "chat", chat=True)
    stripping = small_lms.CHAT.replace("m.content", "m.content | trim")
    (folder / "chat_template.jinja").write_text(stripping)
    tokens = load(str(folder), HFOptions()).tokens
    assert tokens.strips
    assert tokens.prompts(["  x "]) == tokens.prompts(["x"])


@pytest.mark.parametrize(
    ("template", "system", "words"),
    [
        ("{{ raise_exception('no system here') }}", "Be brief.",
         "or use --template raw): TemplateError: no system here"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "Be brief.",
         "leaves out the system prompt"),
        ("nothing", "", "leaves out the prompt"),
        ("{{ messages[", "", "cannot be used (correct it, or use --template raw): TemplateSyntaxError"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_used(tmp_path: Path, template: str, system: str, words: str) -> None:
    folder = small_lms.save(tmp_path / "chat", chat=True)
    (folder / "chat_template.jinja").write_text(template)
    assert words in said(folder, HFOptions(system=system))
    assert load(str(folder), HFOptions(template="raw")).tokens.before == ""


def test_a_chat_template_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no chat template; use --template raw"):
        load(str(folder), HFOptions(template="chat"))


def test_notes_say_what_is_missing_and_not_needed(folder: Path) -> None:
    edit(folder, "config.json", eos_token_id=None, pad_token_id=None)
    edit(folder, "generation_config.json", eos_token_id=None, pad_token_id=None)
    edit(folder, "tokenizer_config.json", eos_token=None, pad_token=None)
    found = load(str(folder), HFOptions())
    assert found.ends == ()
    assert any("no end of text" in note for note in found.notes)
    assert any("no padding token; none is needed" in note for note in found.notes)
    assert "end_logprob" not in load_target(Spec(model=str(folder), **SHORT)).channels


def test_several_ends_of_text(folder: Path) -> None:
    edit(folder, "generation_config.json", eos_token_id=[5, 0, 999_999])
    assert load(str(folder), HFOptions()).ends == (5, 0)


# -- what is wrong --


@pytest.mark.parametrize("wrong", ["x", [[1]], {"a": 1}, [5, "y"]])
def test_an_end_of_text_that_is_no_token_is_refused(folder: Path, wrong: object) -> None:
    edit(folder, "generation_config.json", eos_token_id=wrong)
    with pytest.raises(TargetError, match="eos_token_id"):
        load(str(folder), HFOptions())


def test_folders_that_lack_something(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "weights")
    assert "has no weights: a model.safetensors belongs beside its config.json" in said(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pytorch_model.bin is a pickle, which can run code" in said(folder)
    (folder / "pytorch_model.bin").unlink()
    (tmp_path / "weights").rename(weights)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    assert "has no tokenizer: a tokenizer.json belongs beside" in said(folder)
    assert "configuration" in said(tmp_path) or "config" in said(tmp_path)


def test_pickles_are_read_when_asked_for(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert "is a pickle" in said(folder)
    found = load(str(folder), HFOptions(), allow_pickle=True)
    assert torch.equal(found.model.get_input_embeddings().weight, state["model.embed_tokens.weight"])
    torch.save({**state, "more": Path}, folder / "pytorch_model.bin")
    assert "hold more than tensors, and are not read" in said(folder, allow_pickle=True)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for broken in (content[:100], content[: len(content) // 2], b"", b"\xff" * 1000):
        path.write_bytes(broken)
        assert "are cut short or damaged; copy its safetensors again" in said(folder)
    state = load_file(_written(path, content))
    save_file(
        {**state, "model.norm.weight": state["model.norm.weight"] * float("nan")}, path, {"format": "pt"}
    )
    assert "tensor model.norm.weight" in said(folder)
    assert "NaN or infinite" in said(folder)
    del state["model.norm.weight"]
    save_file(state, path, {"format": "pt"})
    assert "lack model.norm.weight" in said(folder)
    assert "belong to another model" in said(folder)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_weights_of_another_shape(folder: Path) -> None:
    edit(folder, "config.json", intermediate_size=48)
    assert "_proj.weight in the shape (32, 64) instead of (32, 48), and" in said(folder)


def test_a_tokenizer_that_belongs_to_another_model(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = {**small_lms.SIZES["llama"]}
    for rows, words in (
        (300, "has 400 tokens, the last 399, and the model knows 300"),
        (2000, "the model knows 2000"),
    ):
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(folder, other)
        from transformers import AutoModelForCausalLM, LlamaConfig

        AutoModelForCausalLM.from_config(LlamaConfig(**config, vocab_size=rows)).save_pretrained(other)
        assert "does not belong to the model" in said(other)
        assert words in said(other)
    (folder / "tokenizer.json").write_text("{}")
    assert "the tokenizer of" in said(folder)


def test_models_of_other_kinds(folder: Path) -> None:
    edit(folder, "config.json", model_type="t5", is_encoder_decoder=True)
    assert "is an encoder-decoder model (t5); lmfuzz audits decoder-only ones" in said(folder)
    edit(folder, "config.json", model_type="vit", is_encoder_decoder=False)
    assert "is a vit model, not a causal language model" in said(folder)
    edit(folder, "config.json", model_type="never_heard_of")
    assert "names a model_type that this version of transformers does not know" in said(folder)
    edit(folder, "config.json", model_type="bert")
    assert "is a bert model, not a causal language model" in said(folder)


def test_code_that_comes_with_a_model_is_not_run(folder: Path) -> None:
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "evil.py").write_text("raise SystemExit('this ran')")
    edit(folder, "config.json", model_type="evil", auto_map=auto)
    assert "its own code, which runs only with --trust-remote-code" in said(folder)


def test_devices_that_are_not_here(folder: Path) -> None:
    if not torch.cuda.is_available():
        assert "no CUDA device here" in said(folder, HFOptions(device="cuda"))
        assert load(str(folder), HFOptions(device="auto")).model.device.type == "cpu"
    with pytest.raises(UsageError, match="is not a device; --device takes cpu, cuda or auto"):
        load(str(folder), HFOptions(device="gpu"))


def test_a_config_that_names_no_kind_is_not_a_hugging_face_folder(folder: Path) -> None:
    (folder / "config.json").write_text("[]")
    with pytest.raises(TargetError, match="not one of lmfuzz's"):
        load_target(Spec(model=str(folder)))


def test_options_of_hugging_face_models_fit_no_other(folder: Path) -> None:
    for more in (
        {"level": "token"},
        {"system": "x"},
        {"layer": 2},
        {"batch_tokens": 9},
        {"dtype": "bfloat16"},
    ):
        with pytest.raises(UsageError, match="is for Hugging Face models"):
            load_target(Spec(**more))


# -- the hub --


def cached(folder: Path, home: Path, name: str) -> None:
    """Put a folder where the hub's client keeps a model of this name."""
    place = home / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, offline."""
    from huggingface_hub import constants

    home = tmp_path / "hub"
    home.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return home


def test_a_name_of_the_hub_is_found_where_its_client_keeps_it(folder: Path, hub: Path) -> None:
    cached(folder, hub, "somebody/small-lm")
    target = load_target(Spec(model="somebody/small-lm", **SHORT))
    assert target.identity == load_target(Spec(model=str(folder), **SHORT)).identity


def test_a_name_that_cannot_be_fetched(hub: Path) -> None:
    words = said("somebody/absent-lm")
    assert words.startswith(
        "there is no folder somebody/absent-lm, and the hub's model of that name is not here"
    )
    with pytest.raises(TargetError, match="there is no folder models/typo"):
        load_target(Spec(model="models/typo"))


def test_a_hub_that_does_not_answer_is_asked_once(
    folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Dead:
        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: False, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.get_session", Dead)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", Dead)
    cached(folder, hub, "somebody/small-lm")
    assert load_target(Spec(model="somebody/small-lm", **SHORT)).identity
    assert "is not here" in said("somebody/absent-lm")
    assert asked == ["head", "head"]


# -- pairs --


def test_twins_of_all_kinds(folder: Path, tmp_path: Path) -> None:
    for twin in ("bf16", "int8", "int4", "prune:0.5", "dynamic"):
        pair = load_target(Spec(model=str(folder), twin=twin, **SHORT))
        assert isinstance(pair, TextPair), twin
        assert any("the twin" in note for note in pair.info.notes)
        batch = pair.space.batch([pair.space.encode("How now"), pair.space.encode("O")])
        trace = pair.run(
            batch, frozenset({"kl", "parting", "base_gap", "twin_lead", "parting_symbols", "text"})
        )
        assert (trace["kl"][np.isfinite(trace["kl"])] >= 0).all()
        assert (trace["kl"] > 0).any()


def test_a_twin_in_another_folder(folder: Path, tmp_path: Path) -> None:
    other = small_lms.save(tmp_path / "gpt2", "gpt2")
    pair = load_target(Spec(model=str(folder), twin=str(other), **SHORT))
    assert isinstance(pair, TextPair)
    with pytest.raises(TargetError, match="the same weights"):
        load_target(Spec(model=str(folder), twin=str(folder), **SHORT))


def test_a_pair_takes_the_characters_that_both_tokenizers_read(folder: Path, tmp_path: Path) -> None:
    other = small_lms.save(tmp_path / "gpt2", "gpt2")
    pair = load_target(Spec(model=str(folder), twin=str(other), **SHORT))
    assert pair.space.knows("\U0001f1e9")
    assert len(pair.space.readers) == 2


def test_a_twin_with_another_tokenizer_is_compared_by_its_texts_alone(folder: Path, tmp_path: Path) -> None:
    other = small_lms.save(tmp_path / "gpt2", "gpt2")
    changed = json.loads((other / "tokenizer.json").read_text())
    changed["model"]["merges"] = changed["model"]["merges"][:-5]
    (other / "tokenizer.json").write_text(json.dumps(changed))
    pair = load_target(Spec(model=str(folder), twin=str(other), **SHORT))
    assert isinstance(pair, Pair)
    with pytest.raises(TargetError, match="another tokenizer, or another template"):
        load_target(Spec(model=str(folder), twin=str(other), level="token", **SHORT))


def test_the_real_model_that_somebody_else_trained() -> None:
    data = os.environ.get("LMFUZZ_DATA")
    place = Path(data).parent / "models" / "babyllama105" if data else None
    if place is None or not place.is_dir():
        pytest.skip("needs the folder models/babyllama105 beside the one that LMFUZZ_DATA names")
    target = load_target(Spec(model=str(place), max_new=30, max_length=40))
    assert isinstance(target, CausalLM)
    assert "\n" not in target.space.symbols
    batch = target.space.batch([target.space.encode("Once upon a time"), target.space.encode("The dog")])
    trace = target.run(batch, frozenset({"text", "tokens"}))
    assert trace["text"][0].startswith(", there was a little girl")
    for i in range(2):
        ids = torch.tensor([target._prompts(batch.alone(i))[0]])
        out = target.module.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
        )
        assert out[0, ids.shape[1] :].tolist() == trace["tokens"][i].tolist()


def test_tokens_packed_are_small() -> None:
    tokens = small_lms.tokens(chat=True)
    packed = tokens.pack()
    assert Tokens.unpack(json.loads(json.dumps(packed))) == tokens
    assert len(packed["json"]) < len(tokens.json) * 0.7
