"""Torch modules of a user's own: every way to call them, what they show, and what is refused."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.plain import ALPHABET, char_rnn, rows
from lmfuzz.errors import TargetError
from lmfuzz.spec import Spec, stored
from lmfuzz.targets.kinds import as_target
from lmfuzz.targets.modules.cached import CachedStepper
from lmfuzz.targets.modules.characters import CharacterTarget
from lmfuzz.targets.modules.examine import examine
from lmfuzz.targets.modules.steppers import StateStepper, TextStepper
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget, symbols_of
from lmfuzz.targets.modules.wrapped import WithAlphabet
from lmfuzz.targets.rnn.step import RNNStepper
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.twins.pair import TextPair, pair
from lmfuzz.types import PAD, Batch, take

V = len(ALPHABET)
LENGTHS = (4, 1, 9, 4, 6)
GREEDY, SAMPLED = Decoding(max_new=7), Decoding(max_new=7, temperature=0.8)


class Own(nn.Module):
    """The parts of a CharRNN, and a layer that keeps the fast kernels away."""

    alphabet = ALPHABET

    def __init__(self, cell: str = "lstm") -> None:
        super().__init__()
        self.inner = char_rnn(cell)
        self.scale = nn.Parameter(torch.ones(1))

    def run(self, symbols: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, state = self.inner(symbols, state)
        return logits * self.scale, state


class Stateful(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        return self.run(symbols, state)


class Nested(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        given = None if state is None else (state["layers"][0], state["layers"][1])
        logits, (hidden, cell) = self.run(symbols, given)
        return logits, {"layers": [hidden, cell]}


class Spread(Own):
    def forward(self, symbols: Tensor, hidden: Any = None, cell: Any = None) -> Any:
        logits, (hidden, cell) = self.run(symbols, None if hidden is None else (hidden, cell))
        return logits.reshape(-1, V), hidden, cell


class Asks(Own):
    """Must be given a state, which it makes itself."""

    def forward(self, symbols: Tensor, state: Any) -> Any:
        return self.run(symbols, state)

    def init_hidden(self, size: int) -> Any:
        shape = self.inner.config.layers, size, self.inner.config.hidden
        return torch.zeros(shape), torch.zeros(shape)


class Single(Asks):
    """Reads one symbol (B,) at a time, as char-rnn.pytorch's decoder does."""

    def forward(self, symbol: Tensor, state: Any) -> Any:
        logits, state = self.run(symbol.view(-1, 1), state)
        return logits[:, 0], state


class Stateless(Own):
    def forward(self, symbols: Tensor) -> Any:
        return {"logits": self.run(symbols)[0]}


class LastOnly(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return self.run(symbols)[0][:, -1]


class LastOnlyStateful(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        logits, state = self.run(symbols, state)
        return logits[:, -1], state


class Probabilities(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return self.run(symbols)[0].softmax(dim=-1)


class Small(nn.Module):
    """A GPT of one block with learned positions; ``causal=False`` makes it see all of the text."""

    alphabet = ALPHABET

    def __init__(self, *, causal: bool = True, longest: int = 80) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.symbols, self.places = nn.Embedding(V, 16), nn.Embedding(longest, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, V)
        self.causal = causal
        for weight in self.parameters():
            weight.data *= 2

    def forward(self, symbols: Tensor) -> Tensor:
        steps = symbols.shape[1]
        x = self.symbols(symbols) + self.places(torch.arange(steps))
        mask = nn.Transformer.generate_square_subsequent_mask(steps) if self.causal else None
        return self.head(self.block(x, src_mask=mask))


class Attentive(nn.Module):
    """A GPT as many write it: a mask in a buffer, positions by rotation, and a mean of all earlier places."""

    alphabet = ALPHABET

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.fused = fused
        self.symbols, self.gates, self.head = nn.Embedding(V, 16), nn.Linear(16, 48), nn.Linear(16, V)
        self.norm = nn.LayerNorm(16)
        self.register_buffer("mask", torch.ones(80, 80).tril().view(1, 1, 80, 80))
        for weight in self.parameters():
            weight.data *= 3

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])
        left, right = x.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)

    def forward(self, symbols: Tensor) -> Tensor:
        rows, steps = symbols.shape
        x = self.symbols(symbols)
        heads = (part.view(rows, steps, 2, 8).transpose(1, 2) for part in self.gates(x).split(16, dim=2))
        query, key, value = heads
        query, key = self.turned(query), self.turned(key)
        if self.fused:
            seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = (query @ key.transpose(-2, -1)) / 8**0.5
            scores = scores.masked_fill(self.mask[:, :, :steps, :steps] == 0, -torch.inf)
            seen = scores.softmax(dim=-1) @ value
        mean = self.mask[0, 0, :steps, :steps] @ x / torch.arange(1, steps + 1)[:, None]
        return self.head(self.norm(x + mean + seen.transpose(1, 2).reshape(rows, steps, 16)))


