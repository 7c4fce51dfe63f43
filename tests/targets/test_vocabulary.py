"""Tokens by their embeddings: which are alike, which were never learnt, and which no text spells."""

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from helpers import planted
from lmfuzz.inputs.tokenizer import Tokens
from lmfuzz.targets.hf import vocabulary as module
from lmfuzz.targets.hf.loader import CausalFolder
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.hf.vocabulary import DISTANCE, LOGIT, NORM, Vocabulary
from lmfuzz.targets.sampling import Decoding

torch.set_num_threads(1)


class Table:
    """In the place of a Reader: two embeddings, and a model that nobody runs."""

    def __init__(self, read, written=None):
        self.model, self.size = self, len(read)
        self._read = torch.nn.Embedding.from_pretrained(read)
        self._head = torch.nn.Linear(*read.shape[::-1], bias=False)
        self._head.weight = torch.nn.Parameter(read if written is None else written, requires_grad=False)

    def get_input_embeddings(self):
        return self._read

    def get_output_embeddings(self):
        return self._head


def words(*names, special=()):
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken(name) for name in special])
    return Tokens(made.to_str())


def random(size, seed=0, width=16):
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def learnt(tied):
    found = CausalFolder(planted.model(tied), Tokens(planted.tokenizer().to_str()), (0,))
    return CausalLM(found, "planted", Decoding(max_new=4), HFOptions(level="token"), max_length=8)


@pytest.mark.parametrize("tied", [True, False])
def test_tokens_that_training_never_showed_come_first(tied):
    lexicon = learnt(tied).lexicon
    assert lexicon.tied is tied
    assert lexicon.measure == (DISTANCE if tied else NORM)
    never = {*planted.NEVER, *planted.HIGH, planted.SIZE, planted.SIZE + 1, planted.SIZE + 2}
    order = np.argsort(lexicon.indicator, kind="stable").tolist()
    assert set(order[: len(never)]) == never
    assert lexicon.rare.tolist() == [i for i in order if i in planted.NEVER]
    assert lexicon.rare.dtype == np.int32
    assert lexicon.threshold == lexicon.indicator[list(planted.NEVER)].max()


def test_without_unused_tokens_those_that_are_seldom_written_come_first():
    target = learnt(True)
    lexicon = target.lexicon
    lexicon.unused = np.empty(0, np.int32)  # as of a tokenizer that has none
    assert lexicon.measure == LOGIT
    assert set(lexicon.rare.tolist()) == set(planted.NEVER)


def test_the_unused_are_found_by_their_names_and_their_bytes():
    lexicon = learnt(True).lexicon
    names = [lexicon.names[i] for i in lexicon.unused]
    assert names[-3:] == [None] * 3  # rows of no token
    assert [ord(name) for name in names[:-3]] == [0xC0, 0xC1, *range(0xF5, 0x100)]
    reserved = ["<unused12>", "[unused3]", "<|reserved_special_token_7|>", "<0xC1>"]
    plain = ["the", "unused", "\u00c0", "<b>"]  # À is a character where tokens are no bytes
    tokens = words("a", *plain, *reserved)
    found = Vocabulary(Table(random(len(plain) + len(reserved) + 1)), tokens)
    assert [found.names[i] for i in found.unused] == reserved[:3]
    assert [found.kinds[i] for i in (1, 2, 3, 4)] == ["ordinary"] * 4
    assert [found.kinds[i] for i in found.unused] == ["special"] * 3


def test_kinds_say_what_a_text_can_make_of_a_token():
    lexicon = learnt(True).lexicon
    assert lexicon.kinds[0] == "special"
    assert {lexicon.kinds[i] for i in planted.HIGH} == {"part of a character"}
    assert {lexicon.kinds[i] for i in planted.NEVER} == {"ordinary"}
    assert lexicon.kinds[planted.SIZE :] == ("unreachable",) * 3
    assert len(lexicon.ids) == planted.SIZE
    lost = words("a", "b", "two words", "c", special=["<s>"])
    found = Vocabulary(Table(random(5)), lost)
    assert found.kinds == ("ordinary", "ordinary", "unreachable", "ordinary", "special")
    assert found.unspelled.tolist() == [2, 4]


def test_rows_of_zeros_are_the_least_trained():
    rows = random(40)
    rows[[3, 30]] = 0
    names = ["a", *(f"w{i}" for i in range(1, 38)), "<unused0>", "<unused1>"]
    found = Vocabulary(Table(rows), words(*names))
    assert found.measure == DISTANCE
    assert found.indicator[[3, 30]].tolist() == [0, 0]
    assert found.rare.tolist() == [3, 30]


@pytest.mark.parametrize("block", [7, 16_384])
def test_neighbours_are_those_of_the_largest_cosine(block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    rows, names = random(60), ["a", *(f"w{i}" for i in range(1, 59))]
    tokens = words(*names, special=["<s>"])
    lexicon = Vocabulary(Table(rows), tokens)
    unit = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    asked = np.array([5, 40, 5, 59, 0, *range(10, 30)])
    found = lexicon.neighbours(asked, 6)
    assert found.shape == (len(asked), 6)
    assert found.dtype == np.int32
    for token, near in zip(asked.tolist(), found.tolist(), strict=True):
        close = unit[:59] @ unit[token]  # 59 is special
        close[token if token < 59 else []] = -2
        assert near == np.argsort(-close, kind="stable")[:6].tolist()
    for token, near in zip(asked.tolist(), found.tolist(), strict=True):  # whatever it is asked with
        assert Vocabulary(Table(rows), tokens).neighbours(np.array([token]), 6)[0].tolist() == near


def test_neighbours_are_computed_once_and_end_with_the_token_itself(monkeypatch):
    lexicon = Vocabulary(Table(random(4)), words("a", "b", "c", "d"))
    found = lexicon.neighbours(np.array([1]), 5)
    assert sorted(found[0, :3].tolist()) == [0, 2, 3]
    assert found[0, 3:].tolist() == [1, 1]
    monkeypatch.setattr(lexicon, "_nearest", None)
    assert (lexicon.neighbours(np.array([1, 1]), 5) == found).all()
    assert lexicon.neighbours(np.empty(0, np.int32), 5).shape == (0, 5)
