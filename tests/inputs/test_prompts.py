"""Prompts in files of all formats that are read, and what is said of others."""

import json
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from helpers.small_lms import tokens
from lmfuzz.errors import UsageError
from lmfuzz.inputs.prompts import prompts
from lmfuzz.inputs.seeds import read
from lmfuzz.inputs.spaces import TextSpace

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "First"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Who goes"},
    {"role": "assistant", "content": "I"},
]
FIELDS = "prompt, text, question, goal or messages"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(name: str, content: str | bytes = "", field: str = "") -> list[str]:
    """The prompts in a new file of this content."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [prompt.text for prompt in prompts([name], field)]


def said(name: str, content: str | bytes = "", field: str = "") -> str:
    with pytest.raises(UsageError) as error:
        found(name, content, field)
    assert "\n" not in str(error.value)
    return str(error.value)


def rows(*values: object) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


@pytest.mark.parametrize("name", ["s.jsonl", "s.JSONL", "s.ndjson", "s.Ndjson", "s.json"])
def test_each_line_of_json_lines_is_a_prompt(name: str) -> None:
    lines = rows({"prompt": "Who\ngoes"}, "Speak", {"Text": "a"}, {"question": "b"}, {"goal": "c", "id": 1})
    assert found(name, "\ufeff" + lines.replace("\n", "\r\n") + "\n") == ["Who\ngoes", "Speak", "a", "b", "c"]


def test_the_first_known_field_with_a_value_is_the_prompt_unless_one_is_named() -> None:
    row = {"goal": "g", "text": "t", "prompt": None, "meta": {"ask": "deep"}, "a.b": "flat"}
    assert found("s.jsonl", rows(row)) == ["t"]
    assert found("s.jsonl", rows(row), "goal") == ["g"]
    assert found("s.jsonl", rows(row), "meta.ask") == ["deep"]
    assert found("s.jsonl", rows(row), "a.b") == ["flat"]


def test_the_last_turn_of_the_user_is_the_prompt_of_a_conversation() -> None:
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "goes"}]}
    ]
    lines = rows({"messages": TURNS}, {"prompt": parts}, TURNS[1:2])
    assert found("s.jsonl", lines) == ["Who goes", "Who goes", "First"]
    assert found("s.json", json.dumps({"messages": TURNS})) == ["Who goes"]
    assert found("s.json", json.dumps(TURNS)) == ["Who goes"]
    space = TextSpace(tuple(map(chr, range(32, 127))))
    Path("s.jsonl").write_text(rows({"messages": TURNS}, {"prompt": parts}))
    assert read(["s.jsonl"], space).notes == [
        "conversations of which only the last turn of the user is used: 1"
    ]


def test_json_is_a_list_of_prompts_or_an_object_that_has_one() -> None:
    assert found("s.json", '["Who goes there","Speak"]') == ["Who goes there", "Speak"]
    assert found("s.JSON", '{"version": 3, "data": [{"prompt": "a"}, "b"]}') == ["a", "b"]
    assert found("s.json", '{"text": ["a", "b"]}') == ["a", "b"]
    assert found("s.json", '{"prompt": "a", "tags": ["b", "c"]}') == ["a"]
    assert found("s.json", '{"ask": "a", "tags": ["b", "c"]}', "ask") == ["a"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("s.jsonl", '"a"\nplain', "s.jsonl, line 2: not JSON; write one object per line, such as "),
        ("s.jsonl", "[" * 9999, "s.jsonl, line 1: not JSON; "),
        ("s.jsonl", '"a"\n3', "s.jsonl, line 2: 3 is not a prompt; give a text, or an object such as "),
        ("s.jsonl", '{"a": 3}', f"s.jsonl, line 1: no field is named {FIELDS} (the fields are 'a'); "),
        ("s.jsonl", '{"text": null}', f"s.jsonl, line 1: no field is named {FIELDS} (there are none); "),
        (
            "s.jsonl",
            '{"prompt": 3}',
            "s.jsonl, line 1: prompt is neither a text nor a list of turns ",
        ),
        ("s.jsonl", '{"messages": "a"}', "s.jsonl, line 1: messages is neither a text nor a list of turns "),
        ("s.jsonl", '[{"role": "system"}]', "s.jsonl, line 1: it is neither a text nor a list of turns "),
        ("s.jsonl", '[{"role": "user", "content": [{}]}]', "s.jsonl, line 1: it is neither a text nor "),
        ("s.json", '[\n"a"\n"b"]', "s.json, line 3: not JSON ("),
        ("s.json", "[" * 9999, "s.json: not JSON ("),
        ("s.json", "9" * 5000, "s.json: not JSON ("),
        ("s.json", "Who goes", "s.json, line 1: not JSON ("),
        ("s.json", '["a", 3]', "s.json, entry 2: 3 is not a prompt; "),
        ("s.json", '{"a": ["b"], "c": ["d"]}', f"s.json, entry 1: no field is named {FIELDS} "),
        ("s.json", "[]", "s.json is empty; "),
        ("s.csv", "", "s.csv is empty; "),
        ("s.csv", "prompt\n", "s.csv is empty; "),
        ("s.csv", "Who goes there\nSpeak\n", f"s.csv, line 1: no field is named {FIELDS} (the fields are "),
        (
            "s.csv",
            "prompt\nSpeak, friend\n",
            "s.csv, line 2: the number of columns is 2, but 1 in the first ",
        ),
        ("s.csv", 'id,prompt\n1,"a\nb"\n2\n', "s.csv, line 4: the number of columns is 1, but 2 in the "),
        ("s.csv", 'prompt\n"a" b\n', "s.csv, line 2: not a table ("),
        ("s.csv", 'prompt,messages\na,"[]"\n', ""),
        ("s.csv", "messages\n[]\n", "s.csv, line 2: messages is neither a text nor a list of turns "),
        ("s.txt", "Hi".encode("utf-16"), "s.txt is UTF-16, not UTF-8; save it as UTF-8"),
        ("s.csv", b"prompt\nab\n\xff\n", "s.csv, line 3: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_not_a_prompt_gets_a_sentence_with_its_place(
    name: str, content: str | bytes, sentence: str
) -> None:
    if sentence:
        assert said(name, content).startswith(sentence)
    else:
        assert found(name, content)


def test_a_table_is_read_by_its_column() -> None:
    lines = '\ufeffid,prompt,x\r\n1,"Who, ""you""",a\r\n\r\n2,"two\r\nlines",b\r\n'
    assert found("s.csv", lines) == ['Who, "you"', "two\r\nlines"]
    assert found("s.CSV", "Index;Goal\n0;Speak, friend\n") == ["Speak, friend"]
    assert found("s.tsv", 'goal\tid\nSpeak, friend; "now"\t3\n'.replace('"', "")) == ["Speak, friend; now"]
    assert found("s.csv", "Behavior,Id\nSpeak,3\n", "Behavior") == ["Speak"]
    assert found("s.csv", "Behavior\nSpeak\n", "Behavior") == ["Speak"]


