"""Seeds that the model itself writes."""

import math

import numpy as np

from lmfuzz.errors import UsageError, explaining
from lmfuzz.inputs.seeds import MODEL, complaint
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Predicts, Sampler, Target
from lmfuzz.types import Batch

_APART = 0.5  # nats per character
_AT_ONCE = 64  # prompts
_LONGEST = 64  # symbols, unless prompts must be longer
_PATIENCE = 8  # samples of which none is a new prompt, after which to give up


def write_seeds(name: str, target: Target, space: TextSpace, rng: np.random.Generator) -> list[str]:
    """Return distinct prompts that the model writes, each sampled at temperature 1 after a random symbol.

    Args:
        name: ``model:N`` for N prompts; there are fewer if the model writes the same ones again and again.
        target: the model.
        space: what the prompts must fit; they have at most 64 symbols, unless it asks for more.
        rng: the only source of randomness.

    Raises:
        UsageError: N is not a number, or the model cannot write prompts.
    """
    number = name.removeprefix(MODEL)
    if not (number.isascii() and number.isdecimal() and int(number)):
        raise UsageError(f"{name} does not say how many seeds the model is to write; give, say, {MODEL}64")
    if not isinstance(target, Sampler):
        raise UsageError(f"{name}: this model cannot be sampled, so it cannot write seeds; give prompts")
    longest = min(space.max_length, max(space.min_length, _LONGEST))
    texts, fruitless = dict[str, None](), 0
    while len(texts) < int(number) and fruitless < _PATIENCE:
        before, starts = len(texts), space.draw(rng, (_AT_ONCE, 1))
        lengths = rng.integers(space.min_length, longest, size=_AT_ONCE, endpoint=True)
        with explaining("the model cannot write seeds", UsageError):
            written = target.sample(space.batch(starts), max(longest - 1, 1), 1.0, rng)
        drawn = space.decode_rows(np.concatenate([starts, written], axis=1), lengths)
        texts |= dict.fromkeys(text for text in drawn if not complaint(text, space))
        fruitless = fruitless + 1 if len(texts) == before else 0
    if not texts:
        raise UsageError("the model writes no text that can be a prompt; give prompts with --seeds")
    return list(texts)[: int(number)]


def surprised(target: Target, space: TextSpace, bundled: Batch, rng: np.random.Generator) -> str:
    """Return how much worse a model of characters predicts the bundled prompts than its own texts, or ''.

    It says so if the loss on them is nearer to that of guessing than to that on its own texts.
    """
    if not (isinstance(target, Predicts) and isinstance(target, Sampler)):
        return ""
    own = Batch.of([space.encode(text) for text in write_seeds(f"{MODEL}{_AT_ONCE}", target, space, rng)])
    theirs, ours = (
        float(np.nansum(target.loss(rows) * (rows.lengths - 1)) / (rows.lengths - 1).sum())
        for rows in (bundled, own)
    )
    if theirs - ours < _APART or theirs < (ours + math.log(len(space.symbols))) / 2:
        return ""
    return (
        f"it expects the bundled ones less ({theirs:.1f} nats per character) than its own texts ({ours:.1f})"
    )
