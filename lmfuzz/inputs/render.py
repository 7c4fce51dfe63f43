"""PNG files of findings that are images: the seed, the input, and their difference."""

from pathlib import Path

import numpy as np

from lmfuzz.errors import extra
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.types import Array, FloatArray

with extra("image"):
    from PIL import Image

_SMALL = 160  # pixels of the height of the three side by side, at least
_GAP = 2  # pixels of the model between them


def save(folder: Path, number: int, row: FloatArray, seed: FloatArray, space: BoxSpace) -> Path:
    """Write N-seed.png, N-input.png and N-difference.png in the model's size, and N.png with all three.

    The difference is grey if a pixel did not change, lighter if its value rose, and darker if it fell.
    """
    folder.mkdir(exist_ok=True)
    for name, pixels in _parts(row, seed, space).items():
        _image(pixels).save(folder / f"{number}-{name}.png")
    path = folder / f"{number}.png"
    beside(row, seed, space).save(path)
    return path


def save_minimal(folder: Path, number: int, row: FloatArray, seed: FloatArray, space: BoxSpace) -> None:
    """Write N-minimal.png: the seed, the minimal input and the difference side by side."""
    folder.mkdir(exist_ok=True)
    beside(row, seed, space).save(folder / f"{number}-minimal.png")


def beside(row: FloatArray, seed: FloatArray, space: BoxSpace) -> Image.Image:
    """Return the seed, the input and the difference side by side, enlarged if they are small."""
    blank = np.full((space.shape[0], _GAP, space.shape[2]), 255, np.uint8)
    first, second, third = _parts(row, seed, space).values()
    picture = _image(np.concatenate([first, blank, second, blank, third], axis=1))
    scale = max(1, -(-_SMALL // space.shape[0]))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _parts(row: FloatArray, seed: FloatArray, space: BoxSpace) -> dict[str, Array]:
    width = space.high - space.low
    parts = {
        "seed": (seed - space.low) / width,
        "input": (row - space.low) / width,
        "difference": 0.5 + (row - seed) / (2 * width),
    }
    return {name: np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8) for name, values in parts.items()}


def _image(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
