"""What is not in the format that was asked for, what could not be judged yet, and how near a row was."""

import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.format import Format, begins_json
from lmfuzz.plugins.grammar import parse
from lmfuzz.types import Batch

NAN = np.nan
PERSON = {
    "type": "object", "required": ["name"], "additionalProperties": {"type": "integer"},
    "properties": {
        "name": {"type": "string", "maxLength": 5}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
}  # fmt: skip


@pytest.fixture
def person(tmp_path):
    return written(tmp_path, PERSON)


def written(folder, schema):
    path = folder / "schema.json"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")
    return str(path)


def shown(*texts, ended=True, logprob=None):
    trace = {"text": np.array(texts, object), "ended": np.full(len(texts), ended)}
    if logprob is not None:
        trace["logprob"] = np.array(logprob, np.float32)
    return Batch.of([np.zeros(1, np.int32)] * len(texts)), trace


def margins(objective, *texts, **how):
    got = objective(*shown(*texts, **how))
    assert got.shape == (len(texts), 1)
    assert got.dtype == np.float32
    return got[:, 0].tolist()


def why(objective, text, ended=True):
    assert margins(objective, text, ended=ended)[0] > 0
    return objective.evidence(*shown(text, ended=ended), 0, 0)


# --- schemas ---


@pytest.mark.parametrize(
    ("answer", "margin", "signature"),
    [
        ('{"name": "Ann"}', -np.inf, ""),
        (' \n{"name": "Ann", "tags": ["a"], "age": 3}\n ', -np.inf, ""),
        ('{"nam": 3}', 0.5, "schema: required at /"),
        ("[]", 0.5, "schema: type at /"),
        ('{"name": 3}', 0.5, "schema: type at /name"),
        ('{"name": "Joanna"}', 0.5, "schema: maxLength at /name"),
        ('{"name": "", "tags": ["a", "a", "c"]}', 0.5, "schema: enum at /tags/*"),
        ('{"name": "", "whatever it wrote": "c"}', 0.5, "schema: type at /*"),
        ("Sure! {}", 1, "not JSON: expecting value"),
        ('{"name": "Ann"', 1, "not JSON: expecting ',' delimiter"),
        ('{name: "Ann"}', 1, "not JSON: expecting property name enclosed in double quotes"),
        ('{"name": "Ann', 1, "not JSON: unterminated string"),
        ('{"name": "A\nn"}', 1, "not JSON: invalid control character"),
        ('{"name": "\\x"}', 1, "not JSON: invalid \\escape"),
        ('{"name": "Ann"} ok?', 1, "not JSON: extra data"),
        ('{"name": NaN}', 1, "not JSON: NaN is not a number in JSON"),
        ("", 1, "empty"),
        ("  \n", 1, "empty"),
    ],
)
def test_an_answer_must_satisfy_the_schema(person, answer, margin, signature):
    objective = Format(schema=person)
    assert margins(objective, answer) == [margin]
    if margin > 0:
        assert why(objective, answer).signature == signature
    else:
        with pytest.raises(ValueError, match="is valid"):
            objective.evidence(*shown(answer), 0, 0)


def test_evidence_tells_the_rule_the_place_and_where_the_text_goes_wrong(person):
    objective = Format(schema=person)
    found = why(objective, '{"name": "", "tags": ["a", "c"]}')
    assert found.words == "'c' is not one of ['a', 'b'] (enum at $.tags[1])"
    assert found.span is None
    text = '  ```json\n {"name": "Ann"} ok?\n```\n'
    assert text[slice(*why(objective, text).span)].startswith("ok?")
    assert "character 17" in why(objective, text).words
    assert len(why(objective, json.dumps({"name": "x" * 500})).words) < 250


@pytest.mark.parametrize(
    "draft", ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-04/schema#"]
)
def test_schemas_of_many_drafts_and_with_references_work(tmp_path, draft):
    schema = {
        "$schema": draft,
        "definitions": {"x": {"type": "integer"}},
        "items": {"$ref": "#/definitions/x"},
    }
    objective = Format(schema=written(tmp_path, schema))
    assert margins(objective, "[1, 2]", '[1, "2"]') == [-np.inf, 0.5]
    assert margins(Format(schema=written(tmp_path, {"$ref": draft})), '{"type": 3}') == [0.5]
    assert margins(Format(schema=written(tmp_path, "false")), "[1]") == [0.5]


def test_a_schema_that_goes_round_leaves_rows_unscored(tmp_path):
    assert np.isnan(margins(Format(schema=written(tmp_path, {"$ref": "#"})), "[1]")[0])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON schema"),
        ('{"type": "strin"}', "is not a JSON schema: 'strin' is not valid"),
        ('{"pattern": "("}', "is not a JSON schema: '\\(' is not a 'regex'"),
        (
            '{"$schema": "http://nowhere.example/x"}',
            "of an unknown draft, 'http://nowhere.example/x'",
        ),
        ('{"$schema": [5]}', "of an unknown draft"),
        ('{"$ref": "http://nowhere.example/x"}', "refers to 'http://nowhere.example/x', which is not in it"),
        ('{"items": {"$ref": "#/definitions/x"}}', "refers to '#/definitions/x', which is not in it"),
    ],
)
def test_a_bad_schema_is_told_in_one_sentence(tmp_path, schema, words):
    path = written(tmp_path, schema)
    with pytest.raises(UsageError, match=words) as caught:
        Format(schema=path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"there is no schema .*lost\.json"):
        Format(schema=str(tmp_path / "lost.json"))
    with pytest.raises(UsageError, match="is a folder, not a schema"):
        Format(schema=str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'"caf\xe9"')
    with pytest.raises(UsageError, match="is not UTF-8"):
        Format(schema=str(tmp_path / "latin.json"))


