"""Bundled files, such as ``corpora:words/blacklist.txt`` and ``models:mnist/lenet1``."""

from pathlib import Path

import lmfuzz
from lmfuzz.errors import UsageError, nearest

PREFIX, MODELS = "corpora:", "models:"
_PRESETS = f"{PREFIX}presets"


def resource(text: str) -> Path:
    """Return the path that ``text`` names, which may begin with ``corpora:`` or ``models:``.

    The corpora are the installed package lmfuzz.corpora, or the folder corpora/ of a checkout. Raises
    UsageError if there is no such bundled file; other paths are not looked at.
    """
    prefix = next((p for p in (PREFIX, MODELS) if text.startswith(p)), None)
    if prefix is None:
        return Path(text).expanduser()
    package, kind = Path(lmfuzz.__file__).parent, prefix.removesuffix(":")
    root = next((r for r in (package / kind, package.parent / kind) if r.is_dir()), None)
    if root is None:
        raise UsageError(f"cannot find {text}: this installation of lmfuzz has no bundled {kind}")
    name = text.removeprefix(prefix).strip("/")
    path = root / name
    if ".." in path.parts or not path.exists():
        known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))
        raise UsageError(f"the bundled {kind} have no {name!r}{nearest(name, known)}")
    return path


def presets() -> dict[str, str]:
    """Return the purpose of each preset by its name: the first line of its file, which is a comment."""
    files = sorted(resource(_PRESETS).glob("*.toml"))
    return {file.stem: file.read_text(encoding="utf-8").splitlines()[0].strip("# ") for file in files}


def preset(name: str) -> Path:
    """Return the file of a preset; UsageError, with the nearest name, if there is none."""
    if name not in (known := presets()):
        right = nearest(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"there is no preset {name!r}{right}")
    return resource(f"{_PRESETS}/{name}.toml")


def expand(text: str) -> str:
    """Return the path of a bundled file for a text that begins with ``corpora:``, any other text as it is."""
    return str(resource(text)) if text.startswith(PREFIX) else text
