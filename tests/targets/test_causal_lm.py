"""Causal language models as targets, against what transformers itself computes row by row."""

import numpy as np
import pytest
import torch

from helpers import small_lms
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError, Unfit, UsageError
from lmfuzz.inputs.spaces import TextSpace, describe, described
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.targets.hf import decoding as writing
from lmfuzz.targets.sampling import Decoding, TokenSampler
from lmfuzz.types import CRASH, PAD, Batch

torch.set_num_threads(1)

PROMPTS = ["How now, my lord", "A", "Speak again, thou run", "the moon and the stars are", "O"]
ALL = frozenset({
    "text", "tokens", "token_ends", "logprob", "entropy", "end_logprob", "ended", "hidden_last",
    "hidden_mean", "hidden_steps", "magnitude", "nonfinite",
})  # fmt: skip


def rows(target, prompts=PROMPTS):
    return target.space.batch([target.space.encode(prompt) for prompt in prompts])


def generated(target, batch, i, **more):
    """What transformers' generate writes after row ``i`` alone, the end of text included."""
    ids = torch.tensor([target._prompts(batch.alone(i))[0]])
    ends = list(target._ends) or None
    new = target.decoding.max_new
    out = target.module.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
        pad_token_id=0, eos_token_id=ends, **more,
    )  # fmt: skip
    return out[0, ids.shape[1] :].tolist()


def shown(trace, i):
    return [token for token in trace["tokens"][i].tolist() if token != PAD]


@pytest.mark.parametrize("kind", small_lms.SIZES)
@pytest.mark.parametrize("level", ["char", "token"])
def test_writes_what_generate_writes_padded_and_alone(kind, level):
    target = small_lms.target(kind, level=level)
    assert target.reader.padded is (kind not in ("bloom", "mamba"))
    assert target.reader.padded or target.reader.own_cache
    batch = rows(target)
    together = target.run(batch, frozenset({"tokens", "text"}))
    for i in range(len(batch)):
        expected = generated(target, batch, i)
        assert shown(together, i) == expected
        alone = target.run(batch.alone(i), frozenset({"tokens", "text"}))
        assert shown(alone, 0) == expected
        assert alone["text"][0] == together["text"][i]


def test_every_text_is_read_anew_where_a_model_has_no_cache_to_go_on_from():
    target = small_lms.target("gpt_neox")
    batch = rows(target)
    expected = target.run(batch, frozenset({"tokens"}))["tokens"]
    target.reader.padded = False
    assert np.array_equal(target.run(batch, frozenset({"tokens"}))["tokens"], expected)


@pytest.mark.parametrize("system", ["", "You are a fool of few words."])
def test_what_stands_before_every_prompt_is_read_once(system, monkeypatch):
    target = small_lms.target("llama", chat=True, system=system)
    prefix = list(target._tokens.prefix)
    assert len(prefix) > 3
    assert target._writer.prefix == prefix
    batch = rows(target)
    seen = []
    read = target.reader.read
    monkeypatch.setattr(
        target.reader, "read", lambda ids, *more, **keys: seen.append(ids.shape) or read(ids, *more, **keys)
    )
    trace = target.run(batch, frozenset({"tokens"}))
    assert seen[0] == (1, len(prefix))
    assert seen[1][0] == len(batch)
    assert [target._prompts(batch)[i][: len(prefix)] for i in range(len(batch))] == [prefix] * len(batch)
    for i in range(len(batch)):
        assert shown(trace, i) == generated(target, batch, i)


def test_a_row_that_does_not_begin_with_the_prefix_is_read_whole(monkeypatch):
    target = small_lms.target("llama", system="To b")
    batch = rows(target, ["e or", "lame", "lind"])  # " be" is one token, " b" another
    target._writer.prefix = target._tokens.prompts(["lame"])[0][:3]
    odd = [prompt[:3] == target._writer.prefix for prompt in target._prompts(batch)]
    assert not all(odd)
    assert any(odd)
    trace = target.run(batch, frozenset({"tokens"}))
    for i in range(len(batch)):
        assert shown(trace, i) == generated(target, batch, i)


