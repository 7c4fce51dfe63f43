"""How text is decoded, whatever the model is: settings, and the scores that tokens are the largest of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helpers import small_lms
from helpers.plain import ALPHABET, SYMBOLS, char_rnn, gumbel, rows
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.spec import Spec
from lmfuzz.targets.modules.target import ModuleTarget, RNNTarget
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


def reference(logits: Tensor, decoding: Decoding) -> Tensor:
    """The scores that transformers' own processors, in the order of ``generate``, sample from."""
    processors = [TemperatureLogitsWarper(decoding.temperature)]
    if decoding.top_k:
        processors.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        processors.append(TopPLogitsWarper(decoding.top_p))
    return LogitsProcessorList(processors)(torch.zeros(len(logits), 1, dtype=torch.int64), logits)


RESTRICTED = [
    Decoding(6, 0.8, 3, top_k=1), Decoding(6, 0.8, 3, top_k=4), Decoding(6, 1.7, 3, top_p=0.5),
    Decoding(6, 1.7, 3, top_k=7, top_p=0.9), Decoding(6, 0.3, 3, top_k=10**6, top_p=0.999),
]  # fmt: skip


@pytest.mark.parametrize("decoding", RESTRICTED)
@pytest.mark.parametrize("stepwise", [False, True])
def test_top_k_and_top_p_sample_from_what_transformers_samples_from(
    decoding: Decoding, stepwise: bool
) -> None:
    logits = 4 * torch.randn(6, 32, 50, generator=torch.Generator().manual_seed(0))
    logits[:, ::2, 7] = -torch.inf  # a token that there is not
    sampler = TokenSampler(decoding, 50, stepwise=stepwise)
    unrestricted = TokenSampler(replace(decoding, top_k=0, top_p=1.0), 50, stepwise=stepwise)
    for step in range(6):
        allowed = reference(logits[step], decoding).isfinite()
        wanted = unrestricted.scores(logits[step], step).masked_fill(~allowed, -torch.inf).argmax(dim=1)
        assert torch.equal(sampler.choose(step, logits[step]), wanted)
    whole = sampler.scores(logits)
    assert torch.equal(whole[3], sampler.scores(logits[3], 3)), "noise belongs to the step"
    assert whole[:, 1::2].isfinite().all(), "what is left out is graded, too"


def test_sampling_with_top_k_draws_from_the_renormalized_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    decoding = Decoding(40_000, 1.3, 5, top_k=3)
    drawn = TokenSampler(decoding, 4).scores(logits.expand(40_000, 1, 4)).argmax(dim=2)
    found = torch.bincount(drawn.flatten(), minlength=4) / 40_000
    wanted = torch.cat([(logits[:3] / 1.3).softmax(0), torch.zeros(1)])
    assert torch.allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize("decoding", RESTRICTED)
def test_char_rnns_and_modules_write_within_top_k_and_top_p(decoding: Decoding) -> None:
    rnn = char_rnn()
    batch, noise = rows([3, 9, 1, 5]), gumbel(3, 6, SYMBOLS, decoding.temperature)
    texts = []
    for i in range(len(batch)):
        symbols = batch.row(i).tolist()
        for step in range(6):
            logits = rnn(torch.tensor([symbols]))[0][:, -1]
            allowed = reference(logits, decoding).isfinite()
            symbols.append(int((logits + noise[step]).masked_fill(~allowed, -torch.inf).argmax()))
        texts.append("".join(ALPHABET[symbol] for symbol in symbols[-6:]))
    targets = [RNNTarget(rnn, decoding), ModuleTarget(rnn, "module", decoding)]
    for target in targets:
        assert target.run(batch, frozenset({"text"}))["text"].tolist() == texts


@pytest.mark.parametrize("decoding", RESTRICTED)
def test_hugging_face_models_write_within_top_k_and_top_p(decoding: Decoding) -> None:
    target = small_lms.target("gpt2", level="token", **vars(decoding))
    batch = target.space.batch([np.array(row, np.int32) for row in ([5, 9, 7], [8], [6, 6, 5, 9, 8])])
    written = target.run(batch, frozenset({"tokens"}))["tokens"]
    noise = TokenSampler(replace(decoding, top_k=0, top_p=1.0), target.reader.size, stepwise=True).noise
    for i in range(len(batch)):
        symbols = batch.row(i).tolist()
        for step, token in enumerate(written[i].tolist()):
            if token == PAD:
                break
            with torch.inference_mode():
                logits = target.module(torch.tensor([symbols])).logits[:, -1, : target.reader.size].float()
            allowed = reference(logits, decoding).isfinite()
            assert int((logits + noise(step)).masked_fill(~allowed, -torch.inf).argmax()) == token
            symbols.append(token)


def test_top_k_and_top_p_need_a_temperature_and_change_the_identity_alone_when_they_are_set() -> None:
    with pytest.raises(UsageError, match="set a temperature above 0 too"):
        Spec(top_k=5)
    assert Decoding(top_k=5).key == "Decoding(max_new=50, temperature=0.0, seed=0, stop=(), top_k=5)"
    assert Decoding().key == "Decoding(max_new=50, temperature=0.0, seed=0, stop=())"
