"""How plug-ins and their parameters are written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.plugins.grammar import Call, Value, parse, spell

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
identifiers = st.from_regex(r"[a-zA-Z_][a-zA-Z_0-9]{0,8}", fullmatch=True)
called = st.one_of(
    identifiers,
    st.sampled_from(["a.b:Class", "dir/my-file.py:Outer.Inner", "~/x.py:f", "true", "null", "my dir/m.py:C"]),
)


def _parameters(pairs: list[tuple[str, Value]], first: tuple[str, ...]) -> tuple[tuple[str, Value], ...]:
    distinct = dict(pairs)
    unnamed = [("", text) for text in first]
    return (*unnamed, *distinct.items())


parameters = st.builds(
    _parameters, st.lists(st.tuples(identifiers, values), max_size=3), st.lists(st.text(), max_size=1)
)
calls = st.recursive(
    st.builds(Call, called, parameters),
    lambda inner: st.builds(Call, called, parameters, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None)
@given(calls)
def test_a_call_written_out_reads_back_the_same(call: Call) -> None:
    again = parse(str(call))
    assert again == call
    assert repr(again) == repr(call)  # also 1, 1.0 and True, which are equal, are told apart


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.text(alphabet='ab1.:,=()[]{}"\\ -/', max_size=30))
def test_any_text_is_a_call_or_a_sentence(text: str) -> None:
    try:
        call = parse(text)
    except UsageError as error:
        call, said = None, str(error)
    assert parse(str(call)) == call if call else text in said


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("repetition", Call("repetition")),
        (" repetition : times = 4 ", Call("repetition", (("times", 4),))),
        ("x:a=1,b=two words,c=[1, 2]", Call("x", (("a", 1), ("b", "two words"), ("c", [1, 2])))),
        ('regex:"\\\\d+"', Call("regex", (("", "\\d+"),))),
        (r"regex:pattern=\d{2,3},x=1", Call("regex", (("pattern", r"\d{2,3}"), ("x", 1)))),
        (r"regex:pattern=\(,x=1", Call("regex", (("pattern", r"\("), ("x", 1)))),
        ("regex:pattern=(a,b)|c", Call("regex", (("pattern", "(a,b)|c"),))),
        ('x:a="1, 2",b=say "a, b" now', Call("x", (("a", "1, 2"), ("b", 'say "a, b" now')))),
        ("x:a=b=c", Call("x", (("a", "b=c"),))),
        ("x:file=corpora:words/a.txt", Call("x", (("file", "corpora:words/a.txt"),))),
        ("my.py:Detector:threshold=3", Call("my.py:Detector", (("threshold", 3),))),
        ("dir/my.py:Outer.Inner", Call("dir/my.py:Outer.Inner")),
        ("pkg.mod:Class:3", Call("pkg.mod:Class", (("", 3),))),
        ("x:true", Call("x", (("", True),))),
        ("x:a=null,b=007,c=1e3,d=NaN", Call("x", (("a", None), ("b", "007"), ("c", "1e3"), ("d", "NaN")))),
        ('x:a={"b": 1}', Call("x", (("a", '{"b": 1}'),))),
        ('x:a=[{"b": 1}]', Call("x", (("a", '[{"b": 1}]'),))),
        ('x:a=[[{"b": 1}]]', Call("x", (("a", '[[{"b": 1}]]'),))),
        ("x:a=[1e999]", Call("x", (("a", "[1e999]"),))),
        (
            'all(repetition:times=4,period=9, phrases:words=["murder"])',
            Call(
                "all",
                (),
                (
                    Call("repetition", (("times", 4), ("period", 9))),
                    Call("phrases", (("words", ["murder"]),)),
                ),
            ),
        ),
        (
            "any(all(a, m.py:B), c):least=2",
            Call("any", (("least", 2),), (Call("all", (), (Call("a"), Call("m.py:B"))), Call("c"))),
        ),
    ],
)
def test_reading(text: str, call: Call) -> None:
    assert parse(text) == call


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a name is missing"),
        ("all(a,)", "a name is missing"),
        ("all()", "a name is missing"),
        (":x=1", "a name is missing before ':x=1'"),
        ("a, b", "it names a and b"),
        ("a,x=1", "as in a:x=1"),
        ("a(b)c", "follow a colon"),
        ("a:", "a value is missing"),
        ("a:x=1,", "a name is missing"),
        ("a:x=", 'write x="" for empty text'),
        ("a:x=1,x=2", "x is given twice"),
        (r"regex:\d+", r'or quotes: "\\d+"'),
        (r'regex:pattern="\d"', "is not JSON text"),
        ("a:x=(", "'(' is never closed"),
        ('a:x="b', "'\"' is never closed"),
        ("a:x=)", "')' closes nothing"),
        ("a:x=(]", "']' closes nothing"),
        ("(" * 5000, "more than 40 deep"),
        ("a:x=" + "[" * 5000, "more than 40 deep"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a/b.txt", "a/b.txt"),
        ("3", '"3"'),
        ("null", '"null"'),
        ("a b", '"a b"'),
        (True, "true"),
        (2.0, "2.0"),
    ],
)
def test_values_are_spelled_bare_where_that_reads_back(value: Value, text: str) -> None:
    assert spell(value) == text