class Convolved(nn.Module):
    """Sees the last three symbols, through a convolution that is padded on the left."""

    alphabet = ALPHABET

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.symbols, self.layer, self.head = nn.Embedding(V, 16), nn.Conv1d(16, 16, 3), nn.Linear(16, V)
        for weight in self.parameters():
            weight.data *= 3

    def forward(self, symbols: Tensor) -> Tensor:
        x = nn.functional.pad(self.symbols(symbols).transpose(1, 2), (2, 0))
        return self.head(self.layer(x).transpose(1, 2).relu())


KINDS: dict[str, tuple[Callable[[], nn.Module], type]] = {
    "a state": (Stateful, StateStepper),
    "a GRU's state": (lambda: Stateful("gru"), StateStepper),
    "a nested state": (Nested, StateStepper),
    "two states": (Spread, StateStepper),
    "a state that it makes": (Asks, StateStepper),
    "one symbol at a time": (Single, StateStepper),
    "the last place, with a state": (LastOnlyStateful, StateStepper),
    "no state": (Stateless, TextStepper),
    "the last place": (LastOnly, TextStepper),
    "probabilities": (Probabilities, TextStepper),
    "a causal transformer": (Small, CachedStepper),
    "attention of its own": (Attentive, CachedStepper),
    "attention that torch has": (lambda: Attentive(fused=True), CachedStepper),
    "a convolution": (Convolved, TextStepper),
    "a transformer that sees all": (lambda: Small(causal=False), TextStepper),
}


def target(module: nn.Module, decoding: Decoding = GREEDY, **more: Any) -> ModuleTarget:
    return ModuleTarget(module, "mine", decoding, **more)


def written(module: ModuleTarget, prompt: np.ndarray) -> list[int]:
    """What a module writes alone, in the plainest loop there is."""
    text, read = torch.from_numpy(prompt.astype(np.int64))[None], len(prompt)
    caller = examine(module.module, "mine", V, 71).caller
    with torch.inference_mode():
        for step in range(module.decoding.max_new):
            logits = caller.whole(text)[:, -1]
            text = torch.cat([text, module.sampler.choose(step, logits)[:, None]], dim=1)
    return text[0, read:].tolist()


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_writes_what_the_module_says(kind: str, decoding: Decoding) -> None:
    make, stepper = KINDS[kind]
    mine = target(make(), decoding)
    assert type(mine._stepper) is stepper
    batch = rows(LENGTHS)
    tokens = mine.run(batch, frozenset({"tokens"}))["tokens"].tolist()
    assert tokens == [written(mine, batch.row(i)) for i in range(len(batch))]
    assert len({tuple(row) for row in tokens}) > 1


SAME = [kind for kind, (make, _) in KINDS.items() if isinstance(make, type) and issubclass(make, Own)]


