"""How far a causal language model was from a phrase, against adding up plain passes for every spelling."""

import re

import numpy as np
import pytest
import torch

from helpers import small_lms
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import UsageError
from lmfuzz.objectives.phrases import Phrases
from lmfuzz.targets.hf.phrase_gap import FIRST, spellings
from lmfuzz.targets.rnn.phrase_gap import LATER, Phrase

torch.set_num_threads(1)

PROMPTS = ["How now, my lord", "A", "Speak again, thou run ", "the moon and the stars are", "king"]


def letter(text):
    return text.isalnum() or text == "_"


def gap(target, prompt, written, place, spelling, whole):
    """The sum along ``spelling`` behind ``prompt`` and the first ``place`` tokens written, token by token."""
    text, total = prompt + written[:place], 0.0
    symbols = target.vocabulary
    if whole and spelling.joined and letter(symbols[text[-1]][-1:]):
        return -np.inf
    for i, token in enumerate([*spelling.tokens, None]):
        if token is None and not whole:
            break
        with torch.inference_mode():
            logits = target.module(input_ids=torch.tensor([text])).logits[0, -1].float()
        logits = target.sampler.scores(logits, place + i)
        if token is None:
            over = torch.tensor([not letter(symbol[:1]) for symbol in symbols])
            total += float(logits[over].max() - logits.max())
        else:
            total += float(logits[token] - logits.max())
            text = [*text, token]
    return total


def first(target, prompt, written, place, spelling, whole):
    """The gap of the spelling's first token alone."""
    text = prompt + written[:place]
    if whole and spelling.joined and letter(target.vocabulary[text[-1]][-1:]):
        return -np.inf
    with torch.inference_mode():
        logits = target.module(input_ids=torch.tensor([text])).logits[0, -1].float()
        logits = target.sampler.scores(logits, place)
    return float(logits[spelling.tokens[0]] - logits.max())


def slowly(target, prompt, written, channel):
    """What causal_gaps.py says of itself, word for word."""
    phrase = Phrase.parse(channel)
    group, steps = spellings(phrase, target._tokens), target.decoding.max_new
    near = sorted(group, key=lambda s: -first(target, prompt, written, 0, s, phrase.whole))[:FIRST]
    best = max(gap(target, prompt, written, 0, s, phrase.whole) for s in near)
    later = [
        (first(target, prompt, written, place, s, phrase.whole), -i, -place)
        for i, s in enumerate(group)
        for place in range(1, len(written))
        if place + len(s.tokens) <= steps
    ]
    if later:
        _, i, place = max(later)
        best = max(best, gap(target, prompt, written, -place, group[-i], phrase.whole) - LATER)
    return best


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "phi3", "gemma3_text"])
@pytest.mark.parametrize("more", [{}, {"temperature": 0.8}, {"chat": True, "system": "Be brief"}])
@pytest.mark.parametrize("channel", ["phrase_gap/fw/king", "phrase_gap//the moon", "phrase_gap/w/!"])
def test_gaps_are_what_adding_up_by_hand_gives(kind, more, channel):
    target = small_lms.target(kind, max_new=6, ends=tuple(range(0, 400, 25)), **more)
    batch = target.space.batch([target.space.encode(prompt) for prompt in PROMPTS])
    trace = target.run(batch, frozenset({"tokens", channel, "phrase_gap/f/zounds"}))
    for i, prompt in enumerate(target._prompts(batch)):
        written = [token for token in trace["tokens"][i].tolist() if token >= 0]
        assert trace[channel][i] == pytest.approx(slowly(target, prompt, written, channel), abs=2e-3)


def test_what_greedy_decoding_writes_has_no_gap():
    target = small_lms.target("llama", ends=())
    batch = target.space.batch([target.space.encode(prompt) for prompt in PROMPTS])
    written = target.run(batch, frozenset({"text"}))["text"]
    found = 0
    for i, text in enumerate(written):
        word = text[:4]
        if not word.isascii() or not word.isprintable():
            continue
        try:
            trace = target.run(batch[i : i + 1], frozenset({f"phrase_gap//{word}"}))
        except UsageError:
            continue
        found += 1
        assert trace[f"phrase_gap//{word}"][0] <= 1e-4
    assert found


@pytest.mark.parametrize("more", [{}, {"chat": True}, {"level": "token"}])
def test_gaps_and_hits_agree_on_what_begins_in_the_prompt(more):
    target = small_lms.target("llama", ends=(), model_seed=1, **more)
    executor, told, seen = LocalExecutor(target), ["king", "king ", "king-", "caf\u00e9", "\u4e16"], set()
    batch = target.space.batch([target.space.encode(prompt) for prompt in told])
    for i, text in enumerate(executor.run(batch, frozenset({"text"}))["text"]):
        if (first := re.match(r"\w+(?!\w)", text)) and first.end() < len(text):
            judge, one = Phrases([first.group()], fold=False, echo=True), batch[i : i + 1]
            try:
                trace = executor.run(one, judge.needs.union(*judge.grades))
            except UsageError:  # the tokenizer cannot spell it
                continue
            hit = judge(one, trace)[0, 0] > 0
            again = re.search(rf"(?<!\w){first.group()}(?!\w)", text[first.end() :])
            assert hit == ("chat" in more or not letter(told[i][-1]) or again is not None)
            assert hit or trace[f"phrase_gap/w/{first.group()}"][0] < -1e-3
            seen.add(hit)
    assert seen


def test_spellings_have_blanks_and_cases():
    tokens = small_lms.tokens()
    plain = spellings(Phrase.parse("phrase_gap//king"), tokens)
    folded = spellings(Phrase.parse("phrase_gap/f/king"), tokens)
    texts = {"".join(tokens.symbols[token] for token in s.tokens): s.joined for s in folded}
    assert texts == {" king": False, "king": True, " King": False, "King": True, " KING": False, "KING": True}
    assert {"".join(tokens.symbols[t] for t in s.tokens) for s in plain} == {" king", "king"}
    assert [s.joined for s in spellings(Phrase.parse("phrase_gap//!?"), tokens)] == [False, False]


def test_a_phrase_that_the_tokenizer_cannot_spell_is_refused():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from lmfuzz.inputs.tokenizer import Tokens

    made = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, ",": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    assert spellings(Phrase.parse("phrase_gap//a"), Tokens(made.to_str()))[0].tokens == (1,)
    with pytest.raises(UsageError, match="cannot write 'king'"):
        spellings(Phrase.parse("phrase_gap//king"), Tokens(made.to_str()))


def test_phrases_longer_than_the_output_are_graded_after_the_prompt_alone():
    target = small_lms.target("gpt2", max_new=2)
    batch = target.space.batch([target.space.encode(prompt) for prompt in PROMPTS])
    channel = "phrase_gap//a phrase that is far too long to be written in two tokens"
    assert np.isfinite(target.run(batch, frozenset({channel}))[channel]).all()
