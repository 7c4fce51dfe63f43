"""Whether a causal language model can say a token: how likely it is where it was just read often."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lmfuzz.errors import TargetError
from lmfuzz.targets.hf.decoding import MOST_TOKENS, out_of_memory
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.targets.twins.kernels import quiet
from lmfuzz.types import FloatArray, IntArray

REPEATS = 16  # of a token in its prompt
PLACES = 2  # at the end of the prompt, behind which the model is asked
_LOGITS = {"cpu": 2**21, "cuda": 2**28}  # at once, where memory sets no limit


class Repeating:
    """Reads each token many times over and asks how likely it is next.

    prefix: tokens that stand in front of every prompt, such as a beginning of text. batch_tokens: the most
    in a batch, None for what is usual on the device; when memory runs out, batches are halved.

    The third check of Land & Bartolo 2024 (arXiv 2405.05417, section 2.3) repeats a token some 50 times
    behind an English sentence that announces it; here there is no sentence, which a model of another language
    would not know, and every token is asked about instead of the suspicious ones alone. The other two checks
    need a model that follows instructions. 16 times, since longer prompts cost more and say hardly more, and
    behind the last two, since for large vocabularies that costs as much as all the reading. (In a small model
    of stories 58 % of ordinary tokens are below 1 %; behind 32 repeats 53 %, behind any of the 16 49 %.)
    """

    def __init__(self, reader: Reader, prefix: Sequence[int] = (), batch_tokens: int | None = None) -> None:
        self.reader, self.prefix = reader, list(prefix)
        room = (reader.window or len(prefix) + REPEATS) - len(prefix)
        self.repeats = max(1, min(REPEATS, room))
        self.places = min(PLACES, self.repeats)
        kind = reader.device.type
        length = len(prefix) + self.repeats
        by_tokens = (batch_tokens or MOST_TOKENS.get(kind, MOST_TOKENS["cpu"])) // length
        by_logits = _LOGITS.get(kind, _LOGITS["cpu"]) // (self.places * reader.size)
        self.rows = max(1, min(by_tokens, by_logits))

    def __call__(self, tokens: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Batch by batch, in order: the tokens, and the largest probability float32 (b,) of each.

        NaN where the model gives no number. TargetError where there is no memory for even one.
        """
        start = 0
        while start < len(tokens):
            some = tokens[start : start + self.rows]
            try:
                found = self._largest(torch.from_numpy(some).long().to(self.reader.device))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise TargetError(
                        f"there is no memory for a prompt of {len(self.prefix) + self.repeats} tokens; a"
                        " smaller --dtype needs less"
                    ) from error
                self.rows = len(some) // 2
                if self.reader.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield some, found
            start += len(some)

    @torch.inference_mode()
    def _largest(self, tokens: Tensor) -> FloatArray:
        """Reduced at once: the logits (b, places, V) are as large as the batch and the vocabulary."""
        before = torch.tensor(self.prefix, dtype=torch.int64, device=tokens.device).expand(len(tokens), -1)
        ids = torch.cat([before, tokens[:, None].expand(-1, self.repeats)], dim=1)
        with quiet():  # that a token of padding is read is meant
            logits, _, _ = self.reader.read(ids, None, keep=self.places)
        own = tokens[:, None, None].expand(-1, self.places, 1)
        # On a CPU in 60 % of the time of logsumexp, which makes several passes over the logits.
        found: FloatArray = logits.softmax(dim=2).gather(2, own).amax(dim=(1, 2)).cpu().numpy()
        return found
