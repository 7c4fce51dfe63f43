"""The spec of a campaign: from files and options, with sentences about wrong ones, and to a file."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lmfuzz.coverage import FEATURES
from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import resource
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.plugins.grammar import parse
from lmfuzz.search import SEARCHES
from lmfuzz.spec import Spec, load, resolve, write

texts = st.text(st.characters(codec="utf-8"), max_size=12)
specs = st.builds(
    Spec,
    model=texts,
    seeds=st.lists(texts, max_size=3),
    objectives=st.lists(
        st.sampled_from(['phrases:words=["é\\n"]', "regex:pattern=\\d", "all(a, b:x=1)"]),
        min_size=1,
        unique=True,
    ),
    operators=st.lists(st.sampled_from(["insert", "tail:share=0.5", "my.py:Op"]), unique=True),
    dictionary=texts,
    budget=st.sampled_from(["5m", "1.5h", "2000x"]),
    stop_after=st.none() | st.integers(1, 2**40),
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0, 100),
    stop=st.lists(texts.filter(bool), max_size=3),
    unknown=st.sampled_from(["error", "drop"]),
    allow_pickle=st.booleans(),
    radius=st.none() | st.floats(1e-300, 1e300),
)


def said(call: Any, *arguments: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_is_not_said_is_the_default() -> None:
    spec = resolve({}, {})
    assert spec == Spec()
    assert spec.objectives == ["repetition", "phrases:file=corpora:words/blacklist.txt"]
    assert {parse(text).name for text in spec.objectives} <= set(OBJECTIVES.table)
    assert spec.search in SEARCHES.table
    assert spec.feature in FEATURES.table
    assert resource("corpora:words/blacklist.txt").is_file()


def test_settings_that_need_each_other_are_read_from_one_file(tmp_path: Path) -> None:
    path = tmp_path / "sampling.toml"
    path.write_text("top_k = 5\ntemperature = 0.8\nmin_length = 70\nmax_length = 80\n")
    spec = resolve(load(path), {})
    assert (spec.top_k, spec.temperature, spec.min_length) == (5, 0.8, 70)


def test_the_command_line_wins_over_the_file() -> None:
    config = {"batch": 32, "seed": 5, "seeds": ["a.txt"], "allow_pickle": True}
    options = {
        "batch": 16, "seed": None, "seeds": (), "operators": ("insert",), "model": "m",
        "allow_pickle": False,
    }  # fmt: skip
    spec = resolve(config, options)
    assert (spec.batch, spec.seed, spec.seeds) == (16, 5, ["a.txt"])
    assert (spec.operators, spec.model, spec.allow_pickle) == (["insert"], "m", False)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(specs, st.dictionaries(texts, texts, max_size=2))
def test_written_and_read_back_it_is_equal(
    tmp_path_factory: pytest.TempPathFactory, spec: Spec, record: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "campaign.toml"
    write(spec, path, record, {"identity": "abc"})
    assert resolve(load(path), {}) == spec
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    assert tables["target"] == {"identity": "abc"}
    assert tables.get("made_with", {}) == record
    assert not list(path.parent.glob("*.part"))


def test_a_spec_is_frozen_and_complete() -> None:
    with pytest.raises(ValidationError):
        Spec().batch = 3
    with pytest.raises(ValidationError):
        Spec.model_validate({"bach": 3})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"serch": "walk"}, "unknown key 'serch' in campaign.toml; did you mean 'search'?"),
        ({"zzz": 1}, "unknown key 'zzz' in campaign.toml"),
        ({"batch": "many"}, 'batch in campaign.toml must be a whole number, not "many"'),
        ({"batch": True}, "batch in campaign.toml must be a whole number, not true"),
        ({"batch": 2.5}, "batch in campaign.toml must be a whole number, not 2.5"),
        ({"batch": 0}, "batch in campaign.toml must be greater than or equal to 1, not 0"),
        ({"temperature": -0.5}, "temperature in campaign.toml must be greater than or equal to 0, not -0.5"),
        ({"temperature": float("nan")}, "temperature in campaign.toml must be a finite number, not NaN"),
        ({"radius": 0.0}, "radius in campaign.toml must be greater than 0, not 0.0"),
        ({"confirm": 1001}, "confirm in campaign.toml must be less than or equal to 1000, not 1001"),
        ({"seeds": "a.txt"}, 'seeds in campaign.toml must be a list of texts, not "a.txt"'),
        ({"seeds": ["a", 3]}, 'seeds in campaign.toml must be a list of texts, not ["a", 3]'),
        ({"objectives": []}, "objectives in campaign.toml must have at least 1 item, not []"),
        ({"objectives": ["a", " a"]}, "objectives in campaign.toml must not name a twice"),
        ({"objectives": ["a:"]}, "cannot read 'a:': a value is missing"),
        ({"search": "walk("}, "cannot read 'walk(': '(' is never closed; put text with it in quotes: \"(\""),
        ({"stop": [""]}, "stop must not contain an empty text; leave that one out"),
        ({"unknown": "keep"}, "unknown in campaign.toml must be 'error' or 'drop', not \"keep\""),
        ({"budget": "soon"}, "budget 'soon' is neither a time (90s, 5m, 1.5h) nor executions (200000x)"),
        ({"min_length": 9, "max_length": 8}, "min_length (9) is larger than max_length (8)"),
        ({"model": "\udcff"}, "a path or text in the spec is not UTF-8; give it in UTF-8"),
    ],
)  # fmt: skip
def test_wrong_settings_get_a_sentence(config: dict[str, Any], sentence: str) -> None:
    assert said(resolve, config, {}) == sentence


def test_wrong_options_are_named_as_options() -> None:
    assert said(resolve, {"max_new": 5}, {"max_new": 0}) == (
        "--max-new must be greater than or equal to 1, not 0"
    )
    assert said(resolve, {}, {"serch": "x"}) == "unknown key --serch; did you mean 'search'?"
    assert said(resolve, {"max_new": 0}, {"batch": 3}).startswith("max_new in campaign.toml must")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("serch = 'walk'", "unknown key 'serch' in {}; did you mean 'search'?"),
        ("target = 'm'", "target in {} must be a table; the key for the model to test is 'model'"),
        ("[objective]\nwords = []", "unknown key 'objective' in {}; did you mean 'objectives'?"),
        ("batch = 'x'", 'batch in {} must be a whole number, not "x"'),
        ("max_length = 0", "max_length in {} must be greater than or equal to 1, not 0"),
        ("batch = 1\nseed = = 2", "{} is not TOML: Invalid value (at line 2, column 8)"),
        ("batch = 1\r\nseeds = [\r\n", "{} is not TOML: Invalid value (at end of document)"),
        ("batch = 1\nbatch = 2", "{} is not TOML: Cannot overwrite a value (at end of document)"),
        ("batch = " + "[" * 9999, "{} is not TOML: maximum recursion depth exceeded"),
        (b"batch = 1\nmodel = '\xff'", "{}, line 2: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_wrong_files_get_a_sentence(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = file(tmp_path, text)
    assert said(load, path) == sentence.format(path)


def test_a_number_of_too_many_digits_is_not_toml(tmp_path: Path) -> None:
    assert "is not TOML: Exceeds the limit" in said(load, file(tmp_path, f"batch = {'9' * 5000}"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert said(load, tmp_path / "none.toml") == f"there is no TOML file {tmp_path}/none.toml"
    assert said(load, tmp_path) == f"{tmp_path} is a folder, not a TOML file"


def test_what_a_file_says_is_taken_over_and_its_records_are_left_out(tmp_path: Path) -> None:
    text = "\ufeffmax_length = 9\r\nradius = 1\r\n[made_with]\nlmfuzz = '1'\n[target]\nidentity = 'x'\n"
    assert load(file(tmp_path, text)) == {"max_length": 9, "radius": 1}
    assert load(file(tmp_path, "min_length = 80")) == {"min_length": 80}  # bounded by what is not here
    assert resolve(load(file(tmp_path, "min_length = 80")), {"max_length": 90}).min_length == 80
    assert load(file(tmp_path, "")) == {}
