"""Files that are written whole or not at all, and never over a campaign."""

import errno
import os
from pathlib import Path

from lmfuzz.errors import UsageError

DATABASE, CAMPAIGN, LOCK = "campaign.db", "campaign.toml", "lock"  # in a campaign's directory
PICTURES = "pictures"  # its folder for findings that are images
_OWN = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", CAMPAIGN, LOCK}


def write(content: str | bytes, file: Path) -> None:
    """Write a whole file, or leave the old one unchanged.

    A link stays a link. A pipe or a device is written to directly.

    Raises:
        OSError: the file cannot be written; the error names it.
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
