"""Files that are written whole or not at all, and never over a campaign."""

import errno
import os
from pathlib import Path

from lmfuzz.errors import UsageError

DATABASE, CAMPAIGN, LOCK = "campaign.db", "campaign.toml", "lock"  # of a campaign's directory
PICTURES = "pictures"  # its folder of findings that are images
_OWN = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", CAMPAIGN, LOCK}


def write(content: str | bytes, file: Path) -> None:
    """Write a whole file, or leave what was there and raise OSError with the file's name.

    A link stays a link. Something other than a regular file, such as a pipe, is written to directly.
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
    """Raise UsageError if ``file`` is a folder, a campaign's own file, or in a folder that does not exist.

    With ``makes_folder`` the folder need not exist yet.
    """
    place = file.resolve()
    if place.name in _OWN and (place.parent / DATABASE).exists():
        raise UsageError(f"{file} is part of the campaign in {file.parent}; give another file")
    if place.is_dir():
        raise UsageError(f"{file} is a folder; give a file")
    if not (makes_folder or place.parent.is_dir()):
        raise UsageError(f"there is no folder {file.parent} to write {file.name} to")
