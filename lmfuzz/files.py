"""Files that are written whole or not at all, and never over a campaign."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from lmfuzz.errors import DiskError, UsageError

DATABASE, CAMPAIGN, LOCK = "campaign.db", "campaign.toml", "lock"  # in a campaign's directory
PICTURES = "pictures"  # its folder for findings that are images
FULL = (errno.ENOSPC, errno.EDQUOT)  # what a write fails with if the disk takes no more
_OWN = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", CAMPAIGN, LOCK}


def write(content: str | bytes, file: Path) -> None:
    """Write a whole file, and the folders that it is in, or leave the old one unchanged.

    A link stays a link. A pipe or a device is written to directly. What is written first is a new file
    beside the old one, with a name that nobody can guess and put a link at.

    Raises:
        DiskError: the disk is full.
        UsageError: the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        place = file.resolve()
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if place.exists() and not place.is_file():
            place.write_bytes(data)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f"{secrets.token_hex(8)}.part")
        try:
            with draft.open("xb") as stream:
                stream.write(data)
            draft.replace(place)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        if error.errno in FULL:
            raise DiskError(file, os.strerror(error.errno)) from error
        raise UsageError(f"cannot write {file}: {error.strerror}") from error


def check(file: Path, makes_folder: bool = False) -> None:
    """Raise UsageError if ``file`` cannot be written, or must not be, because it is part of a campaign.

    Args:
        file: the file to write.
        makes_folder: whether the caller creates the folder if it is missing.
    """
    place = file.resolve()
    if place.name in _OWN and (place.parent / DATABASE).exists():
        raise UsageError(f"{file} is part of the campaign in {file.parent}; give another file")
    if place.is_dir():
        raise UsageError(f"{file} is a folder; give a file")
    if not (makes_folder or place.parent.is_dir()):
        raise UsageError(f"there is no folder {file.parent} to write {file.name} to")
