"""Phrase gaps against the slow definition, written down from the words of the module."""

import math
import re

import numpy as np
import pytest
import torch

from helpers.plain import ALPHABET, char_rnn, gumbel, rows
from lmfuzz.errors import UsageError
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.targets.rnn.phrase_gap import LATER
from lmfuzz.targets.sampling import Decoding

torch.set_num_threads(1)

STEPS = 10
RAGGED = [1, 5, 2, 17, 9, 1, 12, 3]
WORD = [i for i, c in enumerate(ALPHABET) if re.match(r"\w", c)]
CLOSE = {"rtol": 1e-4, "atol": 2e-4}


class Slow:
    """One model's gaps, a symbol, a phrase and a row at a time."""

    def __init__(self, model, steps=STEPS, temperature=0.0, seed=0):
        self.model, self.steps, self.read = model, steps, {}
        noise = gumbel(seed, steps, len(ALPHABET), temperature)
        self.noise = noise if temperature else torch.zeros_like(noise)

    @torch.inference_mode()
    def after(self, symbols):
        """Logits and state of the module after these symbols."""
        if symbols not in self.read:
            state = self.after(symbols[:-1])[1] if len(symbols) > 1 else None
            logits, state = self.model(torch.tensor([[symbols[-1]]]), state)
            self.read[symbols] = logits[0, 0], state
        return self.read[symbols]

    def logits(self, prompt, text):
        """What is decoded from after ``text``; beyond the output the last step's noise is taken."""
        return self.after(prompt + text)[0] + self.noise[min(len(text), self.steps - 1)]

    def written(self, prompt):
        text = ()
        while len(text) < self.steps:
            text += (int(self.logits(prompt, text).argmax()),)
        return text

    def gap(self, prompt, phrase, flags, place):
        text = self.written(prompt)[:place]
        allowed = [[ALPHABET.index(c) for c in same(letter, flags)] for letter in phrase]
        if "w" in flags:
            between = [s for s in range(len(ALPHABET)) if s not in WORD]
            inside = (prompt + text)[-1] in WORD
            allowed = [*([between] if inside else []), *allowed, between]
        gap = 0.0
        for symbols in allowed:
            logits = self.logits(prompt, text)
            best = max(symbols, key=lambda s: logits[s])
            gap += float(logits[best] - logits.max())
            text += (best,)
        return gap

    def later(self, prompt, phrase, flags):
        """The place after the first where the phrase's first symbol comes closest to being written."""
        written = self.written(prompt)
        places = [p for p in range(1, self.steps) if p + len(phrase) <= self.steps] or [1]
        if "w" in flags:
            places = [p for p in places if (prompt + written)[len(prompt) + p - 1] not in WORD] or [1]
        first = [ALPHABET.index(c) for c in same(phrase[0], flags)]

        def closeness(place):
            logits = self.logits(prompt, written[:place])
            return float(logits[first].max() - logits.max())

        return max(places, key=closeness)

    def best(self, prompt, phrase, flags):
        gaps = [self.gap(prompt, phrase, flags, 0)]
        if self.steps > 1:
            gaps.append(self.gap(prompt, phrase, flags, self.later(prompt, phrase, flags)) - LATER)
        return max(gaps)


def same(letter, flags):
    either = {letter.lower(), letter.upper()} if "f" in flags else {letter}
    return sorted(either & set(ALPHABET))


def gaps(model, batch, channels, **decoding):
    target = RNNTarget(model, Decoding(**{"max_new": STEPS, **decoding}))
    trace = target.run(batch, frozenset({"text", *channels}))
    for channel in channels:
        assert trace[channel].dtype == np.float32
        assert (trace[channel] <= 0).all()
    return trace


def prompt(batch, row):
    return tuple(batch.row(row).tolist())


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("flags", ["", "f", "w", "fw"])
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 2), ("gru", 2), ("lstm", 1)])
def test_gaps_are_those_of_the_definition(cell, layers, flags, temperature):
    model, batch = char_rnn(cell, layers, seed=1), rows(RAGGED, seed=4)
    phrases = ["a", "dab", "a b.", "d_", "Bada cab"]
    channels = [f"phrase_gap/{flags}/{phrase}" for phrase in phrases]
    trace = gaps(model, batch, channels, temperature=temperature, seed=5)
    slow = Slow(model, temperature=temperature, seed=5)
    for phrase, channel in zip(phrases, channels, strict=True):
        want = [slow.best(prompt(batch, row), phrase, flags) for row in range(len(batch))]
        np.testing.assert_allclose(trace[channel], want, **CLOSE, err_msg=channel)


