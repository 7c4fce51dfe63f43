"""Any torch module that reads symbols and gives logits, as a target: the plain loop."""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.sampling import CHANNELS, STEPWISE, Decoding, TokenSampler, characters, distribution
from lmfuzz.types import Batch, IntArray, Trace


class WithAlphabet(nn.Module):
    """A module with an alphabet that it does not have itself; symbol i is the character i of it."""

    def __init__(self, module: nn.Module, alphabet: str) -> None:
        super().__init__()
        self.module, self.alphabet = module, alphabet
        self.original_name = type(module).__name__  # what messages call it
        self.training = module.training

    def forward(self, *inputs: Any) -> Any:
        """Return what the module gives."""
        return self.module(*inputs)


class ModuleTarget:
    """A module from symbols int64 (B, T) to logits (B, T, V), or (logits, anything), as a target.

    Its alphabet is ``module.alphabet`` or ``module.config.alphabet``, a text whose character i is
    symbol i. Every step reads the whole text again, rows of one length together, so nothing is padded.

    Channels, for B prompts and T = max_new steps: text, tokens, ended, token_ends, logprob and entropy as
    RNNTarget's; hidden_last (B, V) the logits after the prompt; magnitude (B,) the largest absolute logit;
    nonfinite (B,) ``logits, step N of the output`` for the first that is not finite, or ''.
    """

    channels = CHANNELS - STEPWISE
    info = TargetInfo()

    def __init__(
        self, module: nn.Module, name: str, decoding: Decoding, min_length: int = 1, max_length: int = 64
    ) -> None:
        alphabet = getattr(module, "alphabet", getattr(getattr(module, "config", None), "alphabet", None))
        if alphabet is None:
            raise TargetError(
                f"{name}: the module has no alphabet; give it one, a text, as .alphabet, or say alphabet=..."
            )
        symbols = tuple(alphabet)
        if len(symbols) < 2 or len(set(symbols)) < len(symbols) or any(len(s) != 1 for s in symbols):
            raise TargetError(f"{name}: the alphabet must be two or more characters, each of them once")
        self.module = module.eval().requires_grad_(False)
        self.decoding = decoding
        self.space = TextSpace(symbols, min_length, max_length)
        self.sampler = TokenSampler(decoding, len(symbols))
        self._probe(name)
        self.identity = self._hash()

    def like(self, module: nn.Module, name: str) -> "ModuleTarget":
        """Return the same with another module, such as a twin's."""
        return ModuleTarget(module, name, self.decoding, self.space.min_length, self.space.max_length)

    @torch.inference_mode()
    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """The wanted channels for every row."""
        steps = self.decoding.max_new
        tokens = np.empty((len(batch), steps), np.int32)
        logits = torch.empty((len(batch), steps, len(self.space.symbols)))
        for length in np.unique(batch.lengths).tolist():
            rows = np.flatnonzero(batch.lengths == length)
            written, scores = self._write(torch.from_numpy(batch.data[rows, :length].astype(np.int64)))
            tokens[rows] = written.numpy()
            logits[torch.from_numpy(rows)] = scores
        return self._trace(tokens, logits, wants)

    def _write(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (b, T) and the logits (b, T, V) they were chosen from, after texts (b, L)."""
        scores, length = [], text.shape[1]
        for step in range(self.decoding.max_new):
            scores.append(self._logits(text)[:, -1])
            text = torch.cat([text, self.sampler.choose(step, scores[-1])[:, None]], dim=1)
        return text[:, length:], torch.stack(scores, dim=1)

    def _trace(self, tokens: IntArray, logits: Tensor, wants: frozenset[str]) -> Trace:
        trace, ended = characters(self.space, tokens, self.decoding.stop)
        trace["hidden_last"] = logits[:, 0].numpy()
        for name, values in distribution(logits, torch.from_numpy(tokens).long(), wants).items():
            trace[name] = np.where(ended, np.nan, values.numpy())
        if wants & {"magnitude", "nonfinite"}:
            largest = logits.abs().amax(dim=2).numpy()  # (B, T), NaN where a logit is
            lost = ~np.isfinite(largest)
            places = [f"logits, step {np.argmax(row) + 1} of the output" if row.any() else "" for row in lost]
            trace |= {"magnitude": largest.max(axis=1), "nonfinite": np.array(places, dtype=object)}
        return {name: trace[name] for name in wants}

    def _logits(self, text: Tensor) -> Tensor:
        out: Any = self.module(text)
        logits: Tensor = out[0] if isinstance(out, tuple) else out
        return logits.float()

    @torch.inference_mode()
    def _probe(self, name: str) -> None:
        """TargetError unless two rows of three symbols give logits of the right shape."""
        symbols = len(self.space.symbols)
        try:
            shape = tuple(self._logits(torch.zeros((2, 3), dtype=torch.int64)).shape)
        except Exception as error:
            raise TargetError(
                f"{name}: the module raises {type(error).__name__} on symbols: {error}"
            ) from error
        if shape != (2, 3, symbols):
            raise TargetError(
                f"{name}: the module gives {shape} for symbols (2, 3), must be (2, 3, {symbols}), logits"
                " for every symbol of its alphabet"
            )

    def _hash(self) -> str:
        digest = hashlib.sha256(f"({self.space.symbols!r}, {self.decoding.key})".encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode() + tensor.float().numpy().tobytes())
        return digest.hexdigest()[:16]
