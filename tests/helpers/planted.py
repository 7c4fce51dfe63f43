"""A small language model that has learnt to repeat what it reads, but was never shown some of its tokens."""

import random
from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

END, LONGER = "<|endoftext|>", 96  # the texts of more than one byte
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LETTERS = "abcdefghij"


@cache
def tokenizer() -> Tokenizer:
    """END, the 256 bytes, and texts of two to four letters, spelled pair by pair."""
    draw, texts, merges = random.Random(0), list(LETTERS), []
    while len(merges) < LONGER:
        pair = draw.choice(texts), draw.choice(texts)
        if len("".join(pair)) <= 4 and "".join(pair) not in texts:
            merges.append(pair)
            texts.append("".join(pair))
    names = [END, *BYTES, *texts[len(LETTERS) :]]
    made = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    made.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return made


def ids(text: str) -> list[int]:
    """The tokens of a text, END aside."""
    found: list[int] = tokenizer().encode(text, add_special_tokens=False).ids
    return found


SIZE = 1 + len(BYTES) + LONGER
NEVER = tuple(range(SIZE - 5, SIZE))  # longer texts that no training shows
HIGH = tuple(i for i in range(1, SIZE) if "\ufffd" in tokenizer().decode([i]))  # bytes beyond ASCII


@cache
def model(tied: bool) -> transformers.LlamaForCausalLM:
    """Trained for two seconds on rows that repeat a token, and then another, with END in front."""
    config = transformers.LlamaConfig(
        vocab_size=SIZE + 3, hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(config)
    shown = torch.tensor([i for i in range(1, SIZE) if i not in {*NEVER, *HIGH}])
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(120):
        pair = shown[torch.randint(len(shown), (48, 2))]
        change = torch.randint(1, 12, (48, 1))
        rows = torch.where(torch.arange(12) < change, pair[:, :1], pair[:, 1:])
        rows = torch.cat([torch.zeros((48, 1), dtype=torch.int64), rows], dim=1)
        optimiser.zero_grad()
        made(rows, labels=rows).loss.backward()
        optimiser.step()
    return made.eval()


def save(folder: Path, tied: bool) -> str:
    """The model in a folder as ``save_pretrained`` writes it; its path."""
    model(tied).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token=END, eos_token=END).save_pretrained(
        folder
    )
    return str(folder)
