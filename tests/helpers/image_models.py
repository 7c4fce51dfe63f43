"""Classifiers of images, in a file of a user."""

MODELS = """
import torch
from torch import nn

from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.targets.function import on


class Few(nn.Module):
    def __init__(self, classes=3, shape=(8, 8, 1)):
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        self.output = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        with torch.no_grad():
            self.output.weight.mul_(8)

    def forward(self, x):
        return self.output(x.flatten(1))


class Rounded(Few):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            scale = self.output.weight.abs().max() / 7
            self.output.weight.copy_(torch.round(self.output.weight / scale) * scale)


class Hot(Few):
    def forward(self, x):
        return torch.exp(20 * super().forward(x))


def few(): return Few().eval()
def four(): return Few(classes=4).eval()
def wide(): return Few(shape=(8, 9, 1)).eval()
def coloured(): return Few(shape=(8, 8, 3)).eval()
def rounded(): return Rounded().eval()
def hot(): return Hot().eval()
def training(): return Few()
def dropping():
    model = nn.Sequential(nn.Flatten(), Always(), Few().output)
    model.shape = (8, 8, 1)
    return model.eval()


class Always(nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5, training=True)


def bare(x):
    return x


@on(BoxSpace((2,), -1.0, 1.0))
def saddle(x):
    return {"value": x[:, 0] * x[:, 1]}
"""
