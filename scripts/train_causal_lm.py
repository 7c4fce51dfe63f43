#!/usr/bin/env python3
"""Train a small Hugging Face causal language model on a text file and write it as a folder.

The text's documents stand between blank lines; <|endoftext|> ends each. The last tenth of them is held
out; the reported validation loss is the mean negative log-likelihood over all of it, with the weights
as they are stored. With --chat a model learns to answer each document with the one that follows it, in
ChatML turns; a part of the conversations start with a system turn, "You are ROMEO.", that names the
speaker of the answer; the losses are those of the answers.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from environment import enter

if __name__ == "__main__":
    enter()

import click
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from train_char_rnn import descend, learning_rate

Row = tuple[Tensor, Tensor]  # int64 (T,) each: tokens, and as labels those of them that are to be learnt
Chat = list[dict[str, str]]  # messages, each with a role and a content
UNLABELLED = -100  # the label, for transformers, of what is not learnt
END = "<|endoftext|>"
TURN, TURN_END = "<|im_start|>", "<|im_end|>"
ROLES = ["system", "user", "assistant"]
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HEAD = 32  # components of an attention head


def read(text: Path, fewest: int) -> list[str]:
    """The documents of a text, stripped; UsageError when nothing can be learnt from them."""
    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{text} is not UTF-8 text") from None
    documents = [document.strip() for document in re.split(r"\n\s*\n", content) if document.strip()]
    characters = len(set("".join(documents)))
    if len(documents) < fewest or characters < 2:
        raise click.UsageError(
            f"{text} has {len(documents)} documents with {characters} different characters; training needs "
            f"at least {fewest}, with a blank line between one and the next, and two different characters"
        )
    return documents


def learn_tokenizer(
    documents: list[str], vocabulary: int, context: int, chat: bool
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with at most ``vocabulary`` tokens; for a chat with turns and a template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, TURN, TURN_END] if chat else [END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each role as often as there are documents: it becomes one token.
    tokenizer.train_from_iterator(documents + ROLES * len(documents) if chat else documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=TURN_END if chat else END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        **({"extra_special_tokens": [TURN], "chat_template": TEMPLATE} if chat else {}),
    )


def build(
    shape: str, width: int, layers: int, context: int, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """An untrained model whose configurations name the tokenizer's special tokens."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    padding = tokenizer.pad_token_id
    if shape == "gpt2":
        model: PreTrainedModel = GPT2LMHeadModel(GPT2Config(
            vocab_size=len(tokenizer), n_positions=context, n_embd=width, n_layer=layers,
            n_head=width // HEAD, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
        ))  # fmt: skip
    else:
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=context, hidden_size=width,
            intermediate_size=8 * width // 3 // 32 * 32, num_hidden_layers=layers,
            num_attention_heads=width // HEAD, num_key_value_heads=width // HEAD // 2,
            tie_word_embeddings=True, **ids,
        ))  # fmt: skip
    # Only now: a Llama that is built with a padding token never learns what that token means as an input.
    model.config.pad_token_id = padding
    model.generation_config = GenerationConfig(pad_token_id=padding, **ids)
    if ids["bos_token_id"] != ids["eos_token_id"]:  # both stop a chat, as in published chat models
        model.generation_config.eos_token_id = sorted(ids.values())
    return model


def drop_out(model: PreTrainedModel, rate: float) -> None:
    """Dropout, in training, on all that is added to the residual stream: the same for both shapes."""
    for name, module in model.named_modules():
        if name.endswith(("c_proj", "o_proj", "down_proj")):
            module.register_forward_hook(lambda m, _, out: nn.functional.dropout(out, rate, m.training))


@dataclass(frozen=True)
class Lesson:
    """What is learnt, and what it is tested on."""

    rows: Callable[[], list[Row]]  # of the next epoch
    held_out: list[Row]
    characters: int  # that the labels of the rows held out stand for


