"""A causal language model's tokens by their embeddings: which are alike, and which it hardly learned."""

import re
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmfuzz.errors import quiet
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.types import FloatArray, IntArray

SHARE = 0.02  # of the ordinary tokens that the indicator makes suspicious, as in the paper
NORM = "norm of the input embedding"
DISTANCE = "cosine distance of the output embedding to unused tokens"
LOGIT = "mean logit after other tokens"
KINDS = ORDINARY, SPECIAL, PART, UNREACHABLE = ("ordinary", "special", "part of a character", "unreachable")
_BLOCK = 16_384  # rows of an embedding in one matrix product
_ASKED = 16  # tokens at once, always as many: what a matrix product rounds to depends on its size
_BEFORE = 256  # tokens after which the mean logit is taken
_NEVER = (0xC0, 0xC1, *range(0xF5, 0x100))  # bytes that UTF-8 never has
_NEVER_NAMES = {name for byte in _NEVER for name in (chr(byte), f"<0x{byte:02X}>")}
_RESERVED = re.compile(r"[<\[].*(unused|reserved|placeholder|dummy).*[>\]]", re.IGNORECASE)
_ANCHORS = ("", "a", "\n", " ", "(", "\u00e9")  # what may stand before a token


def texts_of(tokens: Tokens, size: int) -> tuple[str, ...]:
    """Return the text of each of ``size`` rows after others, (V,); '' if the row is not a token."""
    return tokens.symbols + ("",) * (size - len(tokens.symbols))


