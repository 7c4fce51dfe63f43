"""Capabilities of targets in terms of torch: to be compressed, and to follow what another has written."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import Target
from lmfuzz.targets.sampling import TokenSampler
from lmfuzz.types import Batch, Trace


@runtime_checkable
class Compressible(Protocol):
    """Be a target made of a module, of which a recipe can make a twin."""

    @property
    def module(self) -> nn.Module:
        """The module."""

    def like(self, module: nn.Module, name: str) -> Target:
        """Return the same target around another module, called ``name``."""


@dataclass(frozen=True)
class Written:
    """Hold what decoding B prompts for T steps led to.

    Attributes:
        tokens: What was written, int64 (T, B), PAD after the end.
        logits: What it was chosen by, without noise, float32 (T, B, V), if "logits" was wanted.
        prompt: What ``follow`` needs so that it does not read the prompts again.
    """

    tokens: Tensor
    logits: Tensor
    prompt: Any


@runtime_checkable
class Followable(Target, Protocol):
    """Be a target that shows how it writes, and follows what another with the same ``language`` has written.

    Attributes:
        language: What its tokens mean and what ends a text; equal for two that can follow each other.
        vocabulary: The text of each token that it writes, (V,).
    """

    space: TextSpace
    sampler: TokenSampler
    language: object
    vocabulary: tuple[str, ...]

    def decode(self, batch: Batch, wants: frozenset[str]) -> Written:
        """Read the prompts and write, and keep what ``wants`` will need; "logits" is one of them."""

    def show(self, batch: Batch, decoded: Any, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` gave for the same ``wants``."""

    def follow(self, batch: Batch, tokens: Tensor, prompt: Any = None) -> Tensor:
        """Return logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens``.

        This is teacher forcing: equal to what ``decode`` gives if it writes the same tokens. Logits after the
        end of a text mean nothing.

        Args:
            batch: The prompts.
            tokens: The tokens (T, B) to follow.
            prompt: What an earlier ``decode`` of the same batch left, so that it is not read again.
        """

    def going(self, tokens: Tensor) -> Tensor:
        """Return which steps (T, B) bool of ``tokens`` are decoded: until a text or a stop string ends."""