# --- fences ---


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", "\n```JSON \n\n{}\n\n```\n"])
def test_a_fence_around_the_answer_is_taken_off(person, fence):
    answer, wrong = fence.format('{"name": "Ann"}'), fence.format('{"name": 1}')
    assert margins(Format(schema=person), answer, wrong) == [-np.inf, 0.5]
    assert margins(Format(schema=person, fenced=False), answer, wrong) == [1, 1]
    assert why(Format(schema=person), fence.format("")).signature == "empty"


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"name": ""}',
        '```json\n{"name": ""}\n``',
        '``\n{"name": ""}\n``',
        '```{"name": ""}```',
        'Here:\n```\n{"name": ""}\n```',
    ],
)
def test_a_fence_that_is_none_stays(person, text):
    assert margins(Format(schema=person), text) == [1]


# --- cut off ---


@pytest.mark.parametrize(
    "text", ['{"name": "Ann", "tags": ["a", "b"], "n": -1}', '```json\n{"name": "Ann"}\n```']
)
def test_a_beginning_of_what_satisfies_could_not_be_judged(person, text):
    got = margins(Format(schema=person), *(text[:n] for n in range(len(text) + 1)), ended=False)
    assert np.isnan(got).all()
    with pytest.raises(ValueError, match="could not be judged"):
        Format(schema=person).evidence(*shown(text, ended=False), 0, 0)


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("I think", 1), ('{"name": x', 1), ('{"name": "Ann"} and', 1), ("{]", 1), ("```json\nno", 1),
        ('{"name": 3}', 0.5), ('["x"]\n', 0.5), ("3", NAN), ("3.", NAN), ("true", 0.5), ("```yaml", NAN),
        ('```{"name"', 1),
    ],
)  # fmt: skip
def test_what_can_no_longer_satisfy_is_a_violation_however_it_goes_on(person, text, margin):
    np.testing.assert_array_equal(margins(Format(schema=person), text, ended=False), [margin])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e30, 1e30) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_all_that_json_begins_with_is_a_beginning(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert all(begins_json(text[:n]) for n in range(len(text) + 1))


def slowly_begins(text):
    """Whether JSON begins so, by a machine that reads it character by character."""
    stack, at, strings = [], "value", {"key": "colon", "string": "after"}
    number = re.compile(r"-?(?:0|[1-9]\d*)?(?:(?<=\d)\.\d*)?(?:(?<=\d)[eE][+-]?\d*)?")
    i = 0
    while i < len(text):
        c = text[i]
        if c in " \n":
            i += 1
        elif c == '"' and at in ("value", "first", "key", "first key"):
            body = re.match(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*', text[i:]).group()
            i += len(body)
            if i == len(text) or re.fullmatch(r"\\(u[0-9a-fA-F]{0,3})?", text[i:]):
                return True
            if text[i] != '"':
                return False
            i, at = i + 1, strings["key" if "key" in at else "string"]
        elif c in "[{" and at in ("value", "first"):
            stack.append(c)
            i, at = i + 1, "first" if c == "[" else "first key"
        elif c in "]}" and stack and at in ("after", "first" if c == "]" else "first key"):
            if stack.pop() != {"]": "[", "}": "{"}[c]:
                return False
            i, at = i + 1, "after"
        elif c == ":" and at == "colon":
            i, at = i + 1, "value"
        elif c == "," and at == "after" and stack:
            i, at = i + 1, "value" if stack[-1] == "[" else "key"
        elif at in ("value", "first"):
            word = next((w for w in ("true", "false", "null") if w.startswith(text[i : i + len(w)])), None)
            token = word[: len(text) - i] if word else number.match(text[i:]).group()
            i += len(token)
            if not token or (i < len(text) and not word and not token[-1].isdigit()):
                return False
            at = "after"
        else:
            return False
    return True


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            [*'[]{}:,"-.0e\\ ', "12", '"a"', '"a":', "true", "nul", "1.5e", "\\u12", "\\n", "1e+"]
        ), max_size=9,
    ).map("".join)
)  # fmt: skip
@example("[1,]")
@example("01")
@example("1.5.")
@example('{"a":1,}')
@example('"\\u12')
@example('{"a')
@example("-0.5E-")
def test_a_beginning_is_what_a_plain_reader_takes_for_one(text):
    assert begins_json(text) == slowly_begins(text)


