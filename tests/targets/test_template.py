"""Chat templates that do more than to stand around a prompt, and those that ask for the time."""

import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

import lmfuzz
from helpers import small_lms
from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.errors import TargetError, UsageError
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets import limited
from lmfuzz.targets.hf import template as module
from lmfuzz.targets.hf.loader import load
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.loading import load_target

torch.set_num_threads(1)
PROMPTS = [
    "How now", "a <b> & \"c\" 'd'", "</think> hi", "<think>a</think>b", "  x\n ", "lower UPPER Mixed",
    "<|im_end|>\n<|im_start|>user\n", "Sir, " * 12, "\u00e9\u4e16\U0001f600", "{{ x }}", "\n",
]  # fmt: skip
TEMPLATES = {
    "plain": "{{ m.content }}",
    "escape": "{{ m.content | e }}",
    "strip": "{{ m.content | trim }}",
    "strip the end": "{{ m.content.rstrip() }}",
    "cut": "{{ m.content.split('</think>')[-1] }}",
    "twice": "{{ m.content }} {{ m.content }}",
    "upper": "{{ m.content | upper }}",
    "length": "{{ m.content | length }}: {{ m.content }}",
    "long": "{% if m.content | length > 40 %}(long){% endif %}{{ m.content }}",
}
CLOCK = (
    "{{ strftime_now('%d %b %Y %H:%M:%S') }} {% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
)


def save(folder: Path, template: str) -> Path:
    small_lms.save(folder, chat=True)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def with_content(folder: Path, content: str) -> Path:
    return save(folder, small_lms.CHAT.replace("{{ m.content }}", content))


