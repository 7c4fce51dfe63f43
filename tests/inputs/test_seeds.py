"""Seed prompts from files and folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmfuzz.errors import UsageError
from lmfuzz.inputs.seeds import Seeds, Unknown, read, read_box, suit
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import SEED

SPACE = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz \\\n\r\u2028"), min_length=2, max_length=12)
ENGLISH = TextSpace(tuple(map(chr, [10, *range(32, 127)])))


def file(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def prompts(*paths: str, unknown: Unknown = "error") -> list[str]:
    return SPACE.texts(read(paths, SPACE, unknown).batch)


def said(*paths: str, unknown: Unknown = "error") -> str:
    with pytest.raises(UsageError) as error:
        read(paths, SPACE, unknown)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_prompt_per_line_exactly_as_it_stands(tmp_path: Path) -> None:
    text = "\ufeff my lord\nwho \r\n\n   \nno\\nbreak\nodd\u2028one\nno end"
    path = file(tmp_path / "a.txt", text)
    assert prompts(path) == [" my lord", "who ", "no\\nbreak", "odd\u2028one", "no end"]


def test_the_rows_are_seeds_in_the_space(tmp_path: Path) -> None:
    batch = read([file(tmp_path / "a.txt", "ab\nabcdef")], SPACE).batch
    assert SPACE.legal(batch).all()
    assert batch.lengths.tolist() == [2, 6]
    assert set(batch.parent) == set(batch.operator) == {SEED}


def test_json_lines_may_hold_newlines(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl", '{"prompt": "one\\ntwo", "id": 3}\n\n{"prompt": "   "}\n')
    assert prompts(path) == ["one\ntwo", "   "]


def test_a_prompt_itself_can_be_a_seed() -> None:
    assert prompts("text:a b", "text:b\nc") == ["a b", "b\nc"]
    assert said("text:zAp") == (
        "the seed 'zAp': character 'A' is not in the model's alphabet; --unknown drop drops such characters"
    )
    assert said("text:") == "the seed '': the prompt has 0 characters, fewer than --min-length asks for (2)"


def test_a_folder_is_its_seed_files_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl", "c.txt"):
        prompt = name.replace(".", " ")
        file(tmp_path / name, f'{{"prompt": "{prompt}"}}' if name == "a.jsonl" else prompt)
    for name in ("README.md", ".hidden.txt", "d.csv"):
        file(tmp_path / name, "not a seed")
    (tmp_path / "deeper").mkdir()
    assert prompts(str(tmp_path)) == ["a jsonl", "b txt", "c txt"]
    assert prompts(f"{tmp_path}/c.txt", str(tmp_path))[0] == "c txt"


def test_repeated_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    first, second = file(tmp_path / "a.txt", "xy\nab\nxy"), file(tmp_path / "b.txt", "ab\ncd")
    seeds = read([first, second], SPACE)
    assert SPACE.texts(seeds.batch) == ["xy", "ab", "cd"]
    assert seeds.repeated == 2


def test_characters_outside_the_alphabet_are_dropped_when_asked_to(tmp_path: Path) -> None:
    path = file(tmp_path / "a.txt", "Hé, you\nA\nXab\nab\n" + "long and É\n")
    seeds = read([path], SPACE, "drop")
    assert SPACE.texts(seeds.batch) == [" you", "ab", "long and "]
    assert (seeds.dropped, seeds.left_out, seeds.repeated) == (3 + 1 + 1 + 1, 1, 1)
    assert said(path) == (
        f"{path}, line 1: characters ',', 'H', 'é' are not in the model's alphabet;"
        " --unknown drop drops such characters"
    )


EMPTY = "{} is empty; give it one prompt per line"
LONG = "the prompt has 13 characters, more than --max-length allows (12)"
SHORT = "the prompt has 1 character, fewer than --min-length asks for (2)"
ODD = "not in the model's alphabet; --unknown drop drops such characters"
NONE = "no prompt in {} has 2 to 12 characters of the model's alphabet; give others with --seeds"


@pytest.mark.parametrize(
    ("text", "unknown", "sentence"),
    [
        ("", "error", EMPTY),
        ("\n \n", "drop", EMPTY),
        ("ok\n\nabcdefghijklm", "error", "{}, line 3: " + LONG),
        ("ok\nabcdefghijklmÉ", "drop", "{}, line 2: " + LONG),
        ("ok\na", "error", "{}, line 2: " + SHORT),
        ("ok\na", "drop", "{}, line 2: " + SHORT),
        ("ok\nQ a", "error", "{}, line 2: character 'Q' is " + ODD),
        ("ABCDEFG", "error", "{}, line 1: characters 'A', 'B', 'C', 'D', 'E' and 2 more are " + ODD),
        ("ABCDE", "error", "{}, line 1: characters 'A', 'B', 'C', 'D', 'E' are " + ODD),
        (b"ok\nfine\nab\xff\xfe", "error", "{}, line 3: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("ABC\nD", "drop", NONE),
    ],
)
def test_wrong_files_get_a_sentence(
    tmp_path: Path, text: str | bytes, unknown: Unknown, sentence: str
) -> None:
    path = file(tmp_path / "a.txt", text)
    assert said(path, unknown=unknown) == sentence.format(path)


def test_missing_and_empty_places(tmp_path: Path) -> None:
    assert said(str(tmp_path / "none.txt")) == f"there is no seed file or folder {tmp_path}/none.txt"
    assert said(str(tmp_path)) == (
        f"the folder {tmp_path} has no files to read prompts from; such files end in .txt, .jsonl, .ndjson, "
        ".csv, .tsv, .parquet, .arrow, .json"
    )
    file(tmp_path / "a.txt", "ok")
    file(tmp_path / "b.txt", "")
    assert said(str(tmp_path)) == f"{tmp_path}/b.txt is empty; give it one prompt per line"
    assert "have no 'seads'; did you mean 'seeds'?" in said("corpora:seads")


def test_bundled_seeds_are_the_default_and_those_that_do_not_fit_are_left_out() -> None:
    whole = read([], ENGLISH)
    assert len(whole.batch) > 50
    assert whole.left_out == 0
    small = read([], TextSpace(ENGLISH.symbols, min_length=2, max_length=20))
    assert 0 < len(small.batch) == len(whole.batch) - small.left_out
    with pytest.raises(UsageError, match="no prompt in corpora:seeds has 1 to 64 characters"):
        read([], TextSpace(("é",)))
    with pytest.raises(UsageError, match="line 1: "):  # asked for by name they are checked like others
        read(["corpora:seeds/prose.txt"], TextSpace(ENGLISH.symbols, max_length=20))


def test_reading_stops_at_the_count_of_prompts(tmp_path: Path) -> None:
    path = file(tmp_path / "a.txt", "ab\ncd\nab\nef\nThis is never read\n")
    assert SPACE.texts(read([path], SPACE, count=3).batch) == ["ab", "cd", "ef"]
    assert "line 5" in said(path)


def test_bundled_prompts_suit_an_alphabet_that_has_most_of_them() -> None:
    assert suit("corpora:seeds", ENGLISH)
    assert suit("corpora:seeds", TextSpace(ENGLISH.symbols, max_length=2))  # too long is another matter
    lower = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz "))
    assert not suit("corpora:seeds", lower)
    assert suit("corpora:seeds", lower, "drop")
    assert not suit("corpora:seeds", TextSpace(("é", "e")), "drop")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.text("ab é\t\\", max_size=9), min_size=1, max_size=9))
def test_every_row_is_taken_over_left_out_or_repeated(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    path = file(tmp_path_factory.getbasetemp() / "rows.txt", "\n".join(rows))
    asked = [row for row in rows if row.strip()]
    kept = ["".join(c for c in row if c in SPACE.symbols) for row in asked]
    fits = [row for row in kept if len(row) >= SPACE.min_length]
    short = [row for row in asked if len(row) < SPACE.min_length]
    if set(short) & set(kept) or not fits:  # too short as they stand, not for what was dropped
        with pytest.raises(UsageError):
            read([path], SPACE, "drop")
        return
    seeds: Seeds = read([path], SPACE, "drop")
    assert SPACE.texts(seeds.batch) == list(dict.fromkeys(fits))
    assert len(seeds.batch) + seeds.repeated + seeds.left_out == len(asked)
    assert seeds.dropped == sum(map(len, asked)) - sum(map(len, kept))


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    box, path = BoxSpace((3,)), tmp_path / "rows.npy"
    np.save(path, np.zeros((5, 3), np.float32))
    content = path.read_bytes()
    assert len(read_box([str(path)], box, None, 0).batch) == 5
    np.savez(archive := tmp_path / "a.npz", np.zeros((5, 3)))
    wrong = content.replace(b"(5, 3), }  ", b"(9**9, 3), }")
    huge = content.replace(b"(5, 3), }         ", b"(99999999999, 3),}")
    cuts = [content[:i] for i in range(len(content))]
    objects = pickled(np.array([[None] * 3], object), tmp_path)
    for data in (*cuts, archive.read_bytes(), wrong, huge, objects):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"rows\.npy is not an array that numpy\.save wrote: "):
            read_box([str(path)], box, None, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("step", [0.0, 1 / 255])
def test_seeds_of_numbers_must_be_finite(tmp_path: Path, value: float, step: float) -> None:
    np.save(path := tmp_path / "rows.npy", np.array([[0.5, value, 0.5]], np.float32))
    with pytest.raises(UsageError, match="must be finite numbers"):
        read_box([str(path)], BoxSpace((3,), step=step), None, 0)


def pickled(array: np.ndarray, folder: Path) -> bytes:
    np.save(folder / "objects.npy", array, allow_pickle=True)
    return (folder / "objects.npy").read_bytes()


def test_bundled_seeds_are_folded_to_the_alphabet_and_those_of_a_user_are_not(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    path.write_text("Caf\u00e9 \u2014 \u201cnow\u201d\nIt\u2019s\n\u0436\nplain\n", encoding="utf-8")
    space = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz '\"-"), 1, 30)
    found = read([], space, bundled=str(path))
    assert texts(found, space) == ['cafe - "now"', "it's", "plain"]
    assert found.notes == [
        "seeds left out because they do not fit the model (1 for characters that it lacks, which --unknown"
        " drop drops): 1"
    ]
    large = TextSpace(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ "), 1, 30)
    assert texts(read([], large, "drop", bundled=str(path)), large) == ["CAFE  NOW", "ITS", "PLAIN"]
    with pytest.raises(UsageError, match="not in the model's alphabet; --unknown drop"):
        read([str(path)], space)
    small = TextSpace(tuple(c for c in ENGLISH.symbols if not c.isupper()), 1, 64)
    assert (
        len(read([], small).batch) >= len(read([], replace(ENGLISH, max_length=64)).batch) - 5
    )  # alike then


def texts(found: Seeds, space: TextSpace) -> list[str]:
    return [space.decode(found.batch.row(i)) for i in range(len(found.batch))]