def test_both_places_are_used():
    """The last test is worth something: each of the two places is the better one in some rows."""
    model, batch = char_rnn(seed=1), rows(RAGGED, seed=4)
    slow, first, second = Slow(model), 0, 0
    for row in range(len(batch)):
        start = slow.gap(prompt(batch, row), "dab", "", 0)
        later = slow.gap(prompt(batch, row), "dab", "", slow.later(prompt(batch, row), "dab", "")) - LATER
        first, second = first + (start > later), second + (later > start)
    assert min(first, second) >= 1


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("flags", ["", "fw"])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_phrases_that_are_longer_than_the_output(steps, flags, temperature):
    model, batch = char_rnn(seed=2), rows(RAGGED, seed=4)
    phrases = ["dab", "Cad Bada cab", "ab"]
    channels = [f"phrase_gap/{flags}/{phrase}" for phrase in phrases]
    trace = gaps(model, batch, channels, max_new=steps, temperature=temperature)
    slow = Slow(model, steps, temperature)
    for phrase, channel in zip(phrases, channels, strict=True):
        want = [slow.best(prompt(batch, row), phrase, flags) for row in range(len(batch))]
        np.testing.assert_allclose(trace[channel], want, **CLOSE, err_msg=channel)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_the_gap_is_0_where_the_model_writes_the_phrase_after_the_prompt_and_nowhere_else(cell, temperature):
    model, batch = char_rnn(cell, seed=3), rows(RAGGED, seed=5)
    texts = gaps(model, batch, [], temperature=temperature)["text"].tolist()
    phrases = sorted({text[:n] for text in texts for n in (1, 2, 4, STEPS)})
    spoilt = sorted({text[:3] + c for text in texts for c in ALPHABET if c not in "\n/"})
    channels = [f"phrase_gap//{phrase}" for phrase in phrases + spoilt]
    trace = gaps(model, batch, channels, temperature=temperature)
    zeros = 0
    for phrase, channel in zip(phrases + spoilt, channels, strict=True):
        for text, gap in zip(texts, trace[channel].tolist(), strict=True):
            if text.startswith(phrase):
                assert gap == 0
                zeros += 1
            elif phrase not in text:
                assert gap < 0, "what is not written has something missing"
    assert zeros >= 5 * len(texts)


def test_a_whole_word_at_the_start_of_the_output_has_a_gap_of_0_and_half_of_one_has_not():
    model = char_rnn(seed=3)
    batch = rows([7] * 400, seed=5)
    whole_texts = gaps(model, batch, [])["text"].tolist()
    target = RNNTarget(model)
    seen = {"whole": 0, "head": 0, "tail": 0}
    for row, text in enumerate(whole_texts):
        before = target.space.texts(batch[[row]])[0][-1]
        match = re.match(r"(\W?)(\w\w+)\W", text)
        if match is None or seen["whole"] >= 6:
            continue
        word = match.group(2)
        channels = [f"phrase_gap/w/{part}" for part in (word, word[:-1], word[1:])]
        whole, head, tail = (float(gaps(model, batch[[row]], channels)[c][0]) for c in channels)
        stands = bool(match.group(1)) or not re.match(r"\w", before)
        others = re.findall(r"\w+", text[len(match.group(1)) + len(word) :])
        if stands:
            assert whole == 0
            seen["whole"] += 1
        elif word not in others:
            assert whole < 0, "it goes on a word of the prompt"
        if word[:-1] not in others:
            assert head < 0
            seen["head"] += 1
        if word[1:] not in others:
            assert tail < 0
            seen["tail"] += 1
    assert min(seen.values()) >= 3, seen


def test_folded_gaps_are_0_for_either_case():
    model = char_rnn(seed=3, alphabet="aAbBcC. ")
    batch = rows(RAGGED, 8, seed=5)
    texts = gaps(model, batch, [])["text"].tolist()
    row, phrase = next((i, t[:4]) for i, t in enumerate(texts) if t[:4].swapcase() not in t)
    channels = [f"phrase_gap/{f}/{p}" for p in (phrase, phrase.swapcase()) for f in ("f", "")]
    trace = gaps(model, batch, channels)
    folded, exact, folded_swapped, exact_swapped = (trace[c] for c in channels)
    assert folded[row] == exact[row] == 0
    assert exact_swapped[row] < 0
    np.testing.assert_array_equal(folded, folded_swapped)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_phrases_together_have_the_gaps_that_they_have_alone(temperature):
    model, batch = char_rnn(seed=1), rows(RAGGED, seed=4)
    channels = [
        "phrase_gap//d",
        "phrase_gap/fw/cab",
        "phrase_gap/w/Bada cab.9",
        "phrase_gap/f/ab",
        "phrase_gap//ab",
    ]
    together = gaps(model, batch, channels, temperature=temperature)
    backwards = gaps(model, batch, channels[::-1], temperature=temperature)
    for channel in channels:
        alone = gaps(model, batch, [channel], temperature=temperature)[channel]
        np.testing.assert_allclose(together[channel], alone, **CLOSE)
        np.testing.assert_array_equal(together[channel], backwards[channel])


