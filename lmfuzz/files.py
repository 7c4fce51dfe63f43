"""Files that are written whole, or not at all, and never over a campaign."""

import errno
import os
from pathlib import Path

from lmfuzz.errors import UsageError

DATABASE, CAMPAIGN, LOCK = "campaign.db", "campaign.toml", "lock"  # of a campaign's directory
PICTURES = "pictures"  # its folder of findings that are images
_OWN = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", CAMPAIGN, LOCK}


def write(content: str | bytes, file: Path) -> None:
    """Write a whole file, or leave what was there; OSError, which names it, where that cannot be.

    A link stays one. What is there and no file, such as a pipe, is written to as it is.
    """
    place = file.resolve()
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    plain = place.is_file() or not place.exists()
    draft = place.with_name(place.name + ".part") if plain else place
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        if plain:
            draft.replace(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def check(file: Path, makes_folder: bool = False) -> None:
    """UsageError where nothing can, or shall, be written to ``file``.

    That is a folder, what a campaign is made of, and, unless its folder is made, where there is none.
    """
    place = file.resolve()
    if place.name in _OWN and (place.parent / DATABASE).exists():
        raise UsageError(f"{file} is part of the campaign in {file.parent}; give another file")
    if place.is_dir():
        raise UsageError(f"{file} is a folder; give a file")
    if not (makes_folder or place.parent.is_dir()):
        raise UsageError(f"there is no folder {file.parent} to write {file.name} to")
