"""Any torch module that reads symbols and gives logits, as a target: the plain loop."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError, explaining
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.hooks import extremes
from lmfuzz.targets.sampling import CHANNELS, STEPWISE, Decoding, TokenSampler, characters, distribution
from lmfuzz.types import Array, Batch, Trace


class Called(nn.Module):
    """Wrap a module that can only be called, such as a CharRNN with packed weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        """Return what the module gives."""
        return self.module(*inputs)

    def __getattr__(self, name: str) -> Any:
        shown = name in ("alphabet", "config", "shape")  # what targets ask a module
        return getattr(self.module, name) if shown else super().__getattr__(name)


class WithAlphabet(Called):
    """Give a module an alphabet that it does not have itself; symbol i is its character i."""

    def __init__(self, module: nn.Module, alphabet: str) -> None:
        super().__init__(module)
        self.alphabet, self.training = alphabet, module.training
        self.original_name = type(module).__name__  # what messages call it


class CharacterTarget:
    """Hold what all targets that read and write single characters have in common."""

    info = TargetInfo()

    def __init__(
        self, module: nn.Module, alphabet: str, decoding: Decoding | None, min_length: int, max_length: int
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.decoding = decoding or Decoding()
        self.space = TextSpace(tuple(alphabet), min_length, max_length)
        self.sampler = TokenSampler(self.decoding, len(self.space.symbols))

    def _transcript(self, tokens: Tensor, logits: Tensor, wants: frozenset[str]) -> dict[str, Array]:
        """Return the channels of text, and of the distribution, for tokens (T, B) and logits (T, B, V)."""
        trace, ended = characters(self.space, tokens.T.numpy(), self.decoding.stop)
        for name, values in distribution(logits, tokens, wants).items():
            trace[name] = np.where(ended, np.nan, values.T.numpy())
        return trace

    def _hash(self, key: str, content: Callable[[Tensor], Tensor]) -> str:
        """Hash ``key`` and what ``content`` makes of each tensor of the module."""
        digest = hashlib.sha256(key.encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + content(tensor).numpy().tobytes())
        return digest.hexdigest()[:16]


class ModuleTarget(CharacterTarget):
    """Run a module from symbols int64 (B, T) to logits (B, T, V), or (logits, anything), as a target.

    Its alphabet is ``module.alphabet`` or ``module.config.alphabet``, a text whose character i is symbol i.
    Every step reads the whole text again, and only texts of one length together, so nothing is padded.

    Channels, for B prompts and T = max_new steps: text, tokens, ended, token_ends, logprob and entropy as
    for RNNTarget; hidden_last (B, V) the logits after the prompt; magnitude (B,) the largest absolute logit;
    nonfinite (B,) ``logits, step N of the output`` for the first that is not finite, or ''.

    Raises:
        TargetError: The module has no alphabet, or does not give such logits.
    """

    channels = CHANNELS - STEPWISE

    def __init__(
        self, module: nn.Module, name: str, decoding: Decoding, min_length: int = 1, max_length: int = 64
    ) -> None:
        alphabet = getattr(module, "alphabet", getattr(getattr(module, "config", None), "alphabet", None))
        if alphabet is None:
            raise TargetError(f"{name}: the module has no alphabet; set .alphabet, or pass alphabet='abc'")
        if len(alphabet) < 2 or len(set(alphabet)) < len(alphabet) or any(len(s) != 1 for s in alphabet):
            raise TargetError(f"{name}: the alphabet must be two or more characters, each of them once")
        super().__init__(module, alphabet, decoding, min_length, max_length)
        self._probe(name)
        self.identity = self._hash(f"({self.space.symbols!r}, {decoding.key})", Tensor.float)

    def like(self, module: nn.Module, name: str) -> "ModuleTarget":
        """Return the same target with another module, such as a twin."""
        return ModuleTarget(module, name, self.decoding, self.space.min_length, self.space.max_length)

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every prompt."""
        shape = self.decoding.max_new, len(batch)
        tokens = torch.empty(shape, dtype=torch.int64)
        logits = torch.empty((*shape, len(self.space.symbols)))
        for length in np.unique(batch.lengths).tolist():
            rows = np.flatnonzero(batch.lengths == length)
            text = torch.from_numpy(batch.data[rows, :length].astype(np.int64))
            for step in range(self.decoding.max_new):
                scores = logits[step, rows] = self._logits(text)[:, -1]
                chosen = tokens[step, rows] = self.sampler.choose(step, scores)
                text = torch.cat([text, chosen[:, None]], dim=1)
        trace = self._transcript(tokens, logits, wants)
        trace["hidden_last"] = logits[0].numpy()
        if wants & {"magnitude", "nonfinite"}:
            largest = logits.abs().amax(dim=2).numpy()  # (T, B), NaN if a logit is
            first = np.isfinite(largest).argmin(axis=0) + 1
            trace |= extremes(largest.max(axis=0), lambda row: f"logits, step {first[row]} of the output")
        return {name: trace[name] for name in wants}

    def _logits(self, text: Tensor) -> Tensor:
        out: Any = self.module(text)
        logits: Tensor = out[0] if isinstance(out, tuple) else out
        return logits.float()

    @torch.inference_mode()
    def _probe(self, name: str) -> None:
        """Raise TargetError unless two rows of three symbols give logits of the right shape."""
        with explaining(f"{name}: the module cannot be run on symbols"):
            shape = tuple(self._logits(torch.zeros((2, 3), dtype=torch.int64)).shape)
        wanted = 2, 3, len(self.space.symbols)
        if shape != wanted:
            raise TargetError(
                f"{name}: the module gives {shape} for symbols (2, 3); it must give {wanted}, a logit for"
                " each symbol of its alphabet"
            )
