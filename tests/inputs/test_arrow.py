"""Prompts in Parquet files, Arrow files and saved datasets."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from lmfuzz.errors import UsageError
from lmfuzz.inputs.prompts import prompts

pa = pytest.importorskip("pyarrow", reason="Parquet and Arrow files need pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"id": i, "question": f"Who {i}", "meta": {"ask": f"What {i}"}} for i in range(3000)]
CHAT = [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Who goes"}]}]


def found(path: Path, field: str = "") -> list[str]:
    return [prompt.text for prompt in prompts([str(path)], field)]


def said(path: Path, field: str = "") -> str:
    with pytest.raises(UsageError) as error:
        found(path, field)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, rows: list[dict[str, Any]], indexed: bool = False) -> Path:
    """A file of rows, in the format that its name says."""
    table = pa.Table.from_pylist(rows)
    if path.suffix.lower() == ".parquet":
        parquet.write_table(table, path)
    else:
        make = pa.ipc.new_file if indexed else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize(("name", "indexed"), [("a.parquet", False), ("a.arrow", False), ("a.ARROW", True)])
def test_a_column_is_read(tmp_path: Path, name: str, indexed: bool) -> None:
    path = write(tmp_path / name, ROWS, indexed)
    assert found(path) == [row["question"] for row in ROWS]
    assert found(path, "meta.ask") == [row["meta"]["ask"] for row in ROWS]
    assert found(write(tmp_path / name, CHAT, indexed)) == ["Who goes"]
    assert said(path := write(tmp_path / name, [{"a": "b"}], indexed)).startswith(
        f"{path}: no field is named prompt, text, question, goal or messages (the fields are 'a')"
    )
    assert said(write(path, [{"text": "a"}, {"text": None}])).startswith(f"{path}, row 2: no field is named ")
    assert said(write(path, [{"text": b"a"}])).startswith(f"{path}, row 1: text is neither a text nor ")


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr("lmfuzz.inputs.arrow.find_field", lambda names, *_: read.append(names))
    some = prompts([str(write(tmp_path / "a.parquet", ROWS))])
    assert [next(some).text for _ in range(3)] == ["Who 0", "Who 1", "Who 2"]
    assert read == [["id", "question", "meta"]]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_damaged_file_gets_a_sentence(tmp_path: Path, name: str) -> None:
    (path := tmp_path / name).write_bytes(b"no such format, whatever it is called")
    assert said(path).startswith(f"cannot read {path}: ")
    path.write_bytes(b"")
    assert said(path).startswith(f"cannot read {path}: ")


def save(folder: Path, parts: list[list[dict[str, Any]]]) -> Path:
    """A folder as the library datasets saves one."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    for name, rows in zip(names, parts, strict=True):
        write(folder / name, rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    write(folder / "cache-1.arrow", [{"prompt": "never read"}])
    return folder


def test_a_saved_dataset_is_read(tmp_path: Path) -> None:
    assert found(save(tmp_path / "one", [ROWS[:2], ROWS[2:4]])) == ["Who 0", "Who 1", "Who 2", "Who 3"]
    save(tmp_path / "dict/train", [ROWS[:2]])
    splits = tmp_path / "dict/dataset_dict.json"
    splits.write_text('{"splits": ["train"]}')
    assert found(tmp_path / "dict") == ["Who 0", "Who 1"]
    splits.write_text('{"splits": ["train", "test"]}')
    assert said(tmp_path / "dict") == (
        f"{tmp_path}/dict is a dataset of the splits train, test; give one, such as {tmp_path}/dict/train"
    )
    splits.write_text("{}")
    assert said(tmp_path / "dict").startswith(f"{tmp_path}/dict is not a saved dataset: KeyError")


@pytest.mark.parametrize("indexed", [False, True])
def test_offsets_that_point_out_of_the_file_are_refused_before_they_are_followed(
    tmp_path: Path, indexed: bool
) -> None:
    path = write(tmp_path / "a.arrow", [{"prompt": "Who goes"}, {"prompt": "there"}], indexed)
    content, offsets = path.read_bytes(), struct.pack("<3i", 0, 8, 13)
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<3i", 0, 8, 2**30)))
    assert said(path).startswith(f"cannot read {path}: ArrowInvalid")
