"""Text files that a user names."""

from pathlib import Path

from lmfuzz.errors import UsageError


def read_text(file: Path, what: str) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises UsageError, which calls the file ``what``, if it does not exist, cannot be read or is not UTF-8.
    """
    try:
        data = file.read_bytes()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no {what} {file}") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a folder, not a {what}") from None
    except OSError as error:
        raise UsageError(f"cannot read the {what} {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, f"0x{error.object[error.start]:02x}"
        raise UsageError(f"{file}, line {line}: byte {byte} is not UTF-8; save the file as UTF-8") from None