def test_a_beginning_of_text_is_added_as_the_tokenizer_says():
    target = small_lms.target("llama", marker=True)
    assert target._tokens.prefix == (0,)
    assert target._prompts(rows(target))[1][0] == 0


def plainly(target, batch, i, tokens, layer=None):
    """Logits (T, V) and states (T, D) before each of ``tokens``, from one plain pass over the whole text."""
    prompt = target._prompts(batch.alone(i))[0]
    with torch.inference_mode():
        out = target.module(input_ids=torch.tensor([prompt + tokens[:-1]]), output_hidden_states=True)
    states = out.hidden_states[-1 if layer is None else layer][0]
    return out.logits[0, len(prompt) - 1 :].float(), states[len(prompt) - 1 :].float()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_channels_are_what_one_plain_pass_says(kind):
    target = small_lms.target(kind, ends=tuple(range(0, 400, 15)), temperature=1.0)
    batch = rows(target)
    trace = target.run(batch, ALL)
    for i in range(len(batch)):
        tokens = shown(trace, i)
        logits, states = plainly(target, batch, i, tokens)
        logs, n = torch.log_softmax(logits, dim=1), len(tokens)
        chosen = logs[torch.arange(n), torch.tensor(tokens)]
        assert trace["logprob"][i, :n] == pytest.approx(chosen.numpy(), abs=1e-4)
        assert trace["entropy"][i, :n] == pytest.approx(-(logs.exp() * logs).sum(1).numpy(), abs=1e-4)
        ends = logs[:, list(target._ends)].logsumexp(1)
        assert trace["end_logprob"][i, :n] == pytest.approx(ends.numpy(), abs=1e-4)
        assert trace["hidden_last"][i] == pytest.approx(states[0].numpy(), abs=1e-4)
        assert trace["hidden_steps"][i, :n] == pytest.approx(states.numpy(), abs=1e-4)
        assert trace["hidden_mean"][i] == pytest.approx(states.mean(0).numpy(), abs=1e-4)
        assert trace["magnitude"][i] == pytest.approx(
            float(torch.maximum(logits.abs().max(), states.abs().max())), rel=1e-4
        )
        for name in ("logprob", "entropy", "end_logprob"):
            assert np.isnan(trace[name][i, n:]).all()
        assert np.isnan(trace["hidden_steps"][i, n:]).all()
        assert trace["ended"][i] == (tokens[-1] in target._ends)
    assert trace["ended"].any()
    assert not trace["ended"].all()
    assert (trace["nonfinite"] == "").all()
    assert {name: array.dtype.name for name, array in trace.items()}["tokens"] == "int32"


@pytest.mark.parametrize("layer", [1, 2])
def test_the_states_of_any_block_can_be_shown(layer):
    target = small_lms.target("gpt_neox", layer=layer)
    batch = rows(target)
    trace = target.run(batch, frozenset({"hidden_last", "tokens"}))
    for i in range(len(batch)):
        block = target.module.gpt_neox.layers[layer - 1]
        kept = []
        hook = block.register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out[0] if isinstance(out, tuple) else out)
        )
        plainly(target, batch, i, [0])
        hook.remove()
        assert trace["hidden_last"][i] == pytest.approx(kept[0][0, -1].numpy(), abs=1e-4)


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="has 2 layers; --layer takes 1 to 2"):
        small_lms.target("llama", layer=3)