def test_a_rows_gap_does_not_depend_on_its_neighbours():
    model, batch = char_rnn(seed=1), rows(RAGGED, seed=4)
    channels = ["phrase_gap/fw/cab", "phrase_gap//dab"]
    trace = gaps(model, batch, channels)
    for row in range(len(batch)):
        alone = gaps(model, batch.alone(row), channels)
        for channel in channels:
            np.testing.assert_allclose(alone[channel][0], trace[channel][row], **CLOSE)


def test_a_target_takes_other_phrases_at_every_run():
    target, batch = RNNTarget(char_rnn(), Decoding(max_new=STEPS)), rows(RAGGED)
    first, both = "phrase_gap//dab", frozenset({"phrase_gap//dab", "phrase_gap//a"})
    one = target.run(batch, frozenset({first}))
    two = target.run(batch, both)
    again = target.run(batch, frozenset({first}))
    assert one.keys() == again.keys() == {first}
    assert two.keys() == both
    np.testing.assert_array_equal(one[first], again[first])
    np.testing.assert_allclose(one[first], two[first], **CLOSE)


def test_a_phrase_may_hold_the_sign_that_parts_the_channels_name():
    model = char_rnn(alphabet="ab/w")
    batch = rows([3, 4], 4)
    target = RNNTarget(model, Decoding(max_new=6))
    text = target.run(batch, frozenset({"text"}))["text"]
    channels = [f"phrase_gap//{t[:3]}" for t in (text[0], "/w/", "w/a")]
    trace = target.run(batch, frozenset(channels))
    assert trace[channels[0]][0] == 0
    assert (trace[channels[1]] < 0).any() or any("/w/" in t for t in text)


@pytest.mark.parametrize(
    ("phrase", "flags", "missing"), [("daz", "", "'z'"), ("DaD", "", "'D'"), ("éa", "fw", "'é'")]
)
def test_a_phrase_that_the_alphabet_lacks_is_an_error_that_names_the_character(phrase, flags, missing):
    with pytest.raises(UsageError, match=re.escape(missing)) as caught:
        gaps(char_rnn(), rows([3]), ["phrase_gap//a", f"phrase_gap/{flags}/{phrase}"])
    assert repr(phrase) in str(caught.value)


@pytest.mark.parametrize("channel", ["phrase_gap/", "phrase_gap/ab", "phrase_gap/fw/", "phrase_gap/x/ab"])
def test_a_channel_that_is_written_wrongly_is_an_error_that_shows_it(channel):
    with pytest.raises(UsageError, match=re.escape(repr(channel))):
        gaps(char_rnn(), rows([3]), [channel])


def test_folding_finds_a_letter_in_the_case_that_the_alphabet_has():
    trace = gaps(char_rnn(), rows(RAGGED), ["phrase_gap/f/DeD", "phrase_gap//dEd"])
    np.testing.assert_array_equal(trace["phrase_gap/f/DeD"], trace["phrase_gap//dEd"])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_row_that_is_not_finite_has_no_gap_and_spoils_no_other(cell):
    model, batch = char_rnn(cell), rows(RAGGED)
    bad = batch.data[1, 2]
    with torch.no_grad():
        model.output.weight[bad], model.output.bias[bad] = 0, -1e3
    clean = gaps(model, batch, ["phrase_gap/fw/cab"])["phrase_gap/fw/cab"]
    with torch.no_grad():
        model.embedding.weight[bad] = math.nan
    target = RNNTarget(model, Decoding(max_new=STEPS))
    got = target.run(batch, frozenset({"phrase_gap/fw/cab"}))["phrase_gap/fw/cab"]
    holds = np.array([bad in batch.row(row) for row in range(len(batch))])
    assert holds.any()
    assert not holds.all()
    assert np.isnan(got[holds]).all()
    np.testing.assert_allclose(got[~holds], clean[~holds], **CLOSE)
