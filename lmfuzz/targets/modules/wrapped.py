"""Torch modules inside others, which say for them what they do not say themselves."""

from typing import Any

from torch import nn


class Called(nn.Module):
    """Wrap a module that can only be called, such as a CharRNN with packed weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        """Return what the module gives."""
        return self.module(*inputs)

    def __getattr__(self, name: str) -> Any:
        shown = name in ("alphabet", "bos_token", "eos_token", "config", "shape")  # what targets ask a module
        return getattr(self.module, name) if shown else super().__getattr__(name)


class WithAlphabet(Called):
    """Give a module an alphabet that it does not have itself; symbol i is its character i."""

    def __init__(self, module: nn.Module, alphabet: Any) -> None:
        super().__init__(module)
        self.alphabet, self.training = alphabet, module.training
        self.original_name = type(module).__name__  # what messages call it
