"""The bundled character model beside a twin whose weights are rounded to 5 bits, as a pair of targets."""

from pathlib import Path

import torch

import lmfuzz
from lmfuzz.targets import checkpoint
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.pair import TextPair


def rounded_pair(steps):
    torch.set_num_threads(1)
    folder = Path(lmfuzz.__file__).parent / "models" / "shakespeare"
    base, twin = checkpoint.load(folder), checkpoint.load(folder)
    with torch.no_grad():
        for weight in twin.parameters():
            step = weight.abs().max() / 15
            weight.copy_((weight / step).round() * step)
    return TextPair(*(RNNTarget(model, Decoding(max_new=steps)) for model in (base, twin)))