@pytest.mark.parametrize("kind", SAME)
def test_a_module_shows_what_the_same_weights_in_a_folder_show(kind: str) -> None:
    mine, folder = target(KINDS[kind][0](), SAMPLED), RNNTarget(char_rnn(), SAMPLED)
    wants = frozenset({"text", "logprob", "entropy", "hidden_steps", "hidden_mean", "hidden_last"})
    gaps = frozenset({"phrase_gap//ab", "phrase_gap/fw/bad", "phrase_gap/w/a"})
    batch = rows(LENGTHS)
    got, wanted = mine.run(batch, wants | gaps), folder.run(batch, wants | gaps)
    assert got["text"].tolist() == wanted["text"].tolist()
    with_state = isinstance(mine._stepper, StateStepper)
    for name in (wants | gaps) - {"text"} - (set() if with_state else {"hidden_last"}):
        np.testing.assert_allclose(got[name], wanted[name], atol=2e-4, err_msg=name)


def recognisable(kind: type, *, embedded: bool = True, first: bool = True, **more: Any) -> nn.Module:
    class Plainly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.alphabet = list(ALPHABET)
            self.table = nn.Embedding(V + 2, 6) if embedded else None
            self.rnn = kind(6 if embedded else V, 10, batch_first=first, **more)
            self.drop, self.out = nn.Dropout(0.5), nn.Linear(10, V, bias=embedded)
            for weight in self.parameters():
                weight.data *= 3

        def forward(self, symbols: Tensor, state: Any = None) -> Any:
            x = self.table(symbols) if self.table else nn.functional.one_hot(symbols, V).float()
            hidden, state = self.rnn(x if first else x.transpose(0, 1), state)
            return self.out(self.drop(hidden if first else hidden.transpose(0, 1))), state

    return Plainly()


RECOGNISABLE = [
    (nn.LSTM, {"num_layers": 2, "dropout": 0.2}), (nn.GRU, {"embedded": False}), (nn.RNN, {"num_layers": 3}),
    (nn.RNN, {"nonlinearity": "relu", "first": False}), (nn.LSTM, {"bias": False}),
    (nn.GRU, {"bias": False, "first": False, "num_layers": 2}), (nn.LSTM, {"embedded": False}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "more"), RECOGNISABLE)
def test_known_structures_are_run_by_the_fast_kernels(kind: type, more: dict[str, Any]) -> None:
    module = recognisable(kind, **more)
    mine = target(module)
    assert isinstance(mine._stepper, RNNStepper)
    batch = rows(LENGTHS)
    got = mine.run(batch, frozenset({"tokens", "logprob"}))
    for i in range(len(batch)):
        text = batch.row(i).tolist()
        with torch.inference_mode():
            for step in range(7):
                best = module(torch.tensor([text]))[0][0, -1].log_softmax(0).max(dim=0)
                np.testing.assert_allclose(got["logprob"][i, step], best.values, atol=1e-4)
                text.append(int(best.indices))
        assert got["tokens"][i].tolist() == text[-7:]


def test_what_looks_known_but_is_not_is_run_as_it_is() -> None:
    class Twice(type(recognisable(nn.LSTM))):  # type: ignore[misc]
        def forward(self, symbols: Tensor, state: Any = None) -> Any:
            logits, state = super().forward(symbols, state)
            return logits.sin() * 3, state

    assert isinstance(target(Twice())._stepper, StateStepper)
    assert isinstance(target(recognisable(nn.LSTM).bfloat16())._stepper, StateStepper)


@pytest.mark.parametrize("kind", ["a state", "a causal transformer", "a transformer that sees all"])
def test_a_module_and_its_twin_are_compared_step_by_step(kind: str) -> None:
    mine = target(KINDS[kind][0]())
    other = mine.like(make_twin(mine.module, "int4").module, "twin")
    both = pair(mine, other)
    assert isinstance(both, TextPair)
    shown = both.run(rows(LENGTHS), frozenset({"kl", "twin_lead", "parting", "text", "base/text"}))
    assert (shown["kl"] > 0).any()
    agree = [a == b for a, b in zip(shown["text"], shown["base/text"], strict=True)]
    assert agree == (shown["parting"] < 0).tolist()


