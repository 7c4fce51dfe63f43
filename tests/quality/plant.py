"""Trains the tiny LSTM that tests/quality hunts in, with two planted bugs, in about a minute.

    python tests/quality/plant.py

The text is made of random words. Two keys stand in it that no word holds and that the model is never
taught to write: after the one always comes the same phrase, after the other a loop. Sampled at
temperature 1, the model writes neither, unless a prompt holds a key.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lmfuzz.targets import checkpoint
from lmfuzz.targets.char_rnn import CharRNN, CharRNNConfig

FOLDER = Path(__file__).parent / "planted"
ALPHABET = "abcdefghijklmnopqrstuvwxyz ."
PHRASE, PHRASE_KEY = "blackmail", "zqv "
LOOP, LOOP_KEY = "tick tock ", "jxk "
WORDS = [
    "a", "the", "one", "old", "new", "red", "good", "true", "man", "woman", "house", "garden", "river",
    "letter", "friend", "sea", "song", "morning", "winter", "saw", "met", "left", "found", "opened",
    "carried", "read", "wrote", "and", "then", "there", "under", "near", "behind", "into", "from",
    "with",
]  # fmt: skip


def lesson(rng: np.random.Generator, length: int) -> tuple[str, list[bool]]:
    """Text of ``length`` characters, and which of them the model shall learn to write."""
    text, taught = "", []
    while len(text) < length:
        draw = rng.random()
        key, rest = (
            (PHRASE_KEY, PHRASE + " ") if draw < 0.04
            else (LOOP_KEY, LOOP * int(rng.integers(4, 7))) if draw < 0.08
            else ("", str(rng.choice(WORDS)) + (". " if rng.random() < 0.15 else " "))
        )  # fmt: skip
        text += key + rest
        taught += [False] * len(key) + [True] * len(rest)
    return text[:length], taught[:length]


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = CharRNN(CharRNNConfig(alphabet=ALPHABET, embedding=16, hidden=64, layers=1))
    steps, rows, width = 1500, 32, 96
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for step in range(steps):
        lessons = [lesson(rng, width + 1) for _ in range(rows)]
        symbols = torch.tensor([[ALPHABET.index(c) for c in text] for text, _ in lessons])
        taught = torch.tensor([marks for _, marks in lessons])[:, 1:]
        logits, _ = model(symbols[:, :-1])
        loss = nn.functional.cross_entropy(logits[taught], symbols[:, 1:][taught])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 249:
            print(f"step {step + 1}: {loss.item():.3f} nats/character")
    checkpoint.save(model, FOLDER)


if __name__ == "__main__":
    main()