# --- patterns ---


def test_a_pattern_must_match_the_whole_answer():
    objective = Format(pattern="(?i)(yes|no)[.!]?")
    assert margins(objective, "yes", " No! \n", "```\nno\n```") == [-np.inf] * 3
    assert margins(objective, "yes, it is", "maybe", "", "ye") == [1] * 4
    found = why(objective, "maybe")
    assert found.signature == "pattern"
    assert found.words == "'maybe' does not match '(?i)(yes|no)[.!]?'"
    assert why(objective, " ").signature == "empty"


def test_a_cut_off_answer_is_judged_where_the_pattern_can_no_longer_match():
    objective = Format(pattern=r"\d+ (apples|pears)")
    got = margins(
        objective, "", "12", "12 ", "12 app", "12 apples", "12 apples.", "a dozen", "``", ended=False
    )
    np.testing.assert_array_equal(got, [NAN, NAN, NAN, NAN, NAN, 1, 1, NAN])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "either schema=FILE .* or pattern=REGEX"),
        ({"schema": "a.json", "pattern": "x"}, "either schema=FILE .* or pattern=REGEX"),
        ({"pattern": "a(b"}, r"'a\(b' is not a regular expression: missing \) at position 3"),
    ],
)
def test_rules_that_mean_nothing_are_refused(how, words):
    with pytest.raises(UsageError, match=words):
        Format(**how)


# --- how near ---


def test_an_answer_that_satisfies_is_as_near_as_its_least_sure_step():
    steps = np.log([[0.9, 0.5, 0.99], [0.9, 0.01, 0.02], [1, 1, 1], [0.9, 0.7, 0.8]])
    steps[3, 2] = NAN
    got = margins(Format(pattern="yes"), *["yes"] * 4, logprob=steps)
    assert got == pytest.approx([-0.5, -0.01, -1, -0.7], rel=1e-5)


def test_no_answer_that_satisfies_is_a_hit():
    got = margins(Format(pattern="yes"), *["yes"] * 3, logprob=[[-1e9], [NAN], [-np.inf]])
    assert got == pytest.approx([-1e-6, -np.inf, -np.inf])


def test_violations_do_not_depend_on_grades():
    texts = ("yes", "no", "")
    assert margins(Format(pattern="yes"), *texts, logprob=np.full((3, 2), -1.0))[1:] == [1, 1]
    assert margins(Format(pattern="yes"), *texts) == [-np.inf, 1, 1]


def test_it_is_known_by_name():
    built = OBJECTIVES.build(parse('format:pattern="a|b"'))
    assert type(built) is Format
    assert built.needs == {"text", "ended"}
    assert built.grades == (frozenset({"logprob"}),)
    assert ObjectiveSet({"x": built}).targets == ("format", "crash")
