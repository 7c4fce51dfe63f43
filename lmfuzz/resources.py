"""Where bundled files lie: ``corpora:words/blacklist.txt`` is one of them."""

from pathlib import Path

import lmfuzz
from lmfuzz.errors import UsageError, nearest

PREFIX = "corpora:"


def resource(text: str) -> Path:
    """The path that ``text`` names; ``corpora:`` in front stands for the bundled corpora.

    These are the installed package lmfuzz.corpora, or the folder corpora/ of a checkout. UsageError
    when there is no such bundled file; other paths are not looked at.
    """
    if not text.startswith(PREFIX):
        return Path(text).expanduser()
    package = Path(lmfuzz.__file__).parent
    root = next((r for r in (package / "corpora", package.parent / "corpora") if r.is_dir()), None)
    if root is None:
        raise UsageError(f"{text} is not there: this installation of lmfuzz has no bundled corpora")
    name = text.removeprefix(PREFIX).strip("/")
    path = root / name
    if ".." in path.parts or not path.exists():
        known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))
        raise UsageError(f"the bundled corpora have no {name!r}{nearest(name, known)}")
    return path
