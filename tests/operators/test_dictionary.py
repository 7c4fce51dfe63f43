"""Dictionaries in the format of libFuzzer and AFL, and the operator that uses them."""

from pathlib import Path

import numpy as np
import pytest

from helpers.begun import MODEL, parts
from helpers.small_lms import tokens
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.operators.dictionary import Dictionary, parse
from lmfuzz.operators.havoc import Havoc
from lmfuzz.protocols import MutationContext
from lmfuzz.spec import Spec
from lmfuzz.targets.toy import Toy
from lmfuzz.types import Batch

SPACE = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz\n"), 2, 12)


CORPORA = Path(__file__).parents[2] / "corpora"


def around(space=SPACE):
    return MutationContext(space, Batch.of([space.encode("aa")]), np.random.default_rng(0))


def rows(text, count=200):
    return Batch.of([SPACE.encode(text)] * count)


def test_reads_entries_with_and_without_names_and_levels():
    content = """# a comment, "not" an entry

"plain"
kw1="named"
  kw_2 = "spaced"\t\r
deep@3="level"
"with # and = inside"
"plain"
"""
    assert parse(content, "x.dict") == ["plain", "named", "spaced", "level", "with # and = inside"]


def test_reads_escapes():
    assert parse(r'a="\\ \" \x41\x0a"', "x") == ['\\ " A\n']
    assert parse(r'"\xC3\xa9"' + '\n"é!"\n"\\\\x41"', "x") == ["é", "é!", "\\x41"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("word", "is not an entry; write name="),
        ('"open', "is not an entry"),
        ('"two" "entries"', "is not an entry"),
        ('"a""', "is not an entry"),
        ('"ends in \\"', "is not an entry"),
        ('two words="x"', "is not an entry"),
        ('""', "must not be empty"),
        ('kw=""', "must not be empty"),
        (r'"\n"', r"\\n is not an escape"),
        (r'"\x4"', r"\\x is not an escape"),
    ],
)
def test_complains_with_file_and_line(line, complaint):
    with pytest.raises(UsageError, match=rf"^my\.dict, line 3: .*{complaint}"):
        parse('"fine"\n\n' + line + '\n"fine"', "my.dict")


def test_an_entry_stands_in_every_row_inserted_or_written_over():
    changed = SPACE.texts(Dictionary(entries=["zounds", "xy"])(rows("abcdefgh"), around()))
    assert {len(text) for text in changed} == {8, 10, 12}  # 14 is too long: the front gave way
    for text in changed:
        assert "zounds" in text or "xy" in text
    assert any("zounds" in text for text in changed)
    assert any("xy" in text for text in changed)
    assert "xyabcdefgh" in changed
    assert "abcdefghxy" in changed
    assert "abcdefxy" in changed
    assert not any(text.endswith("abcdefghzounds") for text in changed)
    assert "cdefghzounds" in changed


def test_an_entry_as_long_as_a_row_may_be_is_the_row():
    assert set(SPACE.texts(Dictionary(entries=["z" * 12])(rows("ab"), around()))) >= {"z" * 12}
    for text in SPACE.texts(Dictionary(entries=["z" * 12])(rows("abcdefghijkl"), around())):
        assert text == "z" * 12


def test_an_entry_may_stand_where_the_row_is_shorter():
    changed = SPACE.texts(Dictionary(entries=["zzzzz"])(rows("ab"), around()))
    assert set(changed) == {"zzzzz", "zzzzzab", "azzzzzb", "abzzzzz"}


def test_entries_the_model_cannot_write_are_skipped():
    changed = SPACE.texts(Dictionary(entries=["Ü", "q", "z" * 13])(rows("abcd"), around()))
    assert all("q" in text for text in changed)
    assert not any("zz" in text for text in changed)


def test_bytes_that_are_not_text_are_skipped_and_counted(tmp_path):
    file = tmp_path / "a.dict"
    file.write_text(r'magic="\xff\xd8\xff"' + "\n" + r'half="\xed\xa0\xbd"' + '\nking="king"\n"Ü"\n')
    operator = Dictionary(str(file))
    assert operator.notes(SPACE) == [f"entries of the dictionary {file} that no prompt can hold, skipped: 3"]
    assert Havoc(dictionary=str(file)).notes(SPACE) == operator.notes(SPACE)
    assert all("king" in text for text in SPACE.texts(operator(rows("abcd"), around())))
    assert Dictionary(entries=["king"]).notes(SPACE) == Havoc().notes(SPACE) == []
    given = Spec(model=MODEL, objectives=["repetition"], seeds=["text:ab"], dictionary=str(file))
    assert parts(given, Toy()).notes[-1] == operator.notes(SPACE)[0]
    spelled = TextSpace(tokens().symbols, tokens=tokens())
    assert operator.notes(spelled)[0].endswith("skipped: 2")


def test_complains_when_no_entry_is_left():
    operator = Dictionary(entries=["Ü", "z" * 13])
    with pytest.raises(UsageError, match=r"can be used; .* has at most 12 symbols"):
        operator(rows("abcd"), around())


def test_reads_a_file_and_entries(tmp_path):
    file = tmp_path / "a.dict"
    file.write_bytes(b'\xef\xbb\xbf"one"\nkw="two"\n')
    assert Dictionary(str(file), ["three", "two", ""]).entries == ["one", "two", "three"]


def test_complains_about_a_missing_or_empty_file(tmp_path):
    with pytest.raises(UsageError, match=r"there is no dictionary .*none\.dict"):
        Dictionary(str(tmp_path / "none.dict"))
    (tmp_path / "latin.dict").write_bytes(b'"fine"\n"\xff"')
    with pytest.raises(UsageError, match=r"latin\.dict, line 2: byte 0xff is not UTF-8"):
        Dictionary(str(tmp_path / "latin.dict"))
    (tmp_path / "empty.dict").write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"empty\.dict has no entry"):
        Dictionary(str(tmp_path / "empty.dict"))
    with pytest.raises(UsageError, match="needs entries: dictionary:file=words"):
        Dictionary()


def test_knows_the_bundled_corpora():
    entries = Dictionary(str(CORPORA / "dictionaries/shakespeare.dict")).entries
    assert "\n\nROMEO:\n" in entries
