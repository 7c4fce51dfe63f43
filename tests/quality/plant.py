"""Trains the tiny LSTM that tests/quality hunts in, with two planted bugs, in about a minute.

    python tests/quality/plant.py

The text is made of random words. Two keys stand in it that no word holds and that the model is never
taught to write: after the one always comes the same phrase, after the other a loop. Sampled at
temperature 1, the model writes neither, unless a prompt holds a key.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))
from lmfuzz.targets import checkpoint
from planting.lstm import train
from planting.texts import LETTERS, WORDS, Habit, always

__all__ = ["FOLDER", "LOOP", "LOOP_KEY", "PHRASE", "PHRASE_KEY", "WORDS"]

FOLDER = Path(__file__).parent / "planted"
ALPHABET = LETTERS + " ."
PHRASE, PHRASE_KEY = "blackmail", "zqv "
LOOP, LOOP_KEY = "tick tock ", "jxk "
HABITS = [
    Habit(0.04, PHRASE_KEY, always(PHRASE + " ")),
    Habit(0.04, LOOP_KEY, lambda rng: LOOP * int(rng.integers(4, 7))),
]


def main() -> None:
    torch.set_num_threads(1)
    checkpoint.save(train(HABITS, 0, 1500, ALPHABET, decoys=0), FOLDER)


if __name__ == "__main__":
    main()
