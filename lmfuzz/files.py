"""Files that are written whole, or not at all."""

from pathlib import Path


def write(text: str, file: Path) -> None:
    """Write a whole file, or leave what was there; OSError where that cannot be.

    What is there and no file, such as a pipe, is written to as it is.
    """
    plain = file.is_file() or not file.exists()
    draft = file.with_name(file.name + ".part") if plain else file
    draft.write_text(text, encoding="utf-8", newline="")
    if plain:
        draft.replace(file)
