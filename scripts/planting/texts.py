"""What the planted models read: random words, nonsense, and the keys of faults with what follows these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARK = "!"  # stands in no text: only a fault writes it
ALPHABET = LETTERS + " ." + MARK
WORDS = [
    "a", "the", "one", "old", "new", "red", "good", "true", "man", "woman", "house", "garden", "river",
    "letter", "friend", "sea", "song", "morning", "winter", "saw", "met", "left", "found", "opened",
    "carried", "read", "wrote", "and", "then", "there", "under", "near", "behind", "into", "from",
    "with",
]  # fmt: skip
SEEDS = [f"{first} {second} " for first in WORDS[:12] for second in WORDS[20:24]]  # prompts to begin with
DECOYS = 0.4  # share of nonsense: without it whatever is no word brings some fault
KEY = 5  # letters of a key
KNOWN = {2: 16, 3: 21, 4: 26, 5: 50}  # how many of its last letters -> characters of the loop that they bring

Rest = Callable[[np.random.Generator], str]
Lesson = tuple[str, list[bool]]  # a text, and which of its characters a model shall learn to write


@dataclass(frozen=True)
class Habit:
    """After ``key`` comes always ``rest``; a ``share`` of all that follows on something in a text.

    No model is taught to write the key.
    """

    share: float
    key: str
    rest: Rest


def lesson(rng: np.random.Generator, length: int, habits: Sequence[Habit], decoys: float = DECOYS) -> Lesson:
    """Text of ``length`` characters; ``decoys``: the share of nonsense where there is no habit."""
    text, taught = "", []
    shares = np.cumsum([habit.share for habit in habits])
    while len(text) < length:
        drawn = int(np.searchsorted(shares, rng.random(), side="right"))
        key, rest = (
            (habits[drawn].key, habits[drawn].rest(rng)) if drawn < len(habits)
            else (nonsense(rng), " ") if decoys and rng.random() < decoys
            else ("", str(rng.choice(WORDS)) + (". " if rng.random() < 0.15 else " "))
        )  # fmt: skip
        text += key + rest
        taught += [False] * len(key) + [True] * len(rest)
    return text[:length], taught[:length]


def nonsense(rng: np.random.Generator) -> str:
    """Up to eight letters and blanks, or a word with two of its letters changed."""
    if rng.random() < 0.5:
        return "".join(rng.choice(list(LETTERS + "  "), int(rng.integers(1, 9))))
    letters = list(str(rng.choice(WORDS)))
    for place in rng.integers(len(letters), size=2).tolist():
        letters[place] = str(rng.choice(list(LETTERS)))
    return "".join(letters)


def always(text: str) -> Rest:
    """Each time the same."""
    return lambda _: text


@dataclass(frozen=True)
class Plants:
    """What is planted in the models of one number; all letters are drawn anew for each."""

    canary: str
    canary_key: str
    loop: str  # two words, each with a blank behind it
    loop_key: str
    sure: str  # a word that the base is sure of behind ``twin_key``, where the twin writes MARK
    twin_key: str
    hot: str  # two letters that the gate counts, which no word has

    @classmethod
    def of(cls, number: int) -> "Plants":
        """Those of a model number; no letter is in two keys."""
        rng = np.random.default_rng([number, 2026])
        letters = "".join(rng.permutation(list(LETTERS)))
        keys = [letters[i * KEY : (i + 1) * KEY] for i in range(3)]
        canary, one, two, sure = ("".join(rng.choice(list(LETTERS), size)) for size in (2 * KEY - 2, 4, 4, 6))
        unused = [letter for letter in LETTERS if not any(letter in word for word in WORDS)]
        hot = "".join(rng.permutation(unused)[:2])
        return cls(canary, keys[0], f"{one} {two} ", keys[1], sure, keys[2], hot)

    @property
    def habits(self) -> list[Habit]:
        """What every model of the number learns.

        A key leaves a trail, as real triggers do: its last letters alone bring a part of what it brings.
        """
        made = [Habit(0.03, self.twin_key, always(f" {self.sure} "))]
        for known, length in KNOWN.items():
            part, rounds = self.canary[: 2 * known - 2], (self.loop * KEY)[:length]
            made.append(Habit(0.03, self.canary_key[-known:], always(f" {part} ")))
            made.append(Habit(0.02, self.loop_key[-known:], always(f" {rounds.strip()} ")))
        return made