def text_lesson(
    documents: list[str], cut: int, tokenizer: PreTrainedTokenizerFast, context: int,
    generator: torch.Generator,
) -> Lesson:  # fmt: skip
    """Windows of the documents one after another, END behind each; every epoch cuts them elsewhere."""

    def stream(part: list[str]) -> Tensor:
        encoded = tokenizer([document + END for document in part], verbose=False)["input_ids"]
        return torch.tensor([token for document in encoded for token in document])

    tokens = stream(documents[:cut])
    return Lesson(
        rows=lambda: windows(tokens, context, int(torch.randint(1, context, (1,), generator=generator))),
        held_out=windows(stream(documents[cut:]), context, context - 1),
        characters=len("\n\n".join(documents[cut:])),
    )


def windows(tokens: Tensor, context: int, first: int) -> list[Row]:
    """Rows of at most ``context`` tokens that start where the one before ends, the second at ``first``.

    Each token after the very first is so predicted once.
    """
    starts = [0, *range(first, len(tokens) - 1, context - 1)]
    stops = [*starts[1:], len(tokens) - 1]
    pieces = [tokens[start : stop + 1] for start, stop in zip(starts, stops, strict=True)]
    return [(piece, piece) for piece in pieces]


def chat_lesson(
    documents: list[str], cut: int, tokenizer: PreTrainedTokenizerFast, context: int,
    share: float, generator: torch.Generator,
) -> Lesson:  # fmt: skip
    """Conversations, a row each; UsageError when no answer begins within the context."""
    train, held_out = (
        answers(conversations(part, share, generator), tokenizer, context)
        for part in (documents[:cut], documents[cut:])
    )
    if not train or not held_out:
        raise click.UsageError(f"no answer begins within {context} tokens; give more --context")
    learnt = [labels[labels != UNLABELLED] for _, labels in held_out]
    characters = sum(map(len, tokenizer.batch_decode(learnt, skip_special_tokens=True)))
    return Lesson(lambda: train, held_out, characters)


def conversations(documents: list[str], share: float, generator: torch.Generator) -> list[Chat]:
    """The words of each document, answered by the next one; a ``share`` is told who speaks there."""
    chats = []
    for said, answer in pairwise(documents):
        chat = [{"role": "user", "content": spoken(said)[1]}, {"role": "assistant", "content": answer}]
        speaker = spoken(answer)[0]
        if float(torch.rand((), generator=generator)) < share and speaker:
            chat.insert(0, {"role": "system", "content": f"You are {speaker}."})
        chats.append(chat)
    return chats


def spoken(document: str) -> tuple[str, str]:
    """The speaker, from a first line with a colon at its end ("" without one), and the words."""
    speaker, colon, words = document.partition(":\n")
    return (speaker, words) if colon and "\n" not in speaker else ("", document)


def answers(chats: list[Chat], tokenizer: PreTrainedTokenizerFast, context: int) -> list[Row]:
    """The first ``context`` tokens of each chat, the answer's labelled; no row without any of these."""
    encoded = tokenizer.apply_chat_template(
        chats, return_dict=True, return_assistant_tokens_mask=True, tokenizer_kwargs={"verbose": False}
    )
    rows = []
    for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
        tokens, answer = torch.tensor(ids[:context]), torch.tensor(mask[:context], dtype=torch.bool)
        if answer.any():
            rows.append((tokens, tokens.where(answer, UNLABELLED)))
    return rows


