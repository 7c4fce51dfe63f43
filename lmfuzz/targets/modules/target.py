"""Torch modules that write characters as targets: lmfuzz's own networks, and any other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.modules.cached import cached
from lmfuzz.targets.modules.characters import CharacterTarget, Decoded
from lmfuzz.targets.modules.examine import Conduct, examine
from lmfuzz.targets.modules.recognise import recognised
from lmfuzz.targets.modules.steppers import StateStepper, TextStepper
from lmfuzz.targets.rnn.model import CharRNN
from lmfuzz.targets.rnn.step import RNNStepper
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.stepping import Stepper
from lmfuzz.types import Batch, Trace

_AGAIN = "slow: the module takes no state, so that every text is read again for each symbol"


class RNNTarget(CharacterTarget):
    """Run a CharRNN as a target; hidden_last is all layers' hidden and cell states.

    ``logits_only`` is for twins that are no CharRNN, see ModuleTarget.
    """

    def __init__(
        self,
        model: CharRNN,
        decoding: Decoding | None = None,
        min_length: int = 1,
        max_length: int = 64,
        logits_only: bool = False,
    ) -> None:
        model.eval().requires_grad_(False)
        stepper = RNNStepper(model.embedding.weight, model.rnn, model.output)
        symbols, lengths = tuple(model.config.alphabet), (min_length, max_length)
        super().__init__(model, symbols, stepper, decoding or Decoding(), lengths)
        self._logits_only = logits_only
        key = model.config.model_dump_json() + self.decoding.key
        self.identity = self._hash(key, lambda tensor: tensor.contiguous().view(torch.uint8))

    def like(self, module: nn.Module, name: str) -> CharacterTarget:
        """Return the same target with another module."""
        lengths = self.space.min_length, self.space.max_length
        return writer(module, name, self.decoding, *lengths, self._logits_only)


class ModuleTarget(CharacterTarget):
    """Run a module from symbols int64 (B, T) to logits (B, T, V) as a target; see Caller for other forms.

    Its alphabet is ``module.alphabet`` or ``module.config.alphabet``: a text whose character i is symbol i, a
    list of the symbols, or a dict from characters to numbers or back. If there is a ``module.bos_token``, the
    model reads that symbol before every prompt, and a ``module.eos_token`` ends a text.

    A module that goes on from a state that it gave writes a symbol per call. Another reads the text again
    for every symbol: in one padded batch if it is causal, otherwise in groups of one length. An embedding,
    nn.LSTM, nn.GRU or nn.RNN and a linear layer are run by CharRNN's kernels, if these give the same logits.

    hidden_last is all tensors of the state, or without a state what goes into the last linear layer. It is
    the logits if there is neither, or if ``logits_only``, as in campaigns of 0.3.0.

    Raises:
        TargetError: The module has no alphabet, does not give such logits, or gives others for the same text.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        decoding: Decoding,
        min_length: int = 1,
        max_length: int = 64,
        logits_only: bool = False,
    ) -> None:
        for weights in module.eval().parameters():  # TorchScript has no module.requires_grad_
            weights.requires_grad_(False)
        alphabet = _declared(module, "alphabet")
        if alphabet is None:
            raise TargetError(f"{name}: the module has no alphabet; set .alphabet, or pass alphabet='abc'")
        symbols = symbols_of(alphabet, name)
        start, end = (_special(module, token, symbols, name) for token in ("bos_token", "eos_token"))
        longest = max_length + decoding.max_new + (start is not None)
        conduct = examine(module, name, len(symbols), longest)
        stepper = _stepper(module, conduct, len(symbols), longest)
        super().__init__(module, symbols, stepper, decoding, (min_length, max_length), start, end)
        again = isinstance(stepper, TextStepper) and conduct.reads == "causal"
        self.info = TargetInfo((*conduct.notes, *([_AGAIN] if again else [])))
        self._logits_only = logits_only
        key = "".join(f", {token}" for token in (start, end) if token is not None)
        self.identity = self._hash(f"({symbols!r}, {decoding.key}{key})", Tensor.float)

    def like(self, module: nn.Module, name: str) -> "ModuleTarget":
        """Return the same target with another module, such as a twin."""
        lengths = self.space.min_length, self.space.max_length
        return ModuleTarget(module, name, self.decoding, *lengths, self._logits_only)

    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` gave for the same ``wants``."""
        trace = dict(super().show(batch, decoded, wants))
        if self._logits_only and "hidden_last" in wants:
            trace["hidden_last"] = decoded.logits[0].numpy()
        return trace


def _stepper(module: nn.Module, conduct: Conduct, size: int, longest: int) -> Stepper:
    """Return the fastest way to advance a module."""
    if known := recognised(module, conduct.caller, size):
        return known
    if conduct.reads == "states":
        return StateStepper(module, conduct)
    if conduct.reads == "causal" and (found := cached(module, conduct.caller, size, longest)):
        return found
    return TextStepper(module, conduct)


def symbols_of(alphabet: Any, name: str) -> tuple[str, ...]:
    """Return the text of each symbol of an alphabet: '' for one that a dict of characters leaves out.

    Raises:
        TargetError: It is not a text, list or dict of symbols, or a character is there twice.
    """
    if isinstance(alphabet, Mapping):
        pairs = list(alphabet.items())
        if pairs and all(isinstance(value, int) for value in alphabet.values()):
            pairs = [(number, symbol) for symbol, number in pairs]
        elif all(str(key).isdecimal() for key in alphabet):  # JSON's keys are texts
            pairs = [(int(key), symbol) for key, symbol in pairs]
        symbols = [""] * (1 + max((n for n, _ in pairs if isinstance(n, int)), default=0))
        if not all(isinstance(n, int) and n >= 0 for n, _ in pairs) or len(dict(pairs)) < len(pairs):
            raise TargetError(f"{name}: an alphabet that is a dict must have one number for each character")
        for number, symbol in pairs:
            symbols[number] = symbol
    elif isinstance(alphabet, Sequence):
        symbols = list(alphabet)
    else:
        raise TargetError(
            f"{name}: the alphabet must be a text, a list or a dict, not {type(alphabet).__name__}"
        )
    if odd := [symbol for symbol in symbols if not isinstance(symbol, str)]:
        raise TargetError(f"{name}: the alphabet holds {odd[0]!r}, which is not a text")
    single = [symbol for symbol in symbols if len(symbol) == 1]
    if len(set(single)) < len(single):
        twice = next(symbol for symbol in single if single.count(symbol) > 1)
        places = [i for i, symbol in enumerate(symbols) if symbol == twice]
        raise TargetError(f"{name}: the alphabet has {twice!r} twice, as symbols {places[0]} and {places[1]}")
    if len(single) < 2:
        raise TargetError(f"{name}: the alphabet must have two or more characters")
    return tuple(symbols)


def _declared(module: nn.Module, name: str) -> Any:
    """Return what the module, its config, or a module that it wraps as DataParallel does calls ``name``."""
    holders = module, getattr(module, "config", None), getattr(module, "module", None)
    return next((found for holder in holders if (found := getattr(holder, name, None)) is not None), None)


def _special(module: nn.Module, token: str, symbols: tuple[str, ...], name: str) -> int | None:
    """Return the number of a module's special symbol, such as its ``bos_token``; None if it has none."""
    symbol = _declared(module, token)
    if symbol is not None and symbol not in symbols:
        raise TargetError(f"{name}: {token} is {symbol!r}, which is not a symbol of its alphabet")
    return None if symbol is None else symbols.index(symbol)


def writer(
    module: nn.Module,
    name: str,
    decoding: Decoding,
    min_length: int,
    max_length: int,
    logits_only: bool = False,
) -> CharacterTarget:
    """Return a module that writes characters as a target."""
    if isinstance(module, CharRNN):
        return RNNTarget(module, decoding, min_length, max_length, logits_only)
    return ModuleTarget(module, name, decoding, min_length, max_length, logits_only)
