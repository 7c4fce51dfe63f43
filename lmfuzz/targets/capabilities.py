"""What some targets can do that takes torch to say: be compressed, or follow what another has written."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Target
from lmfuzz.targets.sampling import TokenSampler
from lmfuzz.types import Batch, Trace


@runtime_checkable
class Compressible(Protocol):
    """A target made of a module, of which a recipe makes another."""

    @property
    def module(self) -> nn.Module:
        """The module."""

    def like(self, module: nn.Module, name: str) -> Target:
        """Return the same target around another module, called ``name``."""


@dataclass(frozen=True)
class Written:
    """What decoding B prompts for T steps led to.

    tokens: what was written, int64 (T, B), PAD where nothing was. logits: what that was chosen by, without
    noise, float32 (T, B, V), where "logits" was wanted. prompt: what ``follow`` needs so as not to read the
    prompts again.
    """

    tokens: Tensor
    logits: Tensor
    prompt: Any


@runtime_checkable
class Followable(Target, Protocol):
    """A target that shows how it writes, and follows what another with the same ``language`` has written.

    language: what its tokens mean and what ends a text; equal for two that can follow each other.
    vocabulary: the text of each token that it writes, (V,).
    """

    space: TextSpace
    sampler: TokenSampler
    language: object
    vocabulary: tuple[str, ...]

    def decode(self, batch: Batch, wants: frozenset[str]) -> Written:
        """Read the prompts and write, keeping what ``wants`` will need; "logits" is one of them."""

    def show(self, batch: Batch, decoded: Any, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` was asked for with these wants."""

    def follow(self, batch: Batch, tokens: Tensor, prompt: Any = None) -> Tensor:
        """Return logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens``.

        Teacher forcing: what ``decode`` gives where it writes the same ``tokens`` (T, B); nothing is said of
        steps after the end of a row. prompt: what an earlier ``decode`` of the same batch left there, so that
        it is not read again.
        """

    def going(self, tokens: Tensor) -> Tensor:
        """Return which steps (T, B) bool of ``tokens`` are decoded: until a text or a stop string ends."""