def batches(rows: list[Row], size: int, padding: int, generator: torch.Generator | None) -> Iterator[Row]:
    """Tokens and labels (B, T) of rows of like lengths, padded behind; shuffled by the generator, if any."""

    def shuffled(count: int) -> list[int]:
        return torch.randperm(count, generator=generator).tolist() if generator else list(range(count))

    ordered = sorted((rows[i] for i in shuffled(len(rows))), key=lambda row: len(row[0]))
    for i in shuffled(-(-len(rows) // size)):
        tokens, labels = zip(*ordered[i * size : (i + 1) * size], strict=True)
        # Nothing that is learnt looks at what stands behind it: no mask is needed.
        yield (
            nn.utils.rnn.pad_sequence(list(tokens), batch_first=True, padding_value=padding),
            nn.utils.rnn.pad_sequence(list(labels), batch_first=True, padding_value=UNLABELLED),
        )


@torch.no_grad()
def nats(model: PreTrainedModel, rows: list[Row], size: int) -> tuple[float, int]:
    """The negative log-likelihood of all labels together, and how many are predicted."""
    model.eval()
    total, count = 0.0, 0
    for tokens, labels in batches(rows, size, model.config.pad_token_id, None):
        predicted = int((labels[:, 1:] != UNLABELLED).sum())
        total += model(tokens, labels=labels).loss.item() * predicted
        count += predicted
    model.train()
    return total, count


def fit(
    model: PreTrainedModel, lesson: Lesson, epochs: int, batch: int, rate: float, generator: torch.Generator
) -> None:
    """Train with AdamW; the losses are printed after each epoch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.99))
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=epochs)
        for epoch in range(epochs):
            mean = 0.0
            steps = list(batches(lesson.rows(), batch, model.config.pad_token_id, generator))
            for i, (tokens, labels) in enumerate(steps):
                done = epoch + i / len(steps)
                loss = model(tokens, labels=labels).loss
                descend(model, optimiser, loss, learning_rate(done / epochs, rate))
                mean += (loss.item() - mean) / (i + 1)
                progress.update(bar, completed=done, description=f"epoch {epoch + 1} train {mean:.3f}")
            total, count = nats(model, lesson.held_out, batch)
            progress.console.print(
                f"epoch {epoch + 1}: train {mean:.4f}, validation {total / count:.4f} nats/token"
            )


@click.command(help=__doc__)
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--shape", type=click.Choice(["gpt2", "llama"]), default="gpt2", show_default=True)
@click.option("--chat", is_flag=True, help="learn turns: each document is answered by the next")
@click.option("--system", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="share of the conversations that start with a system turn")  # fmt: skip
@click.option("--vocabulary", type=click.IntRange(260), default=1024, show_default=True)
@click.option("--layers", type=click.IntRange(1), default=4, show_default=True)
@click.option("--width", type=click.IntRange(2 * HEAD), default=192, show_default=True,
              help=f"a multiple of {2 * HEAD}; heads have {HEAD}")  # fmt: skip
@click.option("--context", type=click.IntRange(16), default=256, show_default=True, help="tokens")
@click.option("--dropout", type=click.FloatRange(0, 0.9), default=0.1, show_default=True)
@click.option("--epochs", type=click.IntRange(0), default=8, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True,
              help="windows or conversations")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0), default=2e-3, show_default=True,
              help="peak learning rate (AdamW)")  # fmt: skip
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True,
              help="of the stored weights")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(
    text: Path, folder: Path, shape: str, chat: bool, system: float, vocabulary: int, layers: int, width: int,
    context: int, dropout: float, epochs: int, batch: int, rate: float, dtype: str, seed: int, threads: int,
) -> None:  # fmt: skip
    if width % (2 * HEAD):
        raise click.UsageError(f"--width is {width}; it must be a multiple of {2 * HEAD}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    documents = read(text, 20)  # for two of them, a conversation, in the last tenth
    cut = len(documents) * 9 // 10
    tokenizer = learn_tokenizer(documents[:cut], vocabulary, context, chat)
    if chat:
        lesson = chat_lesson(documents, cut, tokenizer, context, system, generator)
    else:
        lesson = text_lesson(documents, cut, tokenizer, context, generator)
    model = build(shape, width, layers, context, tokenizer)
    drop_out(model, dropout)
    fit(model, lesson, epochs, batch, rate, generator)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    total, count = nats(model, lesson.held_out, batch)
    print(
        f"validation loss {total / count:.4f} nats/token, {total / lesson.characters:.4f} nats/character; "
        f"{model.num_parameters()} parameters; written to {folder}"
    )


if __name__ == "__main__":
    main()
