"""A Hugging Face causal language model as a target: prompts in, of characters or tokens, text out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from lmfuzz.errors import TargetError, Unfit, UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.protocols import TargetInfo
from lmfuzz.targets.capabilities import Written
from lmfuzz.targets.hf.decoding import Choose, Writer
from lmfuzz.targets.hf.forward import Reader
from lmfuzz.targets.hf.loader import CausalFolder
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.phrase_gap import CausalGaps, TokenizedPhrases
from lmfuzz.targets.hf.recorder import Record
from lmfuzz.targets.hf.vocabulary import Vocabulary, texts_of
from lmfuzz.targets.hooks import Peaks, extremes, submodules, watching
from lmfuzz.targets.sampling import CHANNELS, NEVER, STEPWISE, Decoding, TokenSampler, first_stop, phrases
from lmfuzz.targets.validate import fingerprint
from lmfuzz.types import PAD, Array, Batch, FloatArray, IntArray, Trace

_BYTES = 4  # of a character at most: each may be a token
_ONE_LENGTH = "padding would change what the model writes: only prompts of one length are decoded together"
_TYPED = frozenset({10, *range(32, 127)})  # code points of characters that are drawn at random


@dataclass(frozen=True)
class Decoded(Written):
    """Hold what decoding led to: ``prompt`` are the whole prompts in tokens, and the Record has the rest."""

    record: Record


class CausalLM:
    """Run a causal language model as a target.

    Channels, for B prompts and T = max_new steps: text (B,) str, without the end of text and before a stop
    string; tokens (B, T) int32, PAD after an end of text and from a stop string on; token_ends (B, T)
    int32, the characters of text that are there after each token, PAD like tokens; logprob, entropy and
    end_logprob (B, T), nats of the model's distribution at temperature 1, of the token, of all, and of an
    end of text, NaN where tokens are PAD; ended (B,) bool, whether a text came to its end or to a stop
    string; hidden_last (B, D) the states of the layer after the prompt, hidden_steps (B, T, D) those before
    each token, hidden_mean (B, D) their mean over the text; magnitude (B,) the largest absolute value among
    logits and those states; nonfinite (B,) str, the first part of the model whose output was NaN or
    infinite, or ''; phrase_gap/... see phrase_gap.py. Numbers are float32.

    There is end_logprob if the model has an end of text, and phrase_gap/ if it reads padded prompts.

    Args:
        found: The model and its tokens.
        name: What errors call it.
        decoding: How text is decoded.
        options: How the model is used.
        min_length: The fewest symbols in a prompt.
        max_length: The most symbols in a prompt.
        like: The reader of a similar model, such as a twin's base.

    Raises:
        TargetError: Prompts of ``max_length`` symbols do not fit into the model's window.
    """

    def __init__(
        self,
        found: CausalFolder,
        name: str,
        decoding: Decoding | None = None,
        options: HFOptions | None = None,
        min_length: int = 1,
        max_length: int = 64,
        like: Reader | None = None,
    ) -> None:
        self.decoding, self.options = decoding, options = decoding or Decoding(), options or HFOptions()
        self.name, self._found, self._ends = name, found, found.ends
        self._tokens = tokens = found.tokens
        self._around = len(tokens.prefix) + len(tokens.suffix)
        self.module = found.model.eval().requires_grad_(False)
        most = self._around + (1 if options.level == "token" else _BYTES) * max_length
        most += max(decoding.max_new, max_length)  # to which samples go on
        self.reader = reader = Reader(self.module, name, options.layer, like, most)
        self._writer = Writer(reader, tokens.prefix, self._ends, options.batch_tokens)
        self.vocabulary = texts_of(tokens, reader.size)
        self.language = tokens, reader.size, self._ends
        more = ({"end_logprob"} if self._ends else set()) | ({"phrase_gap/"} if reader.padded else set())
        self.channels = CHANNELS | more
        around = tokens.before, tokens.behind, tokens.special
        notes = found.notes if reader.padded else (*found.notes, _ONE_LENGTH)
        seeds = None if tokens.special else "corpora:chat"
        self.info = TargetInfo(
            notes, seeds, sparing=True, told=tokens.before + tokens.behind, clock=found.clock
        )
        self._check_window(max_length)
        self.space = self._made_space(min_length, max_length)
        self.sampler = TokenSampler(decoding, reader.size, reader.device, stepwise=True)
        tokenized = partial(TokenizedPhrases, tokens=tokens, symbols=self.vocabulary, device=reader.device)
        self._phrases = cache(tokenized)
        spelling = hashlib.sha256(tokens.json.encode()).hexdigest()
        how = options.level, options.layer, (*around, spelling), self._ends
        self.identity = fingerprint(self.module, f"({decoding.key}, {repr(how)[1:]}")

    def like(self, module: nn.Module, name: str) -> "CausalLM":
        """Return the same target with another model, such as a twin."""
        kept = self.decoding, self.options, self.space.min_length, self.space.max_length
        return CausalLM(replace(self._found, model=module, notes=()), name, *kept, self.reader)

    def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of every prompt."""
        return self.show(batch, self.decode(batch, wants), wants)

    @torch.inference_mode()
    def decode(self, batch: Batch, wants: frozenset[str]) -> Decoded:
        """Read the prompts and write, and keep what ``wants`` will need; with "logits" all of them."""
        leads = self.space.leads(batch) if phrases(wants) else ()
        return self._decode(self._prompts(batch), wants, self.sampler.choose, leads=leads)

    @torch.inference_mode()
    def follow(self, batch: Batch, tokens: Tensor, prompt: list[list[int]] | None = None) -> Tensor:
        """Return logits float32 (T, B, V), without noise, after the prompts and each prefix of ``tokens``.

        This is teacher forcing, token by token as in ``decode``; logits after the end of a text mean nothing.
        """

        def choose(step: int, _: Tensor, rows: Tensor) -> Tensor:
            return tokens[step, rows].clamp(min=0)

        prompts = prompt or self._prompts(batch)
        return self._decode(prompts, frozenset({"logits"}), choose, len(tokens)).logits

    def going(self, tokens: Tensor) -> Tensor:
        """Return which steps (T, B) bool of ``tokens`` are decoded: up to an end of text or stop string."""
        going = tokens != PAD
        if not self.decoding.stop:
            return going
        rows = _written(tokens)
        texts, ends = self._texts([[]] * len(rows), rows), np.full(len(rows), len(tokens))
        stops = first_stop(texts, self.decoding.stop, past=True)
        for i in np.flatnonzero(stops < NEVER).tolist():
            ends[i] = 1 + int(np.argmax(self._token_ends([], rows[i], texts[i]) >= stops[i]))
        return going & (torch.arange(len(tokens))[:, None] < torch.from_numpy(ends)).to(tokens.device)

    @torch.inference_mode()
    def show(self, batch: Batch, decoded: Decoded, wants: frozenset[str]) -> Trace:
        """Return the wanted channels of what ``decode`` gave for the same ``wants``."""
        record = decoded.record
        written = record.tokens.T.cpu().numpy().astype(np.int32)
        at_end = np.isin(written, self._ends)
        ended: Array = np.any(at_end, axis=1)
        shown = [row[(row != PAD) & ~end] for row, end in zip(written, at_end, strict=True)]
        texts = self._texts(decoded.prompt, shown)
        trace: dict[str, Array] = {}
        if self.decoding.stop or "token_ends" in wants:
            ends = np.full(written.shape, PAD, np.int32)
            for i, (prompt, row, text) in enumerate(zip(decoded.prompt, shown, texts, strict=True)):
                ends[i, : len(row)] = self._token_ends(prompt, row, text)
            ends[at_end] = [len(texts[i]) for i in np.nonzero(at_end)[0]]
            trace["token_ends"] = ends
        cuts = first_stop(texts, self.decoding.stop)
        for i in np.flatnonzero(cuts < NEVER).tolist():
            cut, ends = int(cuts[i]), trace["token_ends"]
            starts = np.concatenate([[0], ends[i, :-1]])
            written[i, (starts >= cut) | (ends[i] == PAD)] = PAD
            ends[i] = np.where(written[i] == PAD, PAD, np.minimum(ends[i], cut))
            texts[i], ended[i] = texts[i][:cut], True
        trace |= {"text": np.array(texts, dtype=object), "tokens": written, "ended": ended}
        for name, values in record.series.items():
            trace[name] = np.where(written == PAD, np.nan, values.T.cpu().numpy()).astype(np.float32)
        if "hidden_last" in wants:
            trace["hidden_last"] = record.last.cpu().numpy()
        if wants & STEPWISE:
            trace |= _states(record, written)
        if record.measured:
            trace |= extremes(record.magnitude.cpu().numpy(), partial(self._first_place, decoded))
        if record.gaps is not None:
            gaps = record.gaps.gaps.cpu().numpy()
            trace |= dict(zip(record.gaps.phrases.channels, gaps, strict=True))
        return {name: trace[name] for name in wants}

    @torch.inference_mode()
    def sample(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        """Return ``new`` symbols int32 (B, new) after each prompt, drawn at ``temperature`` with ``rng``.

        After the end of a text they are drawn from the space.
        """
        seed = int(rng.integers(2**62))
        generator = torch.Generator(self.reader.device).manual_seed(seed)

        def choose(_: int, logits: Tensor, __: Tensor) -> Tensor:
            waits = torch.empty_like(logits).exponential_(generator=generator)  # as good as Gumbel noise
            return (torch.log_softmax(logits / temperature, dim=1) - waits.log()).argmax(dim=1)

        prompts = [prompt[: len(prompt) - len(self._tokens.suffix)] for prompt in self._prompts(batch)]
        steps = new if self.space.tokens is not None else -(-new // self._letters_per_token) + 1
        written = self._decode(prompts, frozenset(), choose, steps).tokens.T.cpu().numpy()
        rows = [row[(row != PAD) & ~np.isin(row, self._ends)] for row in written]
        if self.space.tokens is None:
            texts, known = self._texts(prompts, rows), frozenset(self.space.symbols)
            rows = [self.space.encode("".join(c for c in text if c in known)) for text in texts]
        fill = self.space.draw(rng, (len(rows), new))
        whole = [np.concatenate([row, rest])[:new] for row, rest in zip(rows, fill, strict=True)]
        return np.array(whole, np.int32)

    @cached_property
    def lexicon(self) -> Vocabulary:
        """The model's tokens by their embeddings."""
        return Vocabulary(self.reader, self._tokens)

    # -- prompts and tokens --

    def _made_space(self, min_length: int, max_length: int) -> TextSpace:
        tokens = self._tokens
        self._letters_per_token = 1
        if self.options.level == "token":
            return TextSpace(tokens.symbols, min_length, max_length, tokens.plain, tokens)
        if lengths := [len(tokens.symbols[i]) for i in tokens.plain]:
            self._letters_per_token = max(1, round(float(np.mean(lengths)) / 2))
        symbols = tokens.characters
        drawn = tuple(i for i, character in enumerate(symbols) if ord(character) in _TYPED)
        every = drawn or tuple(range(len(symbols)))
        return TextSpace(symbols, min_length, max_length, every, readers=(tokens,))

    def _check_window(self, most: int) -> None:
        around, new, window = self._around, self.decoding.max_new, self.reader.window
        if window is not None and around + most + new > window:
            template = f", {around} around each" if around else ""
            raise TargetError(
                f"prompts of up to {most} symbols{template} and {new} new tokens do not fit into the window"
                f" of {self.name}, {window} tokens; use a smaller --max-length or --max-new"
            )

    def _prompts(self, batch: Batch) -> list[list[int]]:
        """Return the tokens of the whole prompts.

        Raises:
            Unfit: One is too long for the window, or the chat template does not take it as it is.
        """
        try:
            if self.space.tokens is not None:
                prompts = self._tokens.around([batch.row(i) for i in range(len(batch))])
            else:
                prompts = self._tokens.prompts(self.space.texts(batch))
        except UsageError as error:
            raise Unfit(str(error)) from error
        longest, window = max(map(len, prompts)), self.reader.window
        if window is not None and longest + self.decoding.max_new > window:
            raise Unfit(f"the prompt has {longest} tokens, too many for the window of {window}")
        if not all(prompts):
            raise Unfit("the prompt has no tokens")
        return prompts

    def _texts(self, prompts: Sequence[list[int]], rows: Sequence[IntArray]) -> list[str]:
        return self._tokens.written(prompts, [row.tolist() for row in rows])

    def _token_ends(self, prompt: list[int], row: IntArray, text: str) -> IntArray:
        """Return how many characters of ``text`` are there after each of its tokens ``row`` (N,)."""
        ends = np.cumsum([len(self.vocabulary[token]) for token in row.tolist()])
        if not len(row) or ("\ufffd" not in text and ends[-1] == len(text)):
            return ends
        heads = [row[: i + 1] for i in range(len(row))]  # characters of several tokens: read all beginnings
        lengths = [len(head) for head in self._texts([prompt] * len(row), heads)]
        return np.minimum(np.maximum.accumulate(lengths), len(text))

    # -- decoding --

    def _decode(
        self,
        prompts: list[list[int]],
        wants: frozenset[str],
        choose: Choose,
        steps: int | None = None,
        leads: Sequence[str] = (),
    ) -> Decoded:
        steps = self.decoding.max_new if steps is None else steps
        record = Record(self.reader, self._writer.ends, steps, len(prompts), wants)
        if wanted := phrases(wants):
            record.gaps = CausalGaps(self._phrases(wanted), self.reader, self.sampler, leads)
        stopped = partial(self._stopped, prompts) if self.decoding.stop else None
        self._writer.write(prompts, choose, record, stopped)
        return Decoded(record.tokens, record.logits, prompts, record)

    def _stopped(self, prompts: list[list[int]], rows: Tensor, tokens: Tensor) -> Tensor:
        """Return which of the ``rows`` (b,) have written a stop string in ``tokens`` (T, b)."""
        texts = self._texts([prompts[row] for row in rows.tolist()], _written(tokens))
        return torch.from_numpy(first_stop(texts, self.decoding.stop) < NEVER).to(tokens.device)

    def _first_place(self, decoded: Decoded, row: int) -> str:
        """Return the first part of the model whose output was not finite for a prompt."""
        ids, peaks = decoded.prompt[row] + _written(decoded.tokens[:, [row]])[0].tolist(), Peaks(1)
        with watching(submodules(self.module), lambda name, _, output: peaks.add(name, output)):
            self.module(input_ids=torch.tensor([ids], device=self.reader.device))
        return str(peaks.trace()["nonfinite"][0]) or "in the batch only, not alone"


def _written(tokens: Tensor) -> list[IntArray]:
    """Return what was written in each column of tokens (T, B)."""
    return [row[row != PAD] for row in tokens.T.cpu().numpy()]


def _states(record: Record, written: IntArray) -> dict[str, FloatArray]:
    """Return hidden_steps and hidden_mean; steps after the end of a text are NaN."""
    going = torch.from_numpy(written != PAD).to(record.states.device)
    states = record.states.transpose(0, 1)  # (B, T, D)
    count = going.sum(dim=1, keepdim=True).clamp(min=1)
    mean = states.masked_fill(~going[..., None], 0).sum(dim=1) / count
    return {
        "hidden_steps": states.masked_fill(~going[..., None], torch.nan).cpu().numpy(),
        "hidden_mean": mean.cpu().numpy(),
    }
