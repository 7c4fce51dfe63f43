"""What is refused of a user's own modules and alphabets, in one sentence each."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.own_modules import Convolved, Own, Small, V
from helpers.plain import ALPHABET, rows
from lmfuzz.errors import TargetError
from lmfuzz.spec import Spec
from lmfuzz.targets.kinds import as_target
from lmfuzz.targets.modules.target import ModuleTarget, symbols_of
from lmfuzz.targets.modules.wrapped import WithAlphabet
from lmfuzz.targets.sampling import Decoding

LENGTHS = (4, 1, 9, 4, 6)


def target(module: nn.Module) -> ModuleTarget:
    return ModuleTarget(module, "mine", Decoding(max_new=7))


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
