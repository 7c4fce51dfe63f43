"""Objects of modules and files: ``module:Class`` and ``path/to/file.py:Class``."""

import importlib
import importlib.util
import sys
import traceback
import zlib
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from lmfuzz.errors import INTERRUPTS, UsageError, nearest

_FILE = "lmfuzz_file_"  # the names of modules that are files of a user begin with it


def resolve(text: str) -> Any:
    """Return the object that ``module:attribute`` or ``path/to/file.py:attribute`` names.

    Raises UsageError if there is none, or, with file and line, if importing it fails.
    """
    head, colon, attribute = text.partition(":")
    if not (head and colon and attribute):
        raise UsageError(f"{text!r} is neither module:name nor path/to/file.py:name")
    module = _module_from(Path(head).expanduser()) if head.endswith(".py") else _module(head)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(f"{head} has no {attribute!r}{nearest(attribute, public)}") from None


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except INTERRUPTS:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"there is no module {name!r}; a file needs its .py: {name}.py:Class") from None
        raise UsageError(f"module {name} cannot be imported: {blame(error)}") from error


def _module_from(path: Path) -> ModuleType:
    """Return the module in a file, which runs once and stays in sys.modules under a name made of its path."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    whole = str(path.resolve())
    name = f"{_FILE}{path.stem}_{zlib.crc32(whole.encode('utf-8', 'surrogateescape')):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if (folder := str(Path(whole).parent)) not in sys.path:
        sys.path.append(folder)  # a file imports what lies beside it, as when Python runs it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, INTERRUPTS):
            raise
        raise UsageError(f"{path} cannot be imported: {blame(error, whole)}") from error
    return module


def raised_by_user(error: BaseException) -> str:
    """Return what a file that a user named raised, and where; '' if no such file took part in it."""
    file = "" if isinstance(error, INTERRUPTS) else _users_file(error)
    return file and f"{Path(file).name} raised {blame(error)}"


def _users_file(error: BaseException) -> str:
    """Return the last file of a user that an error came through; '' if there is none."""
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    named = [name for name in modules if name.startswith(_FILE)]
    return str(sys.modules[named[-1]].__file__) if named else ""


def blame(error: BaseException, file: str = "") -> str:
    """Return what was raised and where: the last line in ``file``, or in a user's file, or of all."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    outer = [frame for frame in frames if not frame.filename.startswith("<frozen")] or frames
    own = [frame for frame in outer if frame.filename == (file or _users_file(error))] or outer
    return f"{said} ({own[-1].filename}, line {own[-1].lineno})"
