"""A toy target without a network: planted misbehaviour that a search can find, in microseconds."""

import numpy as np

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.types import Batch, FloatArray, IntArray, Trace

ALPHABET = " abcdefghijklmnopqrstuvwxyz,.\n"
PHRASE, PHRASE_KEY = "sesame", "xyzzy"  # a prompt that holds the key makes the toy write the phrase
LOOP, LOOP_KEY = "tick tock ", "vkjq"  # every character of this key that is there makes the loop longer
_MIXER, _STEP = np.uint64(6364136223846793005), np.uint64(1442695040888963407)
_DIMENSIONS = 8


class Toy:
    """Read a prompt into a state of 8 numbers, and write what the prompt's hash says.

    Two bugs are planted. If ``phrase_key`` stands in the prompt, the output begins with PHRASE; the
    more of its characters stand in place somewhere, the smaller the gap. For each character of
    ``loop_key`` in place, the output begins with more of a loop, which is long enough to be a
    repetition when all are.

    Channels: text (B,), tokens int32 (B, T), hidden_last float32 (B, 8), and the family phrase_gap/, -2
    nats per missing character for the planted phrase and -99 for any other.
    """

    channels = frozenset({"text", "tokens", "hidden_last", "phrase_gap/"})
    info = TargetInfo()

    def __init__(self, steps: int = 40, phrase_key: str = PHRASE_KEY, loop_key: str = LOOP_KEY) -> None:
        self.space = TextSpace(tuple(ALPHABET), 1, 32)
        self.identity = f"toy-{steps}-{phrase_key}-{loop_key}"
        self._steps = steps
        self._phrase, self._phrase_key = self.space.encode(f" {PHRASE} "), self.space.encode(phrase_key)
        self._loop, self._loop_key = self.space.encode(LOOP * 3), self.space.encode(loop_key)
        rng = np.random.Generator(np.random.PCG64(0))
        self._directions = rng.standard_normal((len(ALPHABET), _DIMENSIONS)).astype(np.float32)
        self._letters = np.array(list(ALPHABET))

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every prompt."""
        hidden, mixed = self._read(batch)
        phrase, loop = (_in_place(batch, key) for key in (self._phrase_key, self._loop_key))
        looped = np.arange(self._steps) < (loop * len(self._loop) // len(self._loop_key))[:, None]
        tokens = np.where(looped, np.resize(self._loop, self._steps), self._write(mixed))
        tokens[phrase == len(self._phrase_key), : len(self._phrase)] = self._phrase[: self._steps]
        texts = self._letters[tokens].view(f"<U{self._steps}")[:, 0].astype(object)
        trace = {"text": texts, "tokens": tokens.astype(np.int32), "hidden_last": hidden}
        gap = 2.0 * (phrase - len(self._phrase_key)).astype(np.float32)
        for name in wants:
            if name.startswith("phrase_gap/"):
                planted = name.rpartition("/")[2].lower() == PHRASE
                trace[name] = gap if planted else np.full(len(batch), -99, np.float32)
        return {name: trace[name] for name in wants}

    def _read(self, batch: Batch) -> tuple[FloatArray, IntArray]:
        """Return the state (B, 8) after each prompt, and a hash uint64 (B,) of it."""
        hidden = np.zeros((len(batch), _DIMENSIONS), np.float32)
        mixed = np.zeros(len(batch), np.uint64)
        for place in range(int(batch.lengths.max())):
            inside = place < batch.lengths
            symbols = np.where(inside, batch.data[:, place], 0)
            rolled = np.roll(hidden, 1, axis=1) * np.float32(0.8) + self._directions[symbols]
            hidden = np.where(inside[:, None], rolled, hidden)
            mixed = np.where(inside, (mixed + symbols.astype(np.uint64)) * _MIXER + _STEP, mixed)
        return hidden, mixed

    def _write(self, mixed: IntArray) -> IntArray:
        """Return symbols (B, T) from a linear congruential generator per prompt, started at ``mixed``."""
        tokens = np.empty((len(mixed), self._steps), np.int64)
        for step in range(self._steps):
            mixed = mixed * _MIXER + _STEP
            tokens[:, step] = (mixed >> np.uint64(40)) % np.uint64(len(ALPHABET))
        return tokens


def _in_place(batch: Batch, key: IntArray) -> IntArray:
    """Return how many characters of ``key`` stand in place (B,), at the place where most of them do."""
    inside = np.arange(batch.data.shape[1]) < batch.lengths[:, None]
    missing = max(0, len(key) - batch.data.shape[1])
    data = np.pad(np.where(inside, batch.data, -1), ((0, 0), (0, missing)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(data, len(key), axis=1)
    return (windows == key).sum(axis=2).max(axis=1)


def toy() -> Toy:
    """Return the toy as it stands, for ``lmfuzz fuzz lmfuzz.targets.toy:toy``."""
    return Toy()


SEEDS = ("the quick brown fox", "once upon a time", "a door in the wall", "say the word, friend.")
