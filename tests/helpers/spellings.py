"""Small tokenizers, made without training: every character, and some longer texts, spelled pair by pair."""

import random
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models

from lmfuzz.inputs.tokenizer import Tokens


def letters(alphabet: Sequence[str], more: int, seed: int = 0) -> Tokens:
    """Tokens that are the characters of ``alphabet``, and ``more`` texts of up to six of these."""
    draw = random.Random(seed)
    texts, merges = list(alphabet), []
    while len(texts) < len(alphabet) + more:
        pair = draw.choice(texts), draw.choice(texts)
        if len("".join(pair)) <= 6 and "".join(pair) not in texts:
            merges.append(pair)
            texts.append("".join(pair))
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, merges))
    made.decoder = decoders.Fuse()
    return Tokens(made.to_str())
