"""Text files that a user names."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lmfuzz.errors import UsageError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what such a file begins with


def read_text(file: Path, what: str) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises UsageError, which calls the file ``what``, if it does not exist, cannot be read or is not UTF-8.
    """
    with _opened(file, what) as stream:
        return _decoded(stream.read(), str(file))


def read_lines(file: Path, what: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1 on, and with their ends.

    Lines are read when they are asked for, so that a large file is never whole in memory. Raises UsageError
    as ``read_text`` does.
    """
    with _opened(file, what) as stream:
        yield from decoded_lines(stream, str(file))


def decoded_lines(lines: Iterable[bytes], place: str) -> Iterator[tuple[int, str]]:
    """Yield lines of bytes as ``read_lines`` does; ``place`` is where they come from."""
    for number, line in enumerate(lines, start=1):
        yield number, _decoded(line, place, number)


@contextmanager
def _opened(file: Path, what: str) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise UsageError(f"there is no {what} {file}") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, not a {what}") from None
    except OSError as error:
        raise UsageError(f"cannot read the {what} {file}: {error.strerror}") from None


def _decoded(data: bytes, place: str, line: int = 1) -> str:
    """The text of what begins at the beginning of a ``line`` of UTF-8."""
    if line == 1 and data.startswith(_UTF_16):
        raise UsageError(f"{place} is UTF-16, not UTF-8; save it as UTF-8")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line, byte = line + error.object.count(b"\n", 0, error.start), f"0x{error.object[error.start]:02x}"
        raise UsageError(f"{place}, line {line}: byte {byte} is not UTF-8; save the file as UTF-8") from None
