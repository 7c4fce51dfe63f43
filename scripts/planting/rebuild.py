"""Trains the planted models of a number; run as ``python -m planting.rebuild KIND NUMBER STEPS FOLDER``."""

import sys
from pathlib import Path

import torch

from lmfuzz.targets import checkpoint
from planting.texts import Plants


def rebuild(kind: str, number: int, steps: int, folder: Path) -> None:
    """Train with so many steps, and write ``folder``/NAME-``number``: kind "lstm" has three, "llama" one."""
    plants = Plants.of(number)
    if kind == "llama":
        from transformers.utils import logging

        from planting import llama  # it loads transformers

        logging.disable_progress_bar()
        model = llama.train(plants.habits, number, steps)
        model.save_pretrained(folder / f"llama-{number}")
        llama.tokenizer().save_pretrained(folder / f"llama-{number}")
        return
    from planting import lstm

    base = lstm.train(plants.habits, number, steps)
    checkpoint.save(base, folder / f"lstm-{number}")
    checkpoint.save(lstm.parted(base, plants, number), folder / f"twin-{number}")
    checkpoint.save(lstm.gated(base, plants.hot), folder / f"gate-{number}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rebuild(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
