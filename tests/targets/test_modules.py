"""Torch modules of a user's own: every way to call them, what they show, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.own_modules import (
    Asks,
    Attentive,
    Convolved,
    Cropped,
    LastOnly,
    LastOnlyStateful,
    Nested,
    Own,
    Probabilities,
    Single,
    Small,
    Spread,
    Stateful,
    Stateless,
    V,
)
from helpers.plain import ALPHABET, char_rnn, rows
from lmfuzz.spec import Spec, stored
from lmfuzz.targets.modules.cached import CachedStepper
from lmfuzz.targets.modules.characters import CharacterTarget
from lmfuzz.targets.modules.examine import examine
from lmfuzz.targets.modules.steppers import StateStepper, TextStepper
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget
from lmfuzz.targets.rnn.step import RNNStepper
from lmfuzz.targets.sampling import Decoding
from lmfuzz.targets.twins.compress import make_twin
from lmfuzz.targets.twins.pair import TextPair, pair
from lmfuzz.types import PAD, Batch, take

LENGTHS = (4, 1, 9, 4, 6)
GREEDY, SAMPLED = Decoding(max_new=7), Decoding(max_new=7, temperature=0.8)


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


def test_campaigns_of_earlier_versions_see_logits() -> None:
    assert stored({}, "a campaign").states == "logits"
    assert stored(Spec().model_dump(), "a campaign").states == "hidden"
    batch, wants = rows(LENGTHS), frozenset({"hidden_last"})
    before = target(Stateful(), logits_only=True)
    with torch.inference_mode():
        wanted = before.module(torch.from_numpy(batch.row(2)).long()[None])[0][0, -1]
    np.testing.assert_allclose(before.run(batch, wants)["hidden_last"][2], wanted, atol=1e-5)
    assert before.identity == target(Stateful()).identity