class Vocabulary:
    """Tell of each token of a causal language model what kind it is, and whether it is under-trained.

    The ``indicator`` float32 (V,) is low if a token is likely to be under-trained, after Land & Bartolo 2024,
    "Fishing for Magikarp" (arXiv 2405.05417), section 2.2. If the output head has weights of its own, it is
    the L2 norm of the input embedding. If the head shares the input's weights, it is the cosine distance of
    the output embedding to the mean one of tokens that are known to be ``unused``. The authors list these by
    hand for each model; here they are found. The paper first removes the first principal component. The code
    published with it no longer does, nor does this: in small models unused tokens differ in just that
    direction. (Measured on two models of 1 024 tokens, 215 of which training never showed: such a token is
    lower than another in 99.9 and 100 % of pairs, and in 74 and 86 % without the component.)

    If the weights are shared and no token is known to be unused, a case that the paper leaves open, it is the
    mean logit of a token after others (99.8 and 100 %; the norm is large there, so that it would give 0 %).
    """

    def __init__(self, reader: Reader, tokens: Tokens) -> None:
        self.reader, self.tokens = reader, tokens
        self.texts = texts_of(tokens, reader.size)
        model: Any = reader.model
        self._input: Tensor = model.get_input_embeddings().weight.detach()
        output = getattr(model.get_output_embeddings(), "weight", None)
        known = isinstance(output, Tensor) and output.is_floating_point()  # a twin's may be packed
        self._output: Tensor = output.detach()[: reader.size] if known else self._input  # type: ignore[union-attr]
        self._near: dict[int, dict[int, IntArray]] = {}  # count -> token -> neighbours (count,)

    # -- tokens and their names --

    @cached_property
    def ids(self) -> IntArray:
        """The rows of the embedding that are tokens, int32 (N,)."""
        return np.flatnonzero([name is not None for name in self.names]).astype(np.int32)

    @cached_property
    def names(self) -> list[str | None]:
        """The name of each row in the tokenizer, None if it has none."""
        return [self.tokens.tokenizer.id_to_token(i) for i in range(self.reader.size)]

    @cached_property
    def unused(self) -> IntArray:
        """Rows int32 (N,) that no text trains: not tokens, bytes that UTF-8 never has, reserved names."""
        never = [
            name is None or (name in _NEVER_NAMES and "\ufffd" in text) or bool(_RESERVED.fullmatch(name))
            for name, text in zip(self.names, self.texts, strict=True)
        ]
        return np.flatnonzero(never).astype(np.int32)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each row, (V,), one of ``KINDS``.

        A token is unreachable if the tokenizer never makes it from its own text, whatever stands before.
        """
        reserved = {i for i, name in enumerate(self.names) if _RESERVED.fullmatch(name or "")}
        special = self.tokens.specials | reserved
        kinds = [
            SPECIAL if i in special else PART if "\ufffd" in text else UNREACHABLE if not text else ORDINARY
            for i, text in enumerate(self.texts)
        ]
        lost = [i for i, kind in enumerate(kinds) if kind == ORDINARY]
        for anchor in _ANCHORS:
            lost = self._lost(lost, anchor)
        lost_ones = frozenset(lost)
        return tuple(UNREACHABLE if i in lost_ones else kind for i, kind in enumerate(kinds))

    @property
    def unspelled(self) -> IntArray:
        """Rows int32 (N,) that only a text with their name leads to: unused and special ones included."""
        never = [kind in (SPECIAL, UNREACHABLE) for kind in self.kinds]
        return np.union1d(np.flatnonzero(never), self.unused).astype(np.int32)

    def _lost(self, ids: list[int], anchor: str) -> list[int]:
        """Return the tokens among ``ids`` that their own texts, after ``anchor``, are not tokenized into."""
        encode = self.tokens.tokenizer.encode_batch_fast
        known = encode([anchor], add_special_tokens=False)[0].ids
        found = encode([anchor + self.texts[i] for i in ids], add_special_tokens=False)
        return [i for i, encoding in zip(ids, found, strict=True) if encoding.ids != [*known, i]]

    # -- under-trained ones --

    @cached_property
    def tied(self) -> bool:
        """Whether the output head has the input embedding's weights."""
        return torch.equal(self._input, self._output)

    @property
    def measure(self) -> str:
        """The name of what the indicator measures."""
        shared = DISTANCE if len(self.unused) else LOGIT
        return shared if self.tied else NORM

    @cached_property
    def norms(self) -> FloatArray:
        """The L2 norms of the input embeddings, float32 (V,)."""
        return _joined([part.float().norm(dim=1) for part in torch.split(self._input, _BLOCK)])

    @cached_property
    def indicator(self) -> FloatArray:
        """How well each token is trained, float32 (V,); see the class."""
        if self.measure == NORM:
            return self.norms
        return self._distances() if self.measure == DISTANCE else self._logits()

    @torch.inference_mode()
    def _distances(self) -> FloatArray:
        unused = torch.from_numpy(self.unused.astype(np.int64)).to(self._output.device)
        mean = self._output[unused].float().mean(dim=0)
        found = []
        for part in torch.split(self._output, _BLOCK):
            size = part.float().norm(dim=1) * mean.norm()
            far = 1 - part.float() @ mean / size.clamp(min=1e-9)
            found.append(far.masked_fill(size < 1e-9, 0))  # nothing is less trained than zeros
        return _joined(found)

    @torch.inference_mode()
    def _logits(self) -> FloatArray:
        plain = self.tokens.plain or tuple(self.ids.tolist())
        some = plain[:: -(-len(plain) // _BEFORE)]
        rows = [[*self.tokens.prefix, token] for token in some]
        with quiet():
            logits, _, _ = self.reader.read(torch.tensor(rows, device=self._output.device), None)
        return _joined([logits[:, 0].mean(dim=0)])

    @cached_property
    def threshold(self) -> float:
        """The largest indicator that makes a token suspicious: of ordinary ones, the lowest 2 %."""
        ordinary = np.array([kind == ORDINARY for kind in self.kinds])
        known = np.sort(self.indicator[ordinary] if ordinary.any() else self.indicator)
        return float(known[int(np.ceil(SHARE * len(known))) - 1])

    @cached_property
    def rare(self) -> IntArray:
        """The suspicious tokens that are whole texts, int32 (N,), the lowest indicator first."""
        plain = np.array(self.tokens.plain, np.int32)
        ordered = plain[np.argsort(self.indicator[plain], kind="stable")]
        lowest = int((self.indicator[ordered] <= self.threshold).sum())
        return ordered[: max(1, lowest)]

    # -- similar ones --

    def neighbours(self, symbols: IntArray, count: int) -> IntArray:
        """Return the ``count`` tokens nearest to each of ``symbols`` (B,), int32 (B, count), nearest first.

        Near means a large cosine of the input embeddings. Only whole texts other than the token count; if
        there are fewer than ``count``, the token itself fills up. Results are cached.
        """
        known = self._near.setdefault(count, {})
        new = [token for token in np.unique(symbols).tolist() if token not in known]
        for start in range(0, len(new), _ASKED):
            some = new[start : start + _ASKED]
            known.update(zip(some, self._nearest(some, count), strict=False))
        found = [known[token] for token in symbols.tolist()]
        return np.array(found, np.int32).reshape(len(symbols), count)

    @torch.inference_mode()
    def _nearest(self, asked: list[int], count: int) -> IntArray:
        """Return int32 (16, count); rows beyond those asked for mean nothing."""
        device = self._input.device
        tokens = torch.tensor([*asked, *[asked[0]] * (_ASKED - len(asked))], device=device)
        wanted = self._directions(tokens)
        close = torch.full((_ASKED, count), -torch.inf, device=device)
        found = tokens[:, None].expand(-1, count)
        for ids in torch.split(torch.tensor(self.tokens.plain, device=device), _BLOCK):
            near = wanted @ self._directions(ids).T
            near.masked_fill_(ids == tokens[:, None], -torch.inf)
            close, places = torch.cat([close, near], dim=1).topk(count)
            found = torch.cat([found, ids.expand(_ASKED, -1)], dim=1).gather(1, places)
        found = torch.where(close > -torch.inf, found, tokens[:, None])
        return found.cpu().numpy().astype(np.int32)

    def _directions(self, ids: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self._input[ids].float(), dim=1)


def _joined(parts: list[Tensor]) -> FloatArray:
    return torch.cat(parts).cpu().numpy().astype(np.float32)
