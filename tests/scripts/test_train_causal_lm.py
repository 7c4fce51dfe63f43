"""The trainer of causal language models, on a small text: what it writes loads, and has learnt; the chat."""

import os
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, LlamaForCausalLM

import lmfuzz
from lmfuzz.inputs.datasets import DATA

torch.set_num_threads(1)

SCRIPTS = Path(__file__).parents[2] / "scripts"

import train_causal_lm as trainer  # noqa: E402

BUNDLED = Path(lmfuzz.__file__).parent / "models" / "chat"
SMALL = ["--vocabulary", 300, "--layers", 1, "--width", 64, "--context", 48, "--rate", 0.01]
SPEAKERS = {
    "CAT": ["thé mice sat on a mat", "so I sat, too"],
    "DOG": ["bones for me and for all!", "where is mine?"],
    "OLD HEN": ["what now? the corn?", "my eggs are gone!"],
}
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def write_dialogue(path, speeches=300, gap="\n\n"):
    """Speeches of each speaker's first sentence; half of them go on with the second."""
    draw = random.Random(0)
    speakers = draw.choices(list(SPEAKERS), k=speeches)
    said = ["\n".join([speaker + ":", *SPEAKERS[speaker][: draw.randint(1, 2)]]) for speaker in speakers]
    path.write_text(gap.join(said), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_dialogue(tmp_path_factory.mktemp("text") / "dialogue.txt")


def train(text, folder, *options):
    result = CliRunner().invoke(trainer.main, [str(a) for a in (text, folder, *SMALL, *options)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def printed_losses(result):
    """Nats per token and per character."""
    assert result.exit_code == 0, result.output
    words = r"validation loss (\S+) nats/token, (\S+) nats/character; \d+ parameters; written"
    return [float(number) for number in re.search(words, result.output).groups()]


def load(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def write(model, tokenizer, prompt, tokens):
    """What the model writes greedily, as text with its special tokens, the prompt left out."""
    ids = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(written[0, ids["input_ids"].shape[1] :])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def trained(request, text, tmp_path_factory):
    """A folder, its losses, and those of the same model untrained."""
    folder = tmp_path_factory.mktemp(request.param)
    before = printed_losses(train(text, folder, "--shape", request.param, "--epochs", 0))
    after = printed_losses(train(text, folder, "--shape", request.param, "--epochs", 10))
    return request.param, folder, before, after


@pytest.fixture(scope="module")
def chat(text, tmp_path_factory):
    """A folder and its losses."""
    folder = tmp_path_factory.mktemp("chat")
    options = ["--context", 96, "--epochs", 7, "--batch", 6, "--rate", 0.006, "--system", 0.5]
    trained = train(text, folder, "--chat", "--shape", "llama", "--dtype", "bfloat16", *options)
    return folder, printed_losses(trained)


def test_what_is_written_loads_and_its_loss_is_the_printed_one(trained, text):
    shape, folder, _, (per_token, per_character) = trained
    assert {path.name for path in folder.iterdir()} == FILES
    model, tokenizer = load(folder)
    assert type(model) is {"gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM}[shape]
    assert model.config.vocab_size == len(tokenizer) <= 300
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 48
    for names in (model.config, model.generation_config):
        end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        assert (names.bos_token_id, names.eos_token_id, names.pad_token_id) == (end,) * 3
    documents = trainer.read(text, 20)[270:]
    content = "".join(document + "<|endoftext|>" for document in documents)
    tokens = tokenizer(content, return_tensors="pt", verbose=False)["input_ids"][0]
    assert tokenizer.decode(tokens) == content
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(tokens) - 1, 47):  # each window by itself
            window = tokens[start : start + 48]
            logits = model(window[None]).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
    assert count == len(tokens) - 1
    assert per_token == pytest.approx(total / count, abs=1e-3)
    assert per_character == pytest.approx(total / len("\n\n".join(documents)), abs=1e-3)


def test_the_loss_falls(trained):
    _, _, before, after = trained
    assert before[0] == pytest.approx(torch.tensor(300.0).log().item(), abs=0.3)
    assert after[0] < before[0] / 8
    assert after[1] < before[1] / 8


def test_the_end_of_a_text_is_learnt(trained, text):
    _, folder, _, _ = trained
    model, tokenizer = load(folder)
    content = "".join(document + "<|endoftext|>" for document in trainer.read(text, 20)[270:])
    tokens = tokenizer(content, return_tensors="pt", verbose=False)["input_ids"][0].unfold(0, 48, 8)
    with torch.inference_mode():
        chances = model(tokens).logits[:, :-1].softmax(dim=2)[:, :, tokenizer.eos_token_id]
    ends = tokens[:, 1:] == tokenizer.eos_token_id
    assert chances[ends].mean() > 0.6, "half of the ends are certain, the others may be and may not"
    assert chances[~ends].mean() < 0.06


def test_an_answer_is_learnt_with_its_end(chat):
    model, tokenizer = load(chat[0])
    said = [f"{speaker}:\n{first}" for speaker, (first, _) in SPEAKERS.items()]
    more = [f"{speaker}:\n{first}\n{second}" for speaker, (first, second) in SPEAKERS.items()]
    for first, _ in SPEAKERS.values():
        messages = [{"role": "user", "content": first}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert write(model, tokenizer, prompt, 60) in [f"{answer}<|im_end|>" for answer in said + more]


def test_only_answers_are_learnt(chat, text):
    _, tokenizer = load(chat[0])
    documents = trainer.read(text, 20)
    lesson = trainer.chat_lesson(documents, 270, tokenizer, 1000, 0.5, torch.Generator().manual_seed(0))
    assert (len(lesson.rows()), len(lesson.held_out)) == (269, 29)
    systems = 0
    for (tokens, labels), (said, answer) in zip(lesson.rows(), pairwise(documents), strict=False):
        assert tokenizer.decode(labels[labels >= 0]) == answer + "<|im_end|>"
        assert torch.equal(labels[labels >= 0], tokens[labels >= 0])
        whole = tokenizer.decode(tokens)
        words = said.split(":\n")[1]
        system = f"<|im_start|>system\nYou are {answer.split(':')[0]}.<|im_end|>\n"
        turns = f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        assert whole in (turns, system + turns)
        systems += whole != turns
    assert 0.4 < systems / 269 < 0.6
    assert lesson.characters == sum(map(len, documents[271:]))


def test_a_long_answer_is_cut_and_one_that_begins_too_late_is_left_out(chat):
    _, tokenizer = load(chat[0])
    chats = [
        [{"role": "user", "content": "mat " * said}, {"role": "assistant", "content": "corn " * answered}]
        for said, answered in ((2, 100), (100, 2), (2, 2))
    ]
    cut, whole = trainer.answers(chats, tokenizer, 40)
    assert len(cut[0]) == len(cut[1]) == 40
    assert [tokenizer.eos_token_id in labels for _, labels in (cut, whole)] == [False, True]


def test_the_template_is_that_of_chatml_and_its_turns_are_tokens(chat):
    folder, _ = chat
    assert {path.name for path in folder.iterdir()} == FILES | {"chat_template.jinja"}
    model, tokenizer = load(folder)
    messages = [
        {"role": "system", "content": "Bé brief. "},
        {"role": "user", "content": "\nWho?"},
        {"role": "assistant", "content": "I\n\nam."},
        {"role": "user", "content": ""},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|im_start|>system\nBé brief. <|im_end|>\n<|im_start|>user\n\nWho?<|im_end|>\n"
        "<|im_start|>assistant\nI\n\nam.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids) == rendered
    assert "<|im_" not in tokenizer.decode(ids, skip_special_tokens=True)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (ids.count(start), ids.count(end)) == (5, 4)
    for role in ("system", "user", "assistant"):
        assert len(tokenizer(role)["input_ids"]) == 1
    assert model.config.eos_token_id == tokenizer.eos_token_id == end
    assert sorted(model.generation_config.eos_token_id) == sorted([tokenizer.bos_token_id, end])
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_the_printed_loss_of_a_chat_is_that_of_the_stored_weights(chat, text):
    folder, (per_token, per_character) = chat
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    model, tokenizer = load(folder)
    assert model.dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    lesson = trainer.chat_lesson(trainer.read(text, 20), 270, tokenizer, 96, 0.5, generator)
    total, count = 0.0, 0
    with torch.inference_mode():
        for tokens, labels in lesson.held_out:  # each alone, without padding
            scores = model(tokens[None]).logits[0, :-1].log_softmax(dim=1)
            learnt = labels[1:] >= 0
            total -= scores[learnt, labels[1:][learnt]].sum().item()
            count += int(learnt.sum())
    assert per_token == pytest.approx(total / count, abs=1e-3)
    assert per_character == pytest.approx(total / lesson.characters, abs=1e-3)


def test_training_again_with_the_same_seed_gives_the_same_folder(tmp_path):
    text = write_dialogue(tmp_path / "text", 60)
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        assert train(text, tmp_path / name, "--chat", "--epochs", 1, "--seed", seed).exit_code == 0
    for file in FILES:
        one, same, other = ((tmp_path / name / file).read_bytes() for name in ("one", "same", "other"))
        assert one == same
        assert (one != other) == (file == "model.safetensors")


def test_windows_predict_each_token_once():
    tokens = torch.arange(100)
    for first in range(1, 16):
        rows = [row for row, labels in trainer.windows(tokens, 16, first) if torch.equal(row, labels)]
        assert torch.cat([row[1:] for row in rows]).tolist() == list(range(1, 100))
        assert rows[1][0] == first
        assert max(map(len, rows)) == 16
    assert [len(row) for row, _ in trainer.windows(torch.arange(5), 16, 15)] == [5]


def test_batches_hold_each_row_once_with_rows_of_like_lengths():
    rows = [(torch.arange(length) + 1, torch.full((length,), length)) for length in (5, 2, 9, 5, 3, 8, 2)]
    alone = list(trainer.batches(rows, 3, 0, None))
    shuffled = list(trainer.batches(rows, 3, 0, torch.Generator().manual_seed(1)))
    assert [tokens.shape for tokens, _ in alone] == [(3, 3), (3, 8), (1, 9)]
    for pairs in (alone, shuffled):
        lengths = [int(length) for _, labels in pairs for length in labels[:, 0]]
        assert sorted(lengths) == sorted(len(tokens) for tokens, _ in rows)
        for tokens, labels in pairs:
            assert torch.equal(tokens > 0, labels != trainer.UNLABELLED)


@pytest.mark.parametrize(
    ("document", "speaker", "words"),
    [
        ("ROMEO:\nAy me!\nWhy:\nso", "ROMEO", "Ay me!\nWhy:\nso"),
        ("No one speaks:\nit is so", "No one speaks", "it is so"),
        ("two lines\nhere:\nthere", "", "two lines\nhere:\nthere"),
        ("ROMEO:", "", "ROMEO:"),
        ("plain", "", "plain"),
    ],
)
def test_a_first_line_with_a_colon_says_who_speaks(document, speaker, words):
    assert trainer.spoken(document) == (speaker, words)


def test_blank_lines_may_hold_blanks_and_come_in_numbers(tmp_path):
    one, other = (write_dialogue(tmp_path / str(i), 30, gap) for i, gap in enumerate(["\n\n", "\n \n\t\n\n"]))
    assert trainer.read(one, 20) == trainer.read(other, 20)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", [], "has 0 documents with 0 different characters; training needs at least 20"),
        (b"a\n\nb" * 10, [], "has 11 documents with 2 different characters"),
        (b"a\n\n" * 50, [], "has 50 documents with 1 different characters"),
        (b"\xff\xfe\n\n" * 50, [], "is not UTF-8 text"),
        (b"ab\n\n" * 50, ["--width", 96], "--width is 96; it must be a multiple of 64"),
        (b"ab " * 50 + b"\n\n" + b"abcdefghij klmn " * 400 + b"\n\n", [], "has 2 documents"),
        (
            b"".join(bytes(random.Random(i).choices(b"abcdefgh ", k=200)) + b"\n\n" for i in range(50)),
            ["--chat"],
            "no answer begins within 48 tokens; give more --context",
        ),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused(tmp_path, content, options, words):
    (tmp_path / "text").write_bytes(content)
    result = train(tmp_path / "text", tmp_path / "model", *options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("options", [[], ["--chat"]])
def test_the_shortest_text_that_is_taken_is_trained_on(tmp_path, options):
    (tmp_path / "text").write_bytes(b"a\n\nb\n\n" * 10)
    result = train(tmp_path / "text", tmp_path / "model", "--epochs", 1, *options)
    assert 0 < printed_losses(result)[0] < 6


@pytest.fixture(scope="module")
def card():
    """The rows of the bundled model's card."""
    text = (BUNDLED / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.MULTILINE))


def on(row):
    """The first number of a card's row; a space groups its digits."""
    return float(re.search(r"\d[\d ]*(\.\d+)?", row).group().replace(" ", ""))


def test_the_bundled_chat_is_what_its_card_says(card):
    model, tokenizer = load(BUNDLED)
    assert type(model) is LlamaForCausalLM
    config = model.config
    assert model.num_parameters() == on(card["parameters"]) < 1e6
    assert config.vocab_size == len(tokenizer) == on(card["vocabulary"])
    assert config.max_position_embeddings == tokenizer.model_max_length == on(card["context"])
    shape = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads, config.num_key_value_heads
    said = "Llama, {} layers of {}, {} in its MLPs, {} heads over {} of keys and values".format(
        *shape, *heads
    )
    assert said in card["architecture"]
    assert AutoModelForCausalLM.from_pretrained(BUNDLED).dtype == torch.bfloat16
    assert (BUNDLED / "model.safetensors").stat().st_size < 2.1 * model.num_parameters()
    assert tokenizer.chat_template == trainer.TEMPLATE


@pytest.mark.parametrize("speaker", ["ROMEO", "GLOUCESTER", "LEONTES"])
def test_the_bundled_chat_speaks_for_whom_it_is_told_to_and_ends(speaker):
    model, tokenizer = load(BUNDLED)
    messages = [
        {"role": "system", "content": f"You are {speaker}."},
        {"role": "user", "content": "What news, my lord?"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answer = write(model, tokenizer, prompt, 200)
    assert answer.startswith(f"{speaker}:\n")
    assert answer.endswith("<|im_end|>")


@pytest.mark.skipif(DATA not in os.environ, reason=f"{DATA} is not set: no Tiny Shakespeare")
def test_the_bundled_chat_predicts_what_its_card_says(card):
    text = Path(os.environ[DATA]) / "text" / "tinyshakespeare.txt"
    if not text.exists():
        pytest.skip(f"{DATA} has no text/tinyshakespeare.txt")
    model, tokenizer = load(BUNDLED)
    documents = trainer.read(text, 20)
    cut = len(documents) * 9 // 10
    context = model.config.max_position_embeddings
    learnt = trainer.learn_tokenizer(documents[:cut], len(tokenizer), context, chat=True)
    assert learnt.get_vocab() == tokenizer.get_vocab()
    generator = torch.Generator().manual_seed(0)
    trainer.conversations(
        documents[:cut], 0.3, generator
    )  # which are told who speaks is drawn for these first
    held_out = trainer.answers(trainer.conversations(documents[cut:], 0.3, generator), tokenizer, context)
    total, count = trainer.nats(model, held_out, 16)
    assert total / count == pytest.approx(on(card["validation loss"]), abs=1e-3)
