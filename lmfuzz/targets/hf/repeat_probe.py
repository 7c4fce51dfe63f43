"""How likely a causal language model is to say a token that it has just read many times."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmfuzz.errors import TargetError, quiet
from lmfuzz.targets.hf.decoding import MOST_TOKENS, out_of_memory
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.types import FloatArray, IntArray

REPEATS = 16  # of a token in its prompt
PLACES = 2  # at the end of the prompt, after which the model is asked
_LOGITS = {"cpu": 2**21, "cuda": 2**28}  # at once, if memory sets no limit


class Repeating:
    """Repeat each token many times, and ask how likely it comes next.

    The third check of Land & Bartolo 2024 (arXiv 2405.05417, section 2.3) repeats a token some 50 times
    after an English sentence that announces it. Here there is no sentence, which a model of another language
    would not know, and every token is checked instead of only the suspicious ones. (The other two checks
    need a model that follows instructions.) There are 16 repeats, since longer prompts cost more and tell
    hardly more, and only the last two places count, since for large vocabularies their logits cost as much
    as all the reading. (In a small model of stories 58 % of ordinary tokens are below 1 %; after 32 repeats
    53 %, at any of the 16 places 49 %.)

    Args:
        reader: What reads the tokens.
        prefix: Tokens at the start of every prompt, such as a beginning of text.
        batch_tokens: The most tokens in a batch; None: what is usual on the device. When memory runs out,
            batches are halved.
    """

    def __init__(self, reader: Reader, prefix: Sequence[int] = (), batch_tokens: int | None = None) -> None:
        self.reader, self.prefix = reader, list(prefix)
        free = (reader.window or len(prefix) + REPEATS) - len(prefix)
        self.repeats = max(1, min(REPEATS, free))
        self.places = min(PLACES, self.repeats)
        self.length = len(prefix) + self.repeats
        kind = reader.device.type
        by_tokens = (batch_tokens or MOST_TOKENS.get(kind, MOST_TOKENS["cpu"])) // self.length
        by_logits = _LOGITS.get(kind, _LOGITS["cpu"]) // (self.places * reader.size)
        self.rows = max(1, min(by_tokens, by_logits))

    def __call__(self, tokens: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield, batch by batch, the tokens (b,) and the largest probability float32 (b,) of each.

        A probability is NaN if the model gives no number.

        Raises:
            TargetError: There is no memory for even one token.
        """
        start = 0
        while start < len(tokens):
            some = tokens[start : start + self.rows]
            try:
                found = self._largest(torch.from_numpy(some).long().to(self.reader.device))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error, self.reader.device):
                    raise
                if len(some) == 1:
                    raise TargetError(
                        f"no memory for a prompt of {self.length} tokens; --dtype bfloat16 needs less"
                    ) from error
                self.rows = len(some) // 2
            else:
                yield some, found
                start += len(some)

    @torch.inference_mode()
    def _largest(self, tokens: Tensor) -> FloatArray:
        """Return the largest probability (b,) of each of ``tokens`` (b,) over the last places."""
        before = torch.tensor(self.prefix, dtype=torch.int64, device=tokens.device).expand(len(tokens), -1)
        ids = torch.cat([before, tokens[:, None].expand(-1, self.repeats)], dim=1)
        with quiet():  # a warning that a token of padding is read
            logits, _, _ = self.reader.read(ids, None, keep=self.places)
        own = tokens[:, None, None].expand(-1, self.places, 1)
        # On a CPU this takes 60 % of the time of logsumexp, which makes several passes over the logits.
        return logits.softmax(dim=2).gather(2, own).amax(dim=(1, 2)).cpu().numpy()
