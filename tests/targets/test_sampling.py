"""How text is decoded, whatever the model is: settings, and the scores that tokens are the largest of."""

import numpy as np
import pytest
import torch

from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.spec import Spec
from lmfuzz.targets.sampling import NEVER, Decoding, TokenSampler, characters, distribution, first_stop
from lmfuzz.types import PAD


def test_decoding_takes_its_settings_from_a_spec_by_their_names() -> None:
    spec = Spec(max_new=7, temperature=0.5, decode_seed=3, stop=["x", "y"])
    assert Decoding.of(spec) == Decoding(7, 0.5, 3, ("x", "y"))
    assert Decoding.of(Spec()) == Decoding()


@pytest.mark.parametrize("stepwise", [False, True])
def test_scores_are_one_step_at_a_time_what_they_are_for_all_steps(stepwise: bool) -> None:
    sampler = TokenSampler(Decoding(6, 0.9, seed=2), 11, stepwise=stepwise)
    logits = torch.randn((6, 4, 11), generator=torch.Generator().manual_seed(0))
    whole = sampler.scores(logits)
    order = torch.tensor([5, 0, 3, 3])
    assert torch.equal(sampler.scores(logits[order, 0], order), whole[order, 0])
    for step in range(6):
        assert torch.equal(sampler.scores(logits[step], step), whole[step])
        assert torch.equal(sampler.choose(step, logits[step]), whole[step].argmax(dim=1))
    assert TokenSampler(Decoding(6), 11, stepwise=stepwise).scores(logits) is logits


def test_the_first_stop_string_counts_wherever_it_stands_in_the_list() -> None:
    texts, stops = ["abcabc", "ccc", "", "bcx"], ["ca", "bc"]
    assert first_stop(texts, stops).tolist() == [1, NEVER, NEVER, 0]
    assert first_stop(texts, stops, past=True).tolist() == [3, NEVER, NEVER, 2]
    assert first_stop(texts, []).tolist() == [NEVER] * 4


def test_characters_after_a_stop_string_are_none() -> None:
    written = np.array([[0, 1, 2, 0], [2, 2, 2, 2]])
    trace, ended = characters(TextSpace(tuple("abc")), written, ["bc"])
    assert trace["text"].tolist() == ["a", "cccc"]
    assert trace["tokens"].tolist() == [[0, PAD, PAD, PAD], [2, 2, 2, 2]]
    assert trace["token_ends"].tolist() == [[1, PAD, PAD, PAD], [1, 2, 3, 4]]
    assert trace["ended"].tolist() == [True, False]
    assert ended.tolist() == [[False, True, True, True], [False] * 4]


def test_a_symbol_that_cannot_be_written_adds_nothing_to_the_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, torch.nan, 0.0]])
    shown = distribution(logits, torch.tensor([1, 0]), {"entropy", "logprob"})
    assert shown["entropy"].tolist()[0] == pytest.approx(np.log(2))
    assert shown["logprob"].tolist()[0] == pytest.approx(-np.log(2))
    assert shown["entropy"].isnan().tolist() == shown["logprob"].isnan().tolist() == [False, True]
    assert distribution(logits, torch.tensor([1, 0]), {"text"}) == {}