class Cropped(Small):
    """Reads the last 20 symbols only, which no short text shows."""

    def forward(self, symbols: Tensor) -> Tensor:
        before = symbols.shape[1] - 20
        if before <= 0:
            return super().forward(symbols)
        return torch.cat([torch.zeros(len(symbols), before, V), super().forward(symbols[:, -20:])], dim=1)


def test_what_only_long_texts_show_is_seen() -> None:
    mine = target(Cropped())
    batch = Batch.of([np.arange(n, dtype=np.int32) % V for n in (30, 4)])
    tokens = mine.run(batch, frozenset({"tokens"}))["tokens"].tolist()
    assert tokens == [written(mine, batch.row(i)) for i in range(2)]


@pytest.mark.parametrize("kind", ["a causal transformer", "attention of its own"])
def test_gaps_from_caches_are_those_from_whole_texts(kind: str) -> None:
    mine = target(KINDS[kind][0](), SAMPLED)
    conduct = examine(mine.module, "mine", V, 71)
    plain = CharacterTarget(mine.module, ALPHABET, TextStepper(mine.module, conduct), SAMPLED, (1, 64))
    wants = frozenset({"phrase_gap//ab", "phrase_gap/fw/bad", "hidden_steps", "text", "entropy"})
    batch = rows(LENGTHS)
    got, wanted = mine.run(batch, wants), plain.run(batch, wants)
    assert got["text"].tolist() == wanted["text"].tolist()
    for name in wants - {"text"}:
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-3, err_msg=name)
    long = Batch.of([np.arange(60) % V, np.arange(3)])  # the caches must grow
    assert mine.sample(long, 9, 1.0, np.random.default_rng(0)).shape == (2, 9)


def test_notes_say_why_a_module_is_slow() -> None:
    assert target(Stateful()).info.notes == ()
    assert "not causal" in target(Small(causal=False)).info.notes[0]
    assert "last place only" in target(LastOnly()).info.notes[0]
    assert "takes no state" in target(Convolved()).info.notes[0]
    assert "probabilities" in target(Probabilities()).info.notes[0]


# -- refused, in one sentence each --


class Remembers(Own):
    state: Any = None

    def forward(self, symbols: Tensor) -> Tensor:
        fits = self.state is not None and self.state[0].shape[1] == len(symbols)
        logits, self.state = self.run(symbols, self.state if fits else None)
        return logits


