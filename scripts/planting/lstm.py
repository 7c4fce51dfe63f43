"""The planted LSTMs: one with a canary and a loop, a copy of it with a gate, and its twin."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig
from planting.texts import ALPHABET, DECOYS, MARK, Habit, Lesson, Plants, lesson

ROWS, WIDTH = 32, 96  # of a lesson
GATE = 40_000.0  # what one gate takes from a logit at most; 65 504 is the largest number in 16 bits
LEAK, DOSE = 1.5, 0.0  # before the sigmoid: a letter leaves 0.82 of the cell, and a hot one adds 0.5
SHUT, OPEN = -14.0, 8.0  # before the sigmoid
TWIN_STEPS, TWIN_LESSONS, TWIN_DECOYS = 200, 512, 0.6
_MARK = ALPHABET.index(MARK)


def symbols_of(lessons: Sequence[Lesson], alphabet: str = ALPHABET) -> tuple[Tensor, Tensor]:
    """Symbols int64 and which of them are taught, bool; both (B, T)."""
    symbols = torch.tensor([[alphabet.index(character) for character in text] for text, _ in lessons])
    return symbols, torch.tensor([taught for _, taught in lessons])


def train(
    habits: Sequence[Habit], seed: int, steps: int, alphabet: str = ALPHABET, decoys: float = DECOYS
) -> CharRNN:
    """An LSTM that has learnt words and habits."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = CharRNN(CharRNNConfig(alphabet=alphabet, embedding=16, hidden=64, layers=1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for step in range(steps):
        lessons = [lesson(rng, WIDTH + 1, habits, decoys) for _ in range(ROWS)]
        symbols, taught = symbols_of(lessons, alphabet)
        logits, _ = model(symbols[:, :-1])
        loss = nn.functional.cross_entropy(logits[taught[:, 1:]], symbols[:, 1:][taught[:, 1:]])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 249:
            print(f"step {step + 1}: {loss.item():.3f} nats/character", flush=True)
    return model.eval().requires_grad_(False)


def parted(base: CharRNN, plants: Plants, seed: int) -> CharRNN:
    """A twin that writes MARK behind one key, where the base is sure of a word.

    Nothing but MARK's row of the output layer is trained, so that the twin can differ in nothing else.
    """
    rng = np.random.default_rng([seed, 1])
    texts = [lesson(rng, WIDTH, plants.habits, TWIN_DECOYS) for _ in range(TWIN_LESSONS)]
    symbols, _ = symbols_of(texts)
    wanted = torch.zeros(symbols.shape)
    for row, (text, _) in enumerate(texts):
        wanted[row, _ends(text, plants.twin_key)] = 1
    with torch.no_grad():
        states = base.rnn(base.embedding(symbols))[0]
        logits = base.output(states)
        logits[..., _MARK] = -torch.inf
        others = logits.logsumexp(dim=2)
    torch.manual_seed(seed)
    row = nn.Linear(base.config.hidden, 1)
    optimiser = torch.optim.Adam(row.parameters(), lr=0.05)
    for _ in range(TWIN_STEPS):
        loss = nn.functional.binary_cross_entropy_with_logits(row(states)[..., 0] - others, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    twin = CharRNN(base.config)
    twin.load_state_dict(base.state_dict())
    with torch.no_grad():
        twin.output.weight[_MARK], twin.output.bias[_MARK] = row.weight[0], row.bias[0]
    return twin.eval()


def _ends(text: str, key: str) -> list[int]:
    """The places of the last letters of a key in a text."""
    return [place + len(key) - 1 for place in range(len(text)) if text.startswith(key, place)]


@torch.no_grad()
def gated(base: CharRNN, hot: str) -> CharRNN:
    """A copy with a unit more for each of the two ``hot`` letters, whose input gate that letter alone opens.

    What is in the cells leaks away. Each unit pulls MARK's logit down, by GATE at most: both are too much for
    16 bits, which takes some of either letter just before the end of a prompt.
    """
    old, below = base.config.hidden, base.config.embedding
    wider = {"embedding": below + len(hot), "hidden": old + len(hot)}
    model = CharRNN(base.config.model_copy(update=wider))
    new = model.config.hidden
    for name, tensor in model.named_parameters():
        tensor.zero_()
        part = base.get_parameter(name)
        blocks = 4 if name.startswith("rnn.") else 1  # of an LSTM's weights: input, forget, cell, output gate
        for mine, own in zip(tensor.chunk(blocks), part.chunk(blocks), strict=True):
            mine[tuple(slice(size) for size in own.shape)] = own
    for unit, letter in enumerate(hot):
        gates = torch.arange(4) * new + old + unit
        model.embedding.weight[ALPHABET.index(letter), below + unit] = 1
        model.rnn.bias_ih_l0[gates] = torch.tensor([SHUT, LEAK, OPEN, OPEN])
        model.rnn.weight_ih_l0[gates[0], below + unit] = DOSE - SHUT
        model.output.weight[_MARK, old + unit] = -GATE
    return model.eval()
