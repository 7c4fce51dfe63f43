"""Files are written whole or not at all, to where the user said, and nowhere else."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lmfuzz import files
from lmfuzz.cli.exit_codes import DISK, USAGE, sentence
from lmfuzz.errors import DiskError, UsageError


def raising(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, DiskError, DISK), (errno.EDQUOT, DiskError, DISK), (errno.EACCES, UsageError, USAGE)],
)
@pytest.mark.parametrize("step", ["replace", "open"])
def test_what_cannot_be_written_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], code: int, step: str
) -> None:
    file = tmp_path / "r.html"
    file.write_text("as it was")
    with monkeypatch.context() as patch:
        patch.setattr(Path, step, raising(number))
        with pytest.raises(kind, match=r"^cannot write .*r\.html: ") as found:
            files.write("new", file)
    assert sentence(found.value)[1] == code
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert file.read_text() == "as it was"


def test_a_link_with_the_name_of_a_draft_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "r.html.part").symlink_to("mine")
    files.write("new", tmp_path / "r.html")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "r.html.part").is_symlink()
    assert (tmp_path / "r.html").read_text() == "new"


def test_a_link_stays_a_link_and_a_long_name_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("n" * 255)
    files.write(b"new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / ("n" * 255)).read_bytes() == b"new"
