"""Tokens read again and again: the same probabilities as by the plain model, whatever its family."""

import numpy as np
import pytest
import torch

from helpers.small_lms import VOCABULARY, target
from lmfuzz.targets.hf.repeat_probe import Repeating

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom", "mamba"])
@pytest.mark.parametrize("prefix", [[], [0, 7]])
def test_it_is_what_the_model_itself_says(kind, prefix):
    reader = target(kind).reader
    ask = Repeating(reader, prefix, batch_tokens=100)
    some = np.array([5, 0, VOCABULARY - 1, *range(40, 55)], np.int32)
    batches = list(ask(some))
    assert np.concatenate([tokens for tokens, _ in batches]).tolist() == some.tolist()
    assert len(batches[0][0]) == 100 // (len(prefix) + 16)
    for token, probability in zip(
        some.tolist(), np.concatenate([found for _, found in batches]), strict=True
    ):
        with torch.no_grad():
            logits = reader.model(input_ids=torch.tensor([[*prefix, *[token] * 16]])).logits[0, -2:]
        expected = logits.softmax(dim=1)[:, token].max()
        assert probability == pytest.approx(float(expected), rel=1e-3, abs=1e-7)


def test_a_small_window_holds_fewer_repeats(monkeypatch):
    reader = target("llama").reader
    monkeypatch.setattr(reader.config, "max_position_embeddings", 9)
    ask = Repeating(reader, [0, 3])
    assert (ask.repeats, ask.places) == (7, 2)
    ((tokens, probability),) = ask(np.array([8, 9], np.int32))
    assert tokens.tolist() == [8, 9]
    assert ((probability >= 0) & (probability <= 1)).all()
    monkeypatch.setattr(reader.config, "max_position_embeddings", 3)
    assert (Repeating(reader, [0, 3]).repeats, Repeating(reader, [0, 3]).places) == (1, 1)


def test_nothing_asked_is_nothing_read():
    assert list(Repeating(target("llama").reader)(np.empty(0, np.int32))) == []