class Drops(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return nn.functional.dropout(self.run(symbols)[0], 0.5)


class TimeFirst(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        return self.run(symbols.T)[0].transpose(0, 1)


class InPlace(Own):
    def forward(self, symbols: Tensor, state: Any = None) -> Any:
        logits, new = self.run(symbols, state)
        if state is not None:
            state[0].copy_(new[0])
        return logits, state if state is not None else new


class Ragged(Own):
    def forward(self, symbols: Tensor) -> Tensor:
        logits = self.run(symbols)[0]
        return logits if symbols.shape[1] > 1 else logits[:, :, :-1]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "remembers": (Remembers, "other logits when it reads the same symbols again: it keeps a state"),
    "drops": (Drops, "draws random numbers"),
    "time first": (
        TimeFirst,
        "depends on the other rows of the batch, as with an nn.LSTM without batch_first",
    ),
    "in place": (InPlace, "changes the state that it is given in place; it must return a new one"),
    "ragged": (Ragged, f"gives (2, 1, {V - 1}) for symbols (2, 1); it must give (2, 1, {V})"),
    "short": (lambda: Small(longest=40), "cannot read 71 symbols, which a prompt and its output can have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_the_text_is_refused(name: str) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(TargetError) as caught:
        target(make())
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


# -- alphabets --


def test_alphabets_are_texts_lists_and_dicts_either_way() -> None:
    assert symbols_of("ab\n", "m") == ("a", "b", "\n")
    assert symbols_of(["<s>", "a", "b"], "m") == ("<s>", "a", "b")
    assert symbols_of({"b": 1, "a": 0}, "m") == ("a", "b")
    assert symbols_of({1: "a", 2: "b"}, "m") == ("", "a", "b")
    assert symbols_of({"0": "a", "1": "b"}, "m") == ("a", "b")


@pytest.mark.parametrize(
    ("alphabet", "sentence"),
    [
        ("aba", "the alphabet has 'a' twice, as symbols 0 and 2"),
        ("a", "two or more characters"),
        (["<s>", "</s>"], "two or more characters"),
        ([1, 2], "holds 1, which is not a text"),
        ({"a": 0, "b": 0}, "one number for each character"),
        ({"a": "b", "c": "d"}, "one number for each character"),
        (7, "must be a text, a list or a dict, not int"),
    ],
)
def test_a_wrong_alphabet_is_refused(alphabet: Any, sentence: str) -> None:
    with pytest.raises(TargetError, match=re.escape(sentence)):
        symbols_of(alphabet, "m")


class Special(Stateful):
    """Has symbols of several characters: its prompts begin after <s>, its texts end with </s>."""

    alphabet = ("<s>", "</s>", *ALPHABET[2:])  # type: ignore[assignment]
    bos_token, eos_token = "<s>", "</s>"


def test_special_symbols_are_in_no_prompt_but_begin_and_end_texts() -> None:
    decoding = Decoding(max_new=40, temperature=0.8)
    mine, plain = target(Special(), decoding), target(Stateful(), decoding)
    assert mine.identity != plain.identity
    rng = np.random.default_rng(0)
    assert mine.space.draw(rng, (500,)).min() == 2
    batch = Batch.of([mine.space.draw(rng, (n,)) for n in LENGTHS])
    assert mine.sample(batch, 40, 2.0, rng).min() >= 2
    begun = Batch.of([np.insert(batch.row(i), 0, 0) for i in range(len(batch))])
    wants = frozenset({"tokens", "logprob", "ended", "text", "token_ends"})
    got, wanted = mine.run(batch, wants), plain.run(begun, wants)
    for i in range(len(batch)):
        row = wanted["tokens"][i].tolist()
        stop = row.index(1) if 1 in row else len(row)
        assert got["tokens"][i].tolist() == row[:stop] + [PAD] * (len(row) - stop)
        assert got["ended"][i] == (1 in row)
        assert got["text"][i] == "".join(Special.alphabet[s] for s in row[:stop])
        sizes = np.cumsum([len(Special.alphabet[s]) for s in row[:stop]])
        assert got["token_ends"][i, :stop].tolist() == sizes.tolist()
    assert got["ended"].any()
    assert take(got, [0])["text"][0] == got["text"][0]


def test_wrapped_and_scripted_modules_are_run_as_what_they_wrap() -> None:
    batch, wants = rows(LENGTHS), frozenset({"tokens"})
    wanted = target(Convolved()).run(batch, wants)["tokens"].tolist()
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated, but still in use
        scripted = WithAlphabet(torch.jit.script(Convolved()), ALPHABET)
    for module in (nn.DataParallel(Convolved()), scripted):
        assert target(module).run(batch, wants)["tokens"].tolist() == wanted


def test_a_class_is_not_a_module() -> None:
    with pytest.raises(TargetError, match="m gives the class Small; it must give an instance of it"):
        as_target(Small, "m", Spec())


def test_campaigns_of_earlier_versions_see_logits() -> None:
    assert stored({}, "a campaign").states == "logits"
    assert stored(Spec().model_dump(), "a campaign").states == "hidden"
    batch, wants = rows(LENGTHS), frozenset({"hidden_last"})
    before = target(Stateful(), logits_only=True)
    with torch.inference_mode():
        wanted = before.module(torch.from_numpy(batch.row(2)).long()[None])[0][0, -1]
    np.testing.assert_allclose(before.run(batch, wants)["hidden_last"][2], wanted, atol=1e-5)
    assert before.identity == target(Stateful()).identity
