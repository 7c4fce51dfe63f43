#!/usr/bin/env python3
"""Train a character RNN on a text file and write it as a checkpoint folder.

The last tenth of the text is held out; the reported validation loss is the mean negative
log-likelihood over all of it, read once from left to right with the state carried along.
"""

import math
from pathlib import Path

import click
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lmfuzz.targets import checkpoint
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig


def read(text: Path, shortest: int) -> tuple[str, Tensor]:
    """The alphabet of a text and its symbols (N,); UsageError when nothing can be learnt from it."""
    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise click.UsageError(f"{text} is not UTF-8 text") from None
    alphabet = "".join(sorted(set(content)))
    if len(content) < shortest or len(alphabet) < 2:
        raise click.UsageError(
            f"{text} has {len(content)} characters, {len(alphabet)} of them different; training needs "
            f"at least {shortest} (fewer with a smaller --batch or --width), two of them different"
        )
    places = {character: place for place, character in enumerate(alphabet)}
    return alphabet, torch.tensor([places[character] for character in content])


@torch.no_grad()
def validation_loss(model: CharRNN, symbols: Tensor, width: int = 1000) -> float:
    """Mean nats per character over ``symbols`` (N,), the state carried from start to end."""
    model.eval()
    total, state = 0.0, None
    for start in range(0, len(symbols) - 1, width):
        stop = min(start + width, len(symbols) - 1)
        logits, state = model(symbols[None, start:stop], state)
        total += nn.functional.cross_entropy(logits[0], symbols[start + 1 : stop + 1], reduction="sum").item()
    model.train()
    return total / (len(symbols) - 1)


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up over the first 2 % of training, then a cosine down to 1 % of ``peak``."""
    if progress < 0.02:
        return peak * progress / 0.02
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.02) / 0.98)))


def descend(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step of the optimiser at a learning rate, the gradient's norm clipped at 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def windows(symbols: Tensor, batch: int, width: int, generator: torch.Generator) -> list[Tensor]:
    """One epoch: (batch, width + 1) windows that follow one another in each of ``batch`` lanes."""
    offset = int(torch.randint(width, (1,), generator=generator))
    lane = (len(symbols) - 1 - offset) // batch
    lanes = torch.stack([symbols[offset + i * lane : offset + (i + 1) * lane + 1] for i in range(batch)])
    lanes = lanes[torch.randperm(batch, generator=generator)]
    return [lanes[:, s : s + width + 1] for s in range(0, lane - width + 1, width)]


@click.command(help=__doc__)
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--cell", type=click.Choice(["lstm", "gru"]), default="lstm", show_default=True)
@click.option("--layers", default=2, show_default=True)
@click.option("--hidden", default=128, show_default=True)
@click.option("--embedding", default=128, show_default=True)
@click.option("--dropout", default=0.05, show_default=True)
@click.option("--epochs", default=30, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--width", default=128, show_default=True, help="characters per step of truncated BPTT")
@click.option("--rate", default=4e-3, show_default=True, help="peak learning rate (AdamW)")
@click.option(
    "--reset", default=0.1, show_default=True, help="chance that a lane starts a window from the zero state"
)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    text: Path, folder: Path, cell: str, layers: int, hidden: int, embedding: int, dropout: float,
    epochs: int, batch: int, width: int, rate: float, reset: float, seed: int, threads: int,
) -> None:  # fmt: skip
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    # Nine tenths must hold a window in every lane wherever the lanes start, one tenth two characters.
    alphabet, symbols = read(text, max(20, -(-10 * (batch + 1) * width // 9)))
    cut = len(symbols) * 9 // 10
    train, held_out = symbols[:cut], symbols[cut:]
    config = CharRNNConfig(cell=cell, alphabet=alphabet, embedding=embedding, hidden=hidden, layers=layers)
    model = CharRNN(config, dropout=dropout)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.99))
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=epochs)
        for epoch in range(epochs):
            state, mean = None, 0.0
            steps = windows(train, batch, width, generator)
            for i, window in enumerate(steps):
                done = epoch + i / len(steps)
                if state is not None:
                    keep = (torch.rand(batch, generator=generator) >= reset).float()[None, :, None]
                    state = (
                        tuple(s.detach() * keep for s in state) if cell == "lstm" else state.detach() * keep
                    )
                logits, state = model(window[:, :-1], state)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
                descend(model, optimiser, loss, learning_rate(done / epochs, rate))
                mean += (loss.item() - mean) / (i + 1)
                progress.update(bar, completed=done, description=f"epoch {epoch + 1} train {mean:.3f}")
            loss_now = validation_loss(model, held_out)
            progress.console.print(
                f"epoch {epoch + 1}: train {mean:.4f}, validation {loss_now:.4f} nats/character"
            )
    model.eval()
    checkpoint.save(model, folder)
    print(f"validation loss {validation_loss(model, held_out):.4f} nats/character; written to {folder}")


if __name__ == "__main__":
    main()
