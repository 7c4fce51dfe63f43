"""Prompts from files of all formats, from folders, from standard input, and from the command line itself."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from lmfuzz.errors import UsageError, explaining, one_line
from lmfuzz.inputs import arrow
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.reading import decoded_lines, read_lines, read_text
from lmfuzz.inputs.rows import EXAMPLE, FIELDS, Prompt, find_field, is_conversation, prompt_of

TEXT = "text:"  # what follows is a prompt, not a file
STDIN = "-"
WHAT = "seed file or folder"
_TEXTS = ("", ".txt", ".text", ".lst", ".list", ".prompts", ".seeds", ".words")
_GROUPS = (  # of a folder, the files of the first group that is there are read
    (".txt", ".jsonl", ".ndjson"),
    (".csv", ".tsv", ".parquet", ".arrow"),
    (".json",),
)
Rows = Iterator[tuple[str, Any]]  # the place of each row, and the row as plain data
Lines = Iterable[tuple[int, str]]


def prompts(sources: Iterable[str], field: str = "") -> Iterator[Prompt]:
    """Yield every prompt of files, folders, ``-`` for standard input, and ``text:PROMPT``.

    A file is read as far as prompts are asked for, except that JSON (not JSON lines) is read whole.

    Args:
        sources: what to read.
        field: the field or column of the prompts; '' for the first of ``rows.FIELDS`` that is there.

    Raises:
        UsageError: something is not a prompt, with file and line.
    """
    for source in sources:
        if source.startswith(TEXT):
            yield Prompt(f"the seed {source.removeprefix(TEXT)!r}", source.removeprefix(TEXT))
            continue
        for file in [None] if source == STDIN else _files(resource(source)):
            name, empty = "standard input" if file is None else str(file), True
            for place, row in _stdin(name, field) if file is None else _format(file)(file, field):
                yield prompt_of(row, place, field)
                empty = False
            if empty:
                raise UsageError(f"{name} is empty; give it one prompt per line")


def _files(path: Path) -> list[Path]:
    """The files to read prompts from in a folder or a saved dataset; a file is one itself."""
    if not path.is_dir():
        return [path]
    saved, splits = path / "state.json", path / "dataset_dict.json"
    with explaining(f"{path} is not a saved dataset", UsageError):
        if saved.exists():
            return [path / data["filename"] for data in json.loads(read_text(saved, WHAT))["_data_files"]]
        if splits.exists():
            names = json.loads(read_text(splits, WHAT))["splits"]
            if len(names) == 1:
                return _files(path / names[0])
            example = f"give one, such as {path / names[0]}"
            raise UsageError(f"{path} is a dataset of the splits {', '.join(names)}; {example}")
    there = [file for file in sorted(path.iterdir()) if file.name[0] != "."]
    for group in _GROUPS:
        if files := [file for file in there if file.suffix.lower() in group]:
            return files
    if (path / "data").is_dir():  # as datasets on the Hugging Face hub have it
        return _files(path / "data")
    ends = ", ".join(chain.from_iterable(_GROUPS))
    raise UsageError(f"the folder {path} has no files to read prompts from; such files end in {ends}")


def _format(file: Path) -> Callable[[Path, str], Rows]:
    """What reads the rows of a file; UsageError if there is no such file, or nothing reads it."""
    suffix = file.suffix.lower()
    if not file.exists():
        raise UsageError(f"there is no {WHAT} {file}")
    if suffix not in FORMATS:
        raise UsageError(
            f"{file}: a {suffix} file is not read for prompts; give a .txt file with one prompt per line, a "
            f".jsonl file of lines such as {EXAMPLE}, or .ndjson, .json, .csv, .tsv, .parquet or .arrow"
        )
    return FORMATS[suffix]


def _stdin(name: str, field: str) -> Rows:
    """Rows of standard input: JSON lines if the first line is a JSON object or has a ``field``."""
    data = sys.stdin.buffer.read() if sys.stdin else b""
    lines = [*decoded_lines(BytesIO(data), name)]
    first = next((line.strip() for _, line in lines if line.strip()), "")
    return _json_lines(lines, name) if field or _is_object(first) else _text_lines(lines, name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _text(file: Path, _: str = "") -> Rows:
    return _text_lines(read_lines(file, WHAT), file)


def _text_lines(lines: Lines, name: object) -> Rows:
    """Lines without their ends, which are LF or CRLF and nothing else."""
    for number, line in lines:
        if line.strip():
            yield f"{name}, line {number}", line.removesuffix("\n").removesuffix("\r")


def _jsonl(file: Path, _: str = "") -> Rows:
    return _json_lines(read_lines(file, WHAT), file)


def _json_lines(lines: Lines, name: object) -> Rows:
    for number, line in lines:
        if line.strip():
            place = f"{name}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise UsageError(f"{place}: not JSON; write one object per line, such as {EXAMPLE}") from None
            yield place, row


def _json(file: Path, field: str) -> Rows:
    """Rows of a list, or of an object's only list; JSON lines, which are often named so, are read, too."""
    try:
        whole = json.loads(read_text(file, WHAT))
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _jsonl(file)
            return
        where = f"{file}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else file
        raise UsageError(f"{where}: not JSON ({one_line(error)}); write a list of {EXAMPLE}") from None
    if isinstance(whole, dict):
        named = {key if field else key.lower() for key, value in whole.items() if isinstance(value, str)}
        lists = [value for value in whole.values() if isinstance(value, list)]
        is_row = named & ({field} if field else {*FIELDS})
        whole = lists[0] if len(lists) == 1 and not is_row and not is_conversation(lists[0]) else whole
    rows = whole if isinstance(whole, list) and not is_conversation(whole) else [whole]
    for number, row in enumerate(rows, start=1):
        yield f"{file}, entry {number}", row


def _table(file: Path, field: str) -> Rows:
    """Rows of a CSV or TSV file, whose first line names the columns."""
    lines = (line for _, line in read_lines(file, WHAT))
    first = next(lines, "")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows, names, line = csv.reader(chain([first], lines), delimiter=delimiter, strict=True), list[str](), 1
    try:
        for cells in rows:
            place, line = f"{file}, line {line}", rows.line_num + 1
            if cells and not names:
                names = [name.strip() for name in cells]
                _check_header(names, place, field)
            elif cells and len(cells) == len(names):
                yield place, dict(zip(names, cells, strict=True))
            elif cells:
                wrong = f"the number of columns is {len(cells)}, but {len(names)} in the first line"
                raise UsageError(f"{place}: {wrong}; write a text with a {delimiter!r} in double quotes")
    except csv.Error as error:
        raise UsageError(f"{file}, line {line}: not a table ({error})") from None


def _check_header(names: list[str], place: str, field: str) -> None:
    try:
        find_field(names, place, field)
    except UsageError as error:
        example = "the first line of a table names its columns, such as prompt,answer"
        raise UsageError(f"{error}; {example}") from None


FORMATS: dict[str, Callable[[Path, str], Rows]] = {
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys((".jsonl", ".ndjson"), _jsonl),
    ".json": _json,
    **dict.fromkeys((".csv", ".tsv"), _table),
    ".parquet": arrow.parquet,
    ".arrow": arrow.arrow,
}