def test_a_field_that_is_missing_gets_the_nearest_one() -> None:
    line = "s.csv, line 1: no field is named 'behaviour' (the fields are 'behavior', 'id'); did you mean "
    assert said("s.csv", "behavior,id\n", "behaviour").startswith(line + "'behavior'?")
    assert "no field is named 'a'" in said("s.jsonl", '{"prompt": "x"}', "a")


@pytest.mark.parametrize("suffix", ["yaml", "yml", "xml", "toml", "xlsx", "gz", "md", "YAML", "npy"])
def test_a_file_of_another_format_is_refused_with_those_that_are_read(suffix: str) -> None:
    begin = f"s.{suffix}: a .{suffix.lower()} file is not read for prompts; "
    assert said(f"s.{suffix}", 'prompts:\n  - "Who goes"\n') == begin + (
        'give a .txt file with one prompt per line, a .jsonl file of lines such as {"prompt": "Who goes"}, '
        "or .ndjson, .json, .csv, .tsv, .parquet or .arrow"
    )


@pytest.mark.parametrize("name", ["s", "s.txt", "s.TXT", "s.text", "s.lst", "s.prompts"])
def test_lines_of_text_are_prompts_as_they_stand(name: str) -> None:
    assert found(name, '{"prompt": "a"}\r\n a,b \n') == ['{"prompt": "a"}', " a,b "]


def test_of_a_folder_the_files_of_one_kind_are_read() -> None:
    Path("d/data").mkdir(parents=True)
    Path("d/README.md").touch()
    Path("d/data/b.csv").write_text("prompt\nb\n")
    Path("d/data/a.TSV").write_text("prompt\ta\na\ta\n")
    Path("d/data/info.json").write_text("{}")
    assert [prompt.text for prompt in prompts(["d"])] == ["a", "b"]
    Path("d/one.json").write_text('["c"]')
    assert [prompt.text for prompt in prompts(["d"])] == ["c"]
    Path("d/one.txt").write_text("d")
    assert [prompt.text for prompt in prompts(["d"])] == ["d"]


def given(monkeypatch: pytest.MonkeyPatch, content: str | bytes, field: str = "") -> list[str]:
    data = content if isinstance(content, bytes) else content.encode()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))
    return [prompt.text for prompt in prompts(["-"], field)]


def test_prompts_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, "\ufeffWho\r\n\nodd\rone\n{}") == ["Who", "odd\rone", "{}"]
    assert given(monkeypatch, '\n{"prompt": "a"}\n{"text": "b"}\n') == ["a", "b"]
    assert given(monkeypatch, '{"q": "a"}\n"b"\n', "q") == ["a", "b"]
    for content, sentence in {
        "": "standard input is empty; give it one prompt per line",
        '{"prompt": "a"}\nb\n': "standard input, line 2: not JSON; ",
        b"a\n\xff": "standard input, line 2: byte 0xff is not UTF-8",
    }.items():
        with pytest.raises(UsageError, match=sentence):
            given(monkeypatch, content)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is empty"):
        list(prompts(["-"]))


@pytest.mark.parametrize("level", ["char", "token"])
def test_half_a_surrogate_is_outside_every_alphabet(level: str) -> None:
    spelled = TextSpace(tokens().symbols, tokens=tokens())
    space = spelled if level == "token" else TextSpace(tuple(map(chr, range(32, 127))))
    Path("s.jsonl").write_text(
        rows("fine", {"prompt": "bad \ud83d half"}, [{"role": "user", "content": "\udc00"}])
    )
    with pytest.raises(
        UsageError, match=r"^s\.jsonl, line 2: character '\\ud83d' is not in the model's alpha"
    ):
        read(["s.jsonl"], space)
    kept = read(["s.jsonl"], space, "drop")
    assert space.texts(kept.batch) == ["fine", "bad  half"]
    assert (kept.dropped, kept.left_out) == (2, 1)