def test_rows_that_end_leave_the_batch_and_change_nothing(monkeypatch):
    ends = tuple(range(0, small_lms.VOCABULARY, 9))  # so that rows end at many different steps
    target = small_lms.target("llama", max_new=20, ends=ends, temperature=1.0)
    batch = rows(target, [f"{a}{b}" for a in PROMPTS for b in ("!", "?", ",")])
    sizes = []
    read = target.reader.read
    monkeypatch.setattr(
        target.reader,
        "read",
        lambda ids, *more, **keys: sizes.append((len(ids), keys.get("keep", 1))) or read(ids, *more, **keys),
    )
    wants = ALL | {"phrase_gap/fw/king"}
    together = target.run(batch, wants)
    sizes = [size for size, keep in sizes if keep == 1]  # not those of phrases
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    assert min(sizes) < len(batch) / 3
    for i in range(len(batch)):
        alone = target.run(batch.alone(i), wants)
        assert shown(alone, 0) == shown(together, i)
        assert alone["phrase_gap/fw/king"][0] == pytest.approx(together["phrase_gap/fw/king"][i], abs=1e-3)


def test_batches_keep_to_their_budget_of_tokens_and_sort_by_length(monkeypatch):
    target = small_lms.target("llama", batch_tokens=100)
    batch = rows(target, PROMPTS * 5)
    shapes = []
    begin = target._writer._begin
    monkeypatch.setattr(
        target._writer,
        "_begin",
        lambda prompts, steps: shapes.append([len(p) for p in prompts]) or begin(prompts, steps),
    )
    trace = target.run(batch, frozenset({"text"}))
    assert sum(map(len, shapes)) == len(batch)
    assert all(len(lengths) * (max(lengths) + 12) <= 100 or len(lengths) == 1 for lengths in shapes)
    flat = [length for lengths in shapes for length in lengths]
    assert flat == sorted(flat, reverse=True)
    assert (
        trace["text"].tolist() == small_lms.target("llama").run(batch, frozenset({"text"}))["text"].tolist()
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_where_memory_runs_out_the_budget_is_halved(error, monkeypatch):
    target = small_lms.target("llama")
    batch = rows(target)
    expected = target.run(batch, ALL)
    read = target.reader.read

    def small(ids, *more, **keys):
        if len(ids) > 2 and keys.get("keep", 1) == 1 and ids.shape[1] == 1:  # in the midst of writing
            raise error
        return read(ids, *more, **keys)

    monkeypatch.setattr(target.reader, "read", small)
    before = target._writer.batch_tokens
    trace = target.run(batch, ALL)
    assert target._writer.batch_tokens < before
    assert trace["text"].tolist() == expected["text"].tolist()
    assert trace["hidden_mean"] == pytest.approx(expected["hidden_mean"], abs=1e-4)
    monkeypatch.setattr(target.reader, "read", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(Unfit, match="no memory for"):
        target.run(batch, frozenset({"text"}))


def test_other_errors_of_a_model_are_its_own(monkeypatch):
    target = small_lms.target("llama")
    monkeypatch.setattr(target.reader, "read", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("gears")))
    with pytest.raises(RuntimeError, match="gears"):
        target.run(rows(target), frozenset({"text"}))


# -- sampling --


def test_sampled_text_depends_on_the_seed_and_the_prompt_alone():
    target = small_lms.target("llama", temperature=1.0)
    batch = rows(target)
    together = target.run(batch, frozenset({"text", "tokens"}))
    for i in range(len(batch)):
        assert target.run(batch.alone(i), frozenset({"text"}))["text"][0] == together["text"][i]
    back = target.run(batch[::-1], frozenset({"text"}))["text"][::-1]
    assert back.tolist() == together["text"].tolist()
    other = small_lms.target("llama", temperature=1.0, seed=1).run(batch, frozenset({"text"}))["text"]
    greedy = small_lms.target("llama").run(batch, frozenset({"text"}))["text"]
    assert len({*other, *greedy, *together["text"]}) == 3 * len(batch)


def test_sampling_takes_the_largest_of_logits_and_gumbel_noise():
    target = small_lms.target("gpt2", temperature=0.7, seed=5, ends=())
    batch = rows(target)
    trace = target.run(batch, frozenset({"tokens"}))
    for i in range(len(batch)):
        tokens = shown(trace, i)
        logits, _ = plainly(target, batch, i, tokens)
        noise = torch.stack([target.sampler.noise(step) for step in range(len(tokens))])
        assert (logits + noise).argmax(dim=1).tolist() == tokens


@pytest.mark.parametrize("stepwise", [False, True])
def test_tokens_are_drawn_from_the_softmax(stepwise):
    sampler = TokenSampler(Decoding(4000, 0.5), small_lms.VOCABULARY, stepwise=stepwise)
    logits = torch.linspace(-1, 1, small_lms.VOCABULARY)
    drawn = torch.cat([sampler.choose(step, logits[None]) for step in range(4000)])
    share = np.bincount(drawn.numpy() * 4 // small_lms.VOCABULARY, minlength=4) / 4000
    wanted = torch.softmax(logits / 0.5, dim=0).view(4, -1).sum(dim=1).numpy()
    assert share == pytest.approx(wanted, abs=0.025)


def test_noise_is_the_same_whether_it_is_kept_or_drawn_again():
    kept, drawn = (small_lms.target("gpt2", temperature=1.0).sampler for _ in range(2))
    drawn._keeps = False
    for step in (0, 3, 0):
        assert torch.equal(kept.noise(step), drawn.noise(step))
    assert len(drawn._kept) == 1


@pytest.mark.parametrize("level", ["char", "token"])
def test_samples_are_legal_rows_that_the_generator_fixes(level):
    target = small_lms.target("llama", level=level, ends=tuple(range(0, 400, 7)))
    batch = rows(target)
    one, two, other = (target.sample(batch, 9, 0.8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (len(batch), 9)
    assert one.dtype == np.int32
    assert target.space.legal(Batch.of(list(one))).all()
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


# -- texts --


def test_an_output_ends_before_its_stop_string():
    free = small_lms.target("llama", max_new=20, ends=())
    batch = rows(free)
    whole = free.run(batch, ALL)
    stop = whole["text"][0][7:9]
    target = small_lms.target("llama", max_new=20, ends=(), stop=(stop, "never this"))
    trace = target.run(batch, ALL)
    assert trace["ended"][0]
    for i, text in enumerate(whole["text"]):
        cut = text.find(stop)
        assert trace["ended"][i] == (cut >= 0)
        assert trace["text"][i] == (text[:cut] if cut >= 0 else text)
        n = len(shown(trace, i))
        assert shown(trace, i) == shown(whole, i)[:n]
        assert np.isnan(trace["logprob"][i, n:]).all()
        assert trace["token_ends"][i, :n].max(initial=0) == len(trace["text"][i])
        assert (trace["token_ends"][i, n:] == PAD).all()


def test_token_ends_count_characters_also_where_they_have_several_tokens():
    target = small_lms.target("llama", level="token")
    text = "caf\u00e9 \u4e16\u754c \U0001f600!"
    row = target._tokens.encode(text)
    assert len(row) > len(text)
    ends = target._token_ends([5], row, text)
    assert ends[-1] == len(text)
    assert (np.diff(ends) >= 0).all()
    for i in range(len(row)):
        assert text.startswith(target._texts([[5]], [row[: i + 1]])[0].rstrip("\ufffd"))
    trace = target.run(rows(target), frozenset({"token_ends", "text", "tokens"}))
    for i, text in enumerate(trace["text"]):
        assert trace["token_ends"][i].max() == len(text)


def test_spaces_survive_at_both_ends_of_prompts_and_outputs():
    target = small_lms.target("llama", level="token")
    for text in (" two  spaces ", "\n\tx\n", "ends in a \u4e16"):
        batch = rows(target, [text])
        assert target.space.texts(batch) == [text]
        assert target.space.respelled(batch.row(0)) is None


def test_a_row_of_tokens_knows_whether_its_text_is_spelled_otherwise():
    target = small_lms.target("llama", level="token")
    letters = np.concatenate([target._tokens.encode(c) for c in "the moon"])
    canonical = target._tokens.encode("the moon")
    assert len(letters) > len(canonical)
    assert target.space.respelled(letters).tolist() == canonical.tolist()


def test_spaces_are_stored_and_read_back():
    for level in ("char", "token"):
        space = small_lms.target("llama", level=level, chat=True, system="x").space
        back = described(describe(space))
        assert isinstance(back, TextSpace)
        assert (back.symbols, back.tokens) == (space.symbols, space.tokens)
        row = space.encode("the king, he")
        assert back.decode(back.unpack(space.pack(row))) == "the king, he"


# -- what does not fit --


def test_prompts_and_outputs_that_do_not_fit_into_the_window_are_refused():
    with pytest.raises(
        TargetError, match="up to 64 symbols and 100 new tokens do not fit into the window of llama, 128"
    ):
        small_lms.target("llama", max_new=100)
    with pytest.raises(TargetError, match="around each"):
        small_lms.target("llama", max_new=60, chat=True, system="x" * 20)


def test_a_row_that_is_too_long_is_unscored_and_no_crash():
    target = small_lms.target("llama", max_new=60)
    texts = ["short", "\u4e16" * 60]  # three tokens each
    executor, panel = LocalExecutor(target), ObjectiveSet({})
    batch = rows(target, texts)
    trace = executor.run(batch, frozenset({"text"}))
    assert trace[CRASH][0] == ""
    assert trace[CRASH][1].startswith("Unfit: the prompt has 1")
    assert panel(batch, trace)[:, -1].tolist() == [-np.inf, -np.inf]


def test_the_first_part_that_is_not_finite_is_named():
    target = small_lms.target("llama")
    block = target.module.model.layers[1].mlp.down_proj
    before = block.weight.clone()
    try:
        with torch.no_grad():
            block.weight.fill_(3e38)
        trace = target.run(rows(target), frozenset({"nonfinite", "magnitude", "text"}))
    finally:
        with torch.no_grad():
            block.weight.copy_(before)
    assert not np.isfinite(trace["magnitude"]).any()
    assert set(trace["nonfinite"]) == {"model.layers.1.mlp.down_proj"}


def test_identities_say_what_can_change_a_text():
    same = {small_lms.target("llama").identity for _ in range(2)}
    others = [
        small_lms.target("llama", **more).identity
        for more in (
            {"max_new": 13}, {"temperature": 1.0}, {"level": "token"}, {"layer": 1}, {"chat": True},
            {"ends": ()}, {"chat": True, "system": "x"}, {"marker": True}, {"model_seed": 1},
        )
    ]  # fmt: skip
    assert len(same) == 1
    assert len({*same, *others}) == 1 + len(others)


def test_nothing_of_the_size_of_batch_time_and_vocabulary_is_kept():
    target = small_lms.target("llama")
    batch = rows(target)
    record = target.decode(batch, ALL | {"phrase_gap/fw/king"}).record
    kept = [value for value in vars(record).values() if isinstance(value, torch.Tensor)]
    largest = len(batch) * target.decoding.max_new * target.reader.width
    assert max(value.numel() for value in kept) == largest
    assert target.decode(batch, frozenset({"logits"})).logits.shape == (12, len(batch), small_lms.VOCABULARY)


def test_the_share_of_free_memory_sets_the_budget(monkeypatch):
    target = small_lms.target("llama")
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    pages = {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(writing.os, "sysconf", pages.__getitem__)
    assert target._writer._affordable() == int(0.4 * 4_096_000 // per_token)
    pages["SC_AVPHYS_PAGES"] = 10**9
    assert target._writer._affordable() == writing.MOST_TOKENS["cpu"]
    pages["SC_AVPHYS_PAGES"] = 0
    assert target._writer._affordable() == writing.LEAST_TOKENS
