"""Every family of language models writes what its own ``generate`` writes, or is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as FAMILIES

from helpers import families, small_lms
from lmfuzz.errors import TargetError
from lmfuzz.targets.hf import forward
from lmfuzz.targets.hf.loader import CausalFolder, _require_decoder
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.hf.target import CausalLM
from lmfuzz.targets.sampling import Decoding
from lmfuzz.types import PAD, Batch

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

TABLE = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(.+?)` \| (padded|one length|refused) \|", TABLE, re.MULTILINE))
UNTRIED = dict(re.findall(r"^\| `(.+?)` \| untried \| (.+?) \|", TABLE, re.MULTILINE))
LENGTHS = (1, 40, 14)  # the last passes a window of 16 while it is written
NEW = 4


def target(module, kind, system="", longest=48, **decoding):
    found = CausalFolder(module, small_lms.tokens(system=system), (0,))
    how = Decoding(**{"max_new": NEW, **decoding})
    return CausalLM(found, kind, how, HFOptions(level="token"), max_length=longest)


def rows(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return Batch.of([rng.integers(3, small_lms.VOCABULARY, length) for length in lengths])


def tokens(made, batch):
    return [row[row != PAD].tolist() for row in made.run(batch, frozenset({"tokens"}))["tokens"]]


def check(made, batch, found):
    """Compare with what ``generate`` writes after each row alone, up to a tie of two logits."""
    for prompt, row in zip(made._prompts(batch), found, strict=True):
        ids = torch.tensor([prompt])
        out = made.module.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=made.decoding.max_new,
            do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        expected = out.sequences[0, len(prompt) :].tolist()
        for step, (token, wanted) in enumerate(zip(row, expected, strict=False)):
            if token != wanted:
                tie = out.logits[step][0, wanted] - out.logits[step][0, token]
                assert tie < 1e-4, f"{row} instead of {expected} after {len(prompt)} tokens"
                break
        else:
            assert len(row) == len(expected)


def test_the_table_has_every_family():
    assert {*FAMILIES} <= {*ROWS} | {*UNTRIED}
    assert len(ROWS) > 100


@pytest.mark.parametrize(
    "kind", [kind for kind, how in ROWS.items() if kind in FAMILIES and how != "refused"]
)
def test_a_family_writes_what_generate_writes(kind):
    made = target(families.tiny(kind), kind)
    assert made.reader.padded is (ROWS[kind] == "padded")
    assert made.reader.padded is not any("one length" in note for note in made.info.notes)
    assert made.reader.padded is ("phrase_gap/" in made.channels)
    batch = rows()
    found = tokens(made, batch)
    check(made, batch, found)
    if made.reader.padded:  # otherwise each of these rows was alone
        assert tokens(made, batch.alone(1)) == found[1:2]


@pytest.mark.parametrize(
    "kind", [kind for kind, how in ROWS.items() if kind in FAMILIES and how == "refused"]
)
def test_a_family_is_refused_by_name(kind):
    def load():
        _require_decoder(kind, transformers.CONFIG_MAPPING[kind]())
        return target(families.tiny(kind), kind)

    with pytest.raises(TargetError, match=kind):
        load()


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral"])
def test_sampled_rows_do_not_change_one_another(kind):
    made, batch = target(families.tiny(kind), kind, temperature=0.8, max_new=12), rows()
    assert made.reader.form is not None
    assert [tokens(made, batch.alone(i))[0] for i in range(len(batch))] == tokens(made, batch)


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral", "llama4_text"])
def test_windows_count_positions_when_a_prefix_is_read_once(kind):
    module = families.tiny(kind)
    for long in (6, 42):
        made = target(module, kind, "To be or not to be, that is the question. "[:long], 30, max_new=8)
        batch = rows((1, 30, 9))
        assert made._writer.prefix
        check(made, batch, tokens(made, batch))


@pytest.mark.parametrize("kind", ["phi3", "llama"])
def test_rows_whose_frequencies_turn_are_not_mixed(kind):
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    }  # fmt: skip
    more = {"original_max_position_embeddings": 32} if kind == "phi3" else {}
    made = target(families.tiny(kind, rope_parameters=rope, sliding_window=None, **more), kind, max_new=8)
    assert not made.reader.padded
    batch = rows((1, 40, 28))
    check(made, batch, tokens(made, batch))


@pytest.mark.parametrize("kind", ["gemma3_text", "mistral", "llama4_text"])
@pytest.mark.parametrize("wrong", ["everything", "places"])
def test_a_model_that_sees_otherwise_is_not_padded(kind, wrong, monkeypatch):
    right = forward.shaped

    def seen(mask, form, queries, keys):
        if wrong == "everything":
            return mask
        places = torch.arange(mask.shape[3]).expand(len(mask), -1)
        return right(mask, form, places[:, -queries.shape[1] :], places)

    monkeypatch.setattr(forward, "shaped", seen)
    assert not target(families.tiny(kind), kind).reader.padded


def test_texts_that_pass_no_window_are_read_as_before():
    module = families.tiny("mistral", sliding_window=64)
    made = CausalLM(
        CausalFolder(module, small_lms.tokens(), (0,)),
        "m",
        Decoding(max_new=8),
        HFOptions(level="token"),
        1,
        24,
    )
    assert made.reader.padded
    assert made.reader.form is None
