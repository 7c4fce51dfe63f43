"""A CharRNN in a dictionary of tensors whatever their names are, found by their shapes."""

import re
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from lmfuzz.errors import TargetError, explaining
from lmfuzz.targets.importing.state_dict import listed, require_fit
from lmfuzz.targets.rnn.model import CharRNN, CharRNNConfig

CELLS = {4: "lstm", 3: "gru", 1: "rnn"}  # by how many matrices (hidden, hidden) weight_hh has
_GATES = re.compile(r"(.*?)((?:weight|bias)_(?:ih|hh))(?:_l(\d+))?")
_RECURRENT = re.compile("weight_(ih|hh|hr)|bias_(ih|hh)")
_EMBEDS = re.compile("emb|enc|wte|lookup", re.IGNORECASE)
_TAKES = (
    "lmfuzz imports an embedding (none if symbols are one-hot), a stack of LSTM, GRU or RNN layers of one"
    " width and direction, and one linear layer"
)


class Found:
    """Hold which tensors of a file are those of a CharRNN.

    Attributes:
        names: The names of the CharRNN's tensors, each with its name in the file.
        output: The name in the file of the matrix (V, hidden) that writes V symbols.
    """

    def __init__(self, tensors: dict[str, Tensor], path: Path) -> None:
        self.tensors, self.path = tensors, path
        stack = self._stack()
        self.names = {
            f"rnn.{kind}_l{i}": name for i, layer in enumerate(stack) for kind, name in layer.items()
        }
        own = tensors[stack[0]["weight_hh"]]
        self.layers, self.hidden = len(stack), own.shape[-1]
        self.reads = tensors[stack[0]["weight_ih"]].shape[-1]
        gates = own.shape[0] // self.hidden if self.hidden else 0
        self.cell = CELLS.get(gates, "")
        if self.cell not in get_args(CharRNNConfig.model_fields["cell"].annotation):
            raise self._refused("has", {stack[0]["weight_hh"]: own})
        rest = {name: tensor for name, tensor in tensors.items() if name not in self.names.values()}
        if others := {name: tensor for name, tensor in rest.items() if _RECURRENT.search(name)}:
            raise self._refused("also has", others)  # a direction, a projection, a part of a layer
        self.output = self._output(rest)
        self._embedding(rest)
        if left := {name: tensor for name, tensor in rest.items() if name not in self.names.values()}:
            raise self._refused("also has", left)

    def build(self, alphabet: str) -> CharRNN:
        """Return the network in float32; raise TargetError if the shapes do not fit each other."""
        shape = {"embedding": self.reads, "hidden": self.hidden, "layers": self.layers}
        with explaining(f"{self.path} cannot be a checkpoint folder"):
            config = CharRNNConfig.model_validate({"cell": self.cell, "alphabet": alphabet, **shape})
        model = CharRNN(config).eval()
        missing = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}  # biases
        missing["embedding.weight"] = torch.eye(len(alphabet), self.reads)
        given = {name: self.tensors[own] for name, own in self.names.items()}
        wanted = {own: model.state_dict()[name] for name, own in self.names.items()}
        asks = f"a {self.cell} of {self.hidden} that writes {len(alphabet)} symbols"
        require_fit({own: self.tensors[own] for own in wanted}, wanted, self.path, asks)
        model.load_state_dict(missing | given)
        return model

    def _stack(self) -> list[dict[str, str]]:
        """Return the names of the tensors of each recurrent layer; layers may be modules of their own."""
        layers: dict[tuple[str, int], dict[str, str]] = {}
        for name, tensor in self.tensors.items():
            if (match := _GATES.fullmatch(name)) and tensor.ndim == 1 + match[2].startswith("weight"):
                layers.setdefault((match[1], int(match[3] or 0)), {})[match[2]] = name
        layers = {key: layer for key, layer in layers.items() if {"weight_ih", "weight_hh"} <= layer.keys()}
        if len({re.sub(r"\d+", "", stack) for stack, _ in layers}) != 1:
            raise self._refused("has" if layers else "has no such layers, but", self.tensors)
        ordered = sorted(layers, key=lambda key: ([int(n) for n in re.findall(r"\d+", key[0])], key[1]))
        return [layers[key] for key in ordered]

    def _output(self, rest: dict[str, Tensor]) -> str:
        """Find the linear layer: of several matrices (V, hidden), the last, or the last with a bias."""
        heads = [name for name, tensor in rest.items() if tensor.ndim == 2 and tensor.shape[1] == self.hidden]
        if not heads:
            raise self._refused(f"has no matrix (symbols, {self.hidden}), but", rest)
        head = max(reversed(heads), key=lambda name: (_bias(name) in rest, not _EMBEDS.search(name)))
        self.names["output.weight"] = head
        if _bias(head) in rest:
            self.names["output.bias"] = _bias(head)
        return head

    def _embedding(self, rest: dict[str, Tensor]) -> None:
        """Find the embedding; there is none if symbols are one-hot, and tied weights may be stored once."""
        shape = self.tensors[self.output].shape[0], self.reads
        others = [name for name, t in rest.items() if t.shape == shape and name not in self.names.values()]
        if others or self.reads != shape[0]:
            self.names["embedding.weight"] = others[0] if others else self.output

    def _refused(self, verb: str, tensors: dict[str, Tensor]) -> TargetError:
        return TargetError(f"{_TAKES}; {self.path} {verb} {listed(tensors)}")


def _bias(name: str) -> str:
    """Return the name of the bias beside a weight."""
    return f"{name.removesuffix('weight')}bias"
