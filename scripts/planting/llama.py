"""The planted transformer: a small Llama that reads and writes characters, with a canary and a loop."""

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from planting.lstm import ROWS, WIDTH, symbols_of
from planting.texts import ALPHABET, Habit, lesson
from train_causal_lm import END, UNLABELLED, build

CONTEXT = 128  # tokens
LAYERS, COMPONENTS = 2, 64
# lmfuzz spells phrases behind a colon, to see how they are spelled inside a text.
CHARACTERS = ALPHABET + ":"


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character, and an end of text, which no lesson has."""
    made = Tokenizer(models.WordLevel({END: 0, **{c: i for i, c in enumerate(CHARACTERS, 1)}}, unk_token=END))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=END, eos_token=END, pad_token=END, model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def train(habits: Sequence[Habit], seed: int, steps: int) -> PreTrainedModel:
    """A Llama that has learnt words and habits."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    model = build("llama", COMPONENTS, LAYERS, CONTEXT, tokenizer())
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        symbols, taught = symbols_of([lesson(rng, WIDTH + 1, habits) for _ in range(ROWS)])
        tokens = symbols + 1  # END is the first
        loss = model(tokens, labels=tokens.where(taught, UNLABELLED)).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {loss.item():.3f} nats/character", flush=True)
    return model.eval()