def tokens_of(folder: Path, prompt: str) -> list[int]:
    """What transformers itself makes of a prompt."""
    wrapped = small_lms.tokenizer(chat=True)
    chat, template = [{"role": "user", "content": prompt}], (folder / "chat_template.jinja").read_text()
    return wrapped.apply_chat_template(chat, chat_template=template, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_model_gets_what_the_template_makes_of_each_prompt(tmp_path: Path, kind: str) -> None:
    folder = with_content(tmp_path / "model", TEMPLATES[kind])
    target = load_target(Spec(model=str(folder), max_new=4, max_length=64))
    batch = target.space.batch([target.space.encode(prompt) for prompt in PROMPTS])
    assert target._prompts(batch) == [tokens_of(folder, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", ["escape", "cut", "long"])
def test_tokens_that_the_template_would_change_are_unscored(tmp_path: Path, kind: str) -> None:
    folder = with_content(tmp_path / "model", TEMPLATES[kind])
    target = load_target(Spec(model=str(folder), max_new=4, max_length=64, level="token"))
    ids = [target._tokens.tokenizer.encode(text).ids for text in PROMPTS]
    batch = target.space.batch([np.array(row, np.int32) for row in ids])
    crashes = LocalExecutor(target).run(batch, frozenset({"text"}))["crash"]
    for row, prompt, crash in zip(ids, PROMPTS, crashes, strict=True):
        whole = [*target._tokens.prefix, *row, *target._tokens.suffix]
        assert (crash == "") == (whole == tokens_of(folder, prompt))
        assert not crash or crash.startswith("Unfit: the chat template changes the prompt")


def test_a_prompt_that_the_template_refuses_is_unscored(tmp_path: Path) -> None:
    refusing = "{% if 'xx' in m.content %}{{ raise_exception('no xx') }}{% endif %}{{ m.content }}"
    folder = with_content(tmp_path / "model", refusing)
    target = load_target(Spec(model=str(folder), max_new=4))
    batch = target.space.batch([target.space.encode(prompt) for prompt in ("fine", "xx", "good")])
    crashes = LocalExecutor(target).run(batch, frozenset({"text"}))["crash"]
    assert [bool(crash) for crash in crashes] == [False, True, False]
    assert crashes[1] == "Unfit: the chat template cannot take the prompt: TemplateError: no xx"
    with pytest.raises(UsageError, match="cannot take the prompt"):
        load_target(Spec(model=str(folder), max_new=4, level="token")).space.encode("xx")


def test_a_template_that_rolls_dice_is_refused(tmp_path: Path) -> None:
    folder = with_content(tmp_path / "model", "{{ range(1000) | random }}{{ m.content }}")
    with pytest.raises(TargetError, match="gives another text each time; use --template raw"):
        load(str(folder), HFOptions())


# -- limits -------------------------------------------------------------------------------------

NEVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
FILLS = {
    "product": "{{ 'a' * 10 ** 10 }}",
    "product of a variable": "{% set n = 10 ** 10 %}{{ m.content * n }}",
    "ljust": "{{ m.content.ljust(10 ** 10) }}",
    "format": "{{ '%10000000000d' % 1 }}",
    "list": "{{ [m.content] * 10 ** 10 }}",
    "growing list": "{% set n = namespace(x=[1]) %}"
    "{% for a in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "growing text": "{% set n = namespace(x='a') %}"
    "{% for a in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "replace": "{{ ('a' * 10 ** 6).replace('a', 'b' * 10 ** 6) }}",
}
ENDLESS = {
    "loops": NEVER,
    "loops that write": NEVER.replace("{% endfor %}", "{{ a }}{% endfor %}", 1),
    "power": "{% set n = 10 %}{{ n ** (n ** n) }}",
}


@pytest.mark.parametrize("kind", FILLS)
def test_a_template_that_fills_the_memory_is_refused(tmp_path: Path, kind: str) -> None:
    folder = with_content(tmp_path / "model", FILLS[kind] + "{{ m.content }}")
    with pytest.raises(TargetError) as error:
        load(str(folder), HFOptions())
    assert str(error.value) == (
        f"the chat template of {folder} cannot be used (correct it, or use --template raw): MemoryError: it"
        " needs more than 500 MB"
    )


def test_a_template_that_writes_too_much_is_refused(tmp_path: Path) -> None:
    folder = with_content(tmp_path / "model", "{{ m.content }}{{ 'a' * 10 ** 7 }}")
    with pytest.raises(TargetError, match=r"it writes 100000\d\d characters; at most 1000000 are taken"):
        load(str(folder), HFOptions())


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_never_ends_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "SECONDS", 0.5)
    folder = with_content(tmp_path / "model", ENDLESS[kind] + "{{ m.content }}")
    with ThreadPoolExecutor() as pool, pytest.raises(TargetError) as error:  # in whatever thread
        pool.submit(load, str(folder), HFOptions()).result()
    assert str(error.value) == (
        f"the chat template of {folder} cannot be used (correct it, or use --template raw): TimeoutError: it"
        " did not end within 0.5 s"
    )


def test_prompts_for_which_the_template_never_ends_are_unscored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited, "SECONDS", 0.5)
    never = "{% if 'xx' in m.content %}" + NEVER + "{% endif %}"
    fills = "{% if 'yy' in m.content %}{{ 'a' * 10 ** 10 ~ m.content }}{% endif %}"
    target = load_target(
        Spec(model=str(with_content(tmp_path / "m", never + fills + "{{ m.content }}")), max_new=4)
    )
    prompts = [*(f"fine {i}" for i in range(20)), "xx", *(f"good {i}" for i in range(20)), "yy"]
    batch = target.space.batch([target.space.encode(prompt) for prompt in prompts])
    started = time.perf_counter()
    crashes = LocalExecutor(target).run(batch, frozenset({"text"}))["crash"]
    assert time.perf_counter() - started < 10, "what never ended is not tried again"
    assert [prompts[i] for i, crash in enumerate(crashes) if crash] == ["xx", "yy"]
    assert crashes[20] == (
        "Unfit: the chat template cannot take the prompt: TimeoutError: it did not end within 0.5 s"
    )
    assert crashes[-1].endswith("MemoryError: it needs more than 500 MB")


def test_the_process_of_a_template_ends_with_it(tmp_path: Path) -> None:
    tokens = load(str(save(tmp_path / "model", small_lms.CHAT)), HFOptions()).tokens
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert (first := set(children.read_text().split()))
    del tokens
    gc.collect()
    assert len(set(children.read_text().split()) & first) < len(first)


# -- the time ------------------------------------------------------------------------------------


def at(monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    """Let the program's clock show a time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.fromisoformat(time)

    monkeypatch.setattr(module, "datetime", Clock)


def test_the_time_stands_still(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", CLOCK)
    found = load(str(folder), HFOptions(clock="2024-07-26T01:02:03"))
    assert found.tokens.wholes(["x"]) == ["26 Jul 2024 01:02:03 <|im_start|>x"]
    assert found.clock == "2024-07-26T01:02:03"
    assert "the chat template shows the time, which stands still at 2024-07-26T01:02:03" in found.notes
    plain = load(str(with_content(tmp_path / "plain", "{{ m.content }}")), HFOptions())
    assert plain.clock == ""
    assert not any("time" in note for note in plain.notes)


def test_a_campaign_keeps_the_time_at_which_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, directory = save(tmp_path / "model", CLOCK), tmp_path / "run"
    at(monkeypatch, "2024-07-26T01:02:03")
    how = {"max_new": 8, "seeds": ["text:How now"], "min_length": 1, "max_length": 24}
    more = {"objectives": ["regex:pattern=[a-z]"], "output": directory, "progress": False, **how}
    begun = lmfuzz.fuzz(str(folder), budget="70x", **more).findings
    assert CampaignRecord.read(directory).spec.clock == "2024-07-26T01:02:03"
    assert 'clock = "2024-07-26T01:02:03"' in (directory / "campaign.toml").read_text()
    at(monkeypatch, "2025-12-31T23:59:59")
    assert begun
    again = lmfuzz.open(directory)
    assert [verdict.fixed for verdict in again.replay()] == [False] * len(begun)
    again.resume(budget="140x", progress=False)
    assert CampaignRecord.read(directory).spec.clock == "2024-07-26T01:02:03"


def test_a_twin_is_told_the_same_time(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", CLOCK)
    other = save(tmp_path / "other", CLOCK)
    small_lms.model("llama", 1).save_pretrained(other)
    pair = load_target(Spec(model=str(folder), twin=str(other), max_new=4))
    assert pair.info.clock
    assert pair.twin.info.clock == pair.base.info.clock


def test_a_time_is_checked() -> None:
    assert Spec(clock="2024-07-26").clock == "2024-07-26T00:00:00"
    with pytest.raises(UsageError, match=r"must be a time such as 2024-07-26T12:00:00"):
        lmfuzz.fuzz(clock="noon")
