"""Rows of Parquet and Arrow files, which datasets are stored in; pyarrow reads them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmfuzz.errors import UsageError, explaining, extra
from lmfuzz.inputs.rows import FIELDS, find_field

_UNTIL_CLOSED = suppress(GeneratorExit)  # who reads no further closes the generator: that is no damage
_ROWS = 1024  # of a Parquet file that are in memory at once


def parquet(file: Path, field: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a Parquet file, each after its place, with the columns that may hold the prompt.

    Raises:
        UsageError: pyarrow is missing, the file is damaged, or has no such column.
    """
    with extra("datasets"):
        from pyarrow.parquet import ParquetFile

    with explaining(f"cannot read {file}", UsageError), ParquetFile(file) as table, _UNTIL_CLOSED:
        names = _columns(table.schema_arrow.names, file, field)
        yield from _rows(table.iter_batches(_ROWS, columns=names), names, file)


def arrow(file: Path, field: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of an Arrow file, a stream or a file with an index, as ``parquet`` does."""
    with extra("datasets"):
        from pyarrow import ipc, memory_map

    with explaining(f"cannot read {file}", UsageError), memory_map(str(file)) as data, _UNTIL_CLOSED:
        indexed = data.read(6) == b"ARROW1"
        data.seek(0)
        table = ipc.open_file(data) if indexed else ipc.open_stream(data)
        batches = map(table.get_batch, range(table.num_record_batches)) if indexed else table
        yield from _rows(batches, _columns(table.schema.names, file, field), file)


def _columns(names: list[str], file: Path, field: str) -> list[str]:
    """The columns to read, in their order; UsageError if none can hold the prompt."""
    find_field(names, str(file), field)
    wanted = {field, field.partition(".")[0]} if field else FIELDS
    return [name for name in names if (name if field else name.lower()) in wanted]


def _rows(batches: Iterable[Any], names: list[str], file: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # what is not would be read from anywhere in the memory, or crash
        for start in range(0, len(batch), _ROWS):
            for row in batch.select(names).slice(start, _ROWS).to_pylist():
                number += 1
                yield f"{file}, row {number}", row
