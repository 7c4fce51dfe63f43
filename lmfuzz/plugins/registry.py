"""Names to objects: objectives, operators, searches, features and targets, built in or not.

A name is a built-in one, an entry point in the group ``lmfuzz.<kind>`` of an installed package,
``module:Class`` or ``path/to/file.py:Class``; how parameters are written is said in lmfuzz.plugins.grammar.
Nothing is imported before it is asked for, and built-in names cannot be taken over.
"""

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce, update_wrapper
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from lmfuzz import protocols
from lmfuzz.errors import UsageError, nearest
from lmfuzz.inputs.bundled import PREFIX, resource
from lmfuzz.plugins.coerce import convert, words
from lmfuzz.plugins.grammar import Call, Value, parse

__all__ = [
    "KINDS",
    "Call",
    "Entry",
    "Kind",
    "Parameter",
    "build",
    "check",
    "describe",
    "find",
    "names",
    "parse",
    "resolve",
]

Kind = Literal["objectives", "operators", "searches", "features", "targets"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CHARACTERS = ("insert", "delete", "substitute", "swap", "repeat", "erase", "copy", "shift", "case")
_PIXELS = {
    "noise": "pixels:Noise", "step": "pixels:Step", "mix": "pixels:Mix",
    "gaussian_noise": "pixels:GaussianNoise", "salt_pepper": "pixels:SaltPepper",
    "multiplicative": "pixels:Multiplicative", "pixels": "pixels:Pixels", "brightness": "pixels:Brightness",
    "contrast": "pixels:Contrast", "cutout": "pixels:CutOut", "mean_blur": "pictures:MeanBlur",
    "gaussian_blur": "pictures:GaussianBlur", "median_blur": "pictures:MedianBlur", "move": "pictures:Move",
    "rotate": "pictures:Rotation",
}  # fmt: skip
_TOKENS = ("neighbour", "rare", "respell")
_BUILT_IN: Mapping[Kind, Mapping[str, str]] = {
    "objectives": {
        "phrases": "lmfuzz.objectives.phrases:Phrases",
        "regex": "lmfuzz.objectives.regex:Regex",
        "format": "lmfuzz.objectives.format:Format",
        "echo": "lmfuzz.objectives.echo:Echo",
        "memorised": "lmfuzz.objectives.memorised:Memorised",
        "never_ends": "lmfuzz.objectives.never_ends:NeverEnds",
        "repetition": "lmfuzz.objectives.repetition:Repetition",
        "nonfinite": "lmfuzz.objectives.numeric:Nonfinite",
        "entropy": "lmfuzz.objectives.numeric:Entropy",
        "disagreement": "lmfuzz.objectives.disagreement:LabelDisagreement",
        "parting": "lmfuzz.objectives.disagreement:TextDisagreement",
        "divergence": "lmfuzz.objectives.disagreement:Divergence",
        "regression": "lmfuzz.objectives.regression:Regression",
        "all": "lmfuzz.objectives.combine:All",
        "any": "lmfuzz.objectives.combine:Any",
    },
    "operators": {
        **{name: f"lmfuzz.operators.characters:{name.capitalize()}" for name in _CHARACTERS},
        "splice": "lmfuzz.operators.splice:Splice",
        "dictionary": "lmfuzz.operators.dictionary:Dictionary",
        "tail": "lmfuzz.operators.tail:Tail",
        "havoc": "lmfuzz.operators.havoc:Havoc",
        **{name: f"lmfuzz.operators.tokens:{name.capitalize()}" for name in _TOKENS},
        **{name: f"lmfuzz.operators.{made}" for name, made in _PIXELS.items()},
    },
    "searches": {
        "random": "lmfuzz.search.random:Random",
        "walk": "lmfuzz.search.walk:Walk",
        "tensorfuzz": "lmfuzz.search.tensorfuzz:TensorFuzz",
        "directed": "lmfuzz.search.directed:Directed",
        "boundary": "lmfuzz.search.boundary:Boundary",
        "triggerfinder": "lmfuzz.search.triggerfinder:TriggerFinder",
        "diffchaser": "lmfuzz.search.diffchaser:DiffChaser",
    },
    "features": {
        "hidden_last": "lmfuzz.coverage.features:hidden_last",
        "hidden_mean": "lmfuzz.coverage.features:hidden_mean",
        "trajectory": "lmfuzz.coverage.features:Trajectory",
        "output_cells": "lmfuzz.coverage.features:OutputCells",
        "channels": "lmfuzz.coverage.channels:Channels",
        "total": "lmfuzz.coverage.channels:Total",
    },
    "targets": {},
}
_PROMISES: Mapping[Kind, tuple[str, type]] = {
    "objectives": ("objective", protocols.Objective),
    "operators": ("operator", protocols.Operator),
    "searches": ("search", protocols.Search),
    "features": ("feature", protocols.Feature),
    "targets": ("target", protocols.PlainTarget),
}
_PARTS = "parts"  # the parameter that takes what stands in parentheses
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a plug-in, in words; ``default`` is '' when it must be given."""

    name: str
    type: str
    default: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What a list of plug-ins says of one of them."""

    name: str
    parameters: tuple[Parameter, ...]
    line: str


def names(kind: Kind) -> list[str]:
    """The names of one kind: the built-in ones, then those of installed packages."""
    return [*_BUILT_IN[kind], *_installed(kind)]


def on_boxes(operator: str) -> bool | None:
    """Whether a built-in operator changes numbers (else symbols); None for one that is not built in."""
    return operator in _PIXELS if operator in _BUILT_IN["operators"] else None


def on_tokens(operator: str) -> bool:
    """Whether a built-in operator changes symbols only where these are tokens."""
    return operator in _TOKENS


def find(kind: Kind, name: str) -> Any:
    """The class or function that a name, ``module:Class`` or ``file.py:Class`` stands for.

    Raises UsageError when there is none, or when importing what is not built in fails.
    """
    if name in _BUILT_IN[kind]:
        module, _, attribute = _BUILT_IN[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    installed = _installed(kind)
    if name in installed:
        return _load(installed[name])
    what = _PROMISES[kind][0]
    head, colon, rest = name.partition(":")
    if colon and (head in _BUILT_IN[kind] or head in installed):
        raise UsageError(f"{rest!r} is no parameter of the {what} {head}; write {head}:name={rest}")
    if colon:
        return resolve(name)
    if name.endswith(".py"):
        raise UsageError(f"{name} is a file; say which {what} in it: {name}:Class")
    known = nearest(name, [*_BUILT_IN[kind], *installed])
    raise UsageError(f"unknown {what} {name!r}{known} (`lmfuzz list {kind}` shows all)")


def resolve(text: str) -> Any:
    """The object that ``module:attribute`` or ``path/to/file.py:attribute`` names.

    Raises UsageError when there is none, or with file and line when importing it fails.
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


def build(kind: Kind, call: Call, *leading: Any) -> Any:
    """The object that ``call`` describes; searches take their SearchContext as the ``leading`` argument.

    Parameters are converted by the annotations of the constructor, text that starts with ``corpora:``
    is the path of a bundled file, and parts are built and passed as the list ``parts``. An objective
    or operator that is a plain function of its two arguments is that function, with its parameters
    bound. Raises UsageError for whatever the call has wrong, and for what the constructor finds wrong.
    """
    make, arguments, itself = _bound(kind, call)
    what, promise = _PROMISES[kind]
    if call.parts:
        arguments[_PARTS] = [build(kind, part, *leading) for part in call.parts]
    if itself:
        return update_wrapper(partial(make, **arguments), make) if arguments else make
    built = _made(call.name, make, leading, arguments, trusted=call.name in _BUILT_IN[kind])
    promised = [n for n in (*promise.__annotations__, *vars(promise)) if n == "__call__" or n[0] != "_"]
    if kind == "objectives":  # all that a detector leaves out can be made good
        promised = ["__call__"]
    if missing := [name for name in promised if not hasattr(built, name)]:
        made = type(built).__name__
        raise UsageError(f"{call.name} makes {made}, which is no {what}: it lacks {', '.join(missing)}")
    return built


def check(kind: Kind, call: Call) -> None:
    """Raise UsageError for a name or parameter that ``build`` would find wrong, and make nothing."""
    _bound(kind, call)
    for part in call.parts:
        check(kind, part)


def _bound(kind: Kind, call: Call) -> tuple[Any, dict[str, Any], bool]:
    """What a call names, its parameters by name, and whether it is itself what is to be made."""
    make = find(kind, call.name)
    if not callable(make):
        what = _PROMISES[kind][0]
        raise UsageError(f"{call.name} is {make!r}, no class or function, so it makes no {what}")
    parameters, itself = _parameters(kind, make)
    return make, _arguments(call, parameters), itself


def describe(kind: Kind) -> list[Entry]:
    """What there is of one kind, with parameters; what is broken has a line that says so.

    Targets are not imported (they may need torch): their lines say where they come from.
    """
    installed = _installed(kind)
    if kind == "targets":
        return [Entry(name, (), f"{p.value}, from {_source(p)}") for name, p in installed.items()]
    entries = [_entry(name, find(kind, name), kind) for name in _BUILT_IN[kind]]
    for name in installed:
        try:
            entries.append(_entry(name, find(kind, name), kind))
        except Exception as error:  # a stranger's mistake must not hide the others
            entries.append(Entry(name, (), f"broken: {error}"))
    return entries


def _entry(name: str, make: Any, kind: Kind) -> Entry:
    parameters, _ = _parameters(kind, make)
    shown = [p for p in parameters.values() if p.kind not in _OPEN and p.name != _PARTS]
    line = (inspect.getdoc(make) or "").partition("\n")[0]
    return Entry(name, tuple(Parameter(p.name, _type(p), _default(p)) for p in shown), line)


def _type(parameter: inspect.Parameter) -> str:
    return words(_annotation(parameter)).removeprefix("a ")


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    return json.dumps(parameter.default, ensure_ascii=False, default=str)


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation


def _parameters(kind: Kind, make: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The parameters that a person can give, and whether ``make`` is itself the objective or operator.

    It is when it is no class and needs two arguments, which are then left out like a search's SearchContext.
    """
    try:
        signature = inspect.signature(make, eval_str=True)
    except ValueError:  # made in C
        return {}, False
    except (NameError, AttributeError):  # annotations that exist for type checkers only
        signature = inspect.signature(make)
    given = list(signature.parameters.values())[1 if kind == "searches" else 0 :]
    parameters = {p.name: p for p in given}
    needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind not in _OPEN]
    itself = kind in ("objectives", "operators") and not isinstance(make, type) and len(needed) == 2
    return {name: p for name, p in parameters.items() if not (itself and name in needed)}, itself


def _arguments(call: Call, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The call's parameters by name, converted; UsageError for unknown, missing and wrong ones."""
    known = [name for name, p in parameters.items() if name != _PARTS and p.kind not in _OPEN]
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if call.parts and _PARTS not in parameters:
        raise UsageError(f"{call.name} is not made of others; leave out what stands in parentheses")
    if _PARTS in parameters and parameters[_PARTS].default is inspect.Parameter.empty and not call.parts:
        raise UsageError(f"{call.name} is made of others; name them in parentheses: {call.name}(NAME, NAME)")
    arguments: dict[str, Any] = {}
    for given, value in call.parameters:
        name = given or (known[0] if known else "")
        if name in arguments:
            raise UsageError(f"{call.name}: {name} is given twice, first without its name")
        if not name or name == _PARTS or (name not in known and not free):
            takes = f"takes {', '.join(known) or 'none'}"
            which = f"no parameter {given!r}" if given else "no parameters"
            close = nearest(given, known)
            raise UsageError(f"{call.name} has {which}{f'{close} It' if close else '; it'} {takes}")
        annotation = _annotation(parameters[name]) if name in known else Any
        try:
            arguments[name] = convert(_bundled(value), annotation)
        except ValueError as error:
            raise UsageError(f"{call.name}: {name} {error}") from None
    for name in known:
        if name not in arguments and parameters[name].default is inspect.Parameter.empty:
            right = words(_annotation(parameters[name]))
            raise UsageError(f"{call.name} needs {name} ({right}): {call.name}:{name}=...")
    return arguments


def _made(name: str, make: Any, leading: tuple[Any, ...], arguments: dict[str, Any], trusted: bool) -> Any:
    """What the constructor returns; what it raises says what is wrong, unless lmfuzz's own is broken."""
    try:
        return make(*leading, **arguments)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{name}: {' '.join(str(error).split())}") from error
    except Exception as error:
        if trusted:
            raise
        raise UsageError(f"{name} cannot be made: {_blame(error)}") from error


def _bundled(value: Value) -> Value:
    return str(resource(value)) if isinstance(value, str) and value.startswith(PREFIX) else value


def _installed(kind: Kind) -> dict[str, EntryPoint]:
    points = sorted(entry_points(group=f"lmfuzz.{kind}"), key=lambda point: point.name)
    return {point.name: point for point in points if point.name not in _BUILT_IN[kind]}


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the plug-in {point.name} of {_source(point)} cannot be loaded: {_blame(error)}"
        ) from error


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {name!r}; a file is written path/to/file.py:Class"
            ) from None
        raise UsageError(f"module {name} cannot be imported: {_blame(error)}") from error


def _module_from(path: Path) -> ModuleType:
    """The module in a file; run once, and kept in sys.modules under a name made of its path."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    whole = str(path.resolve())
    name = f"lmfuzz_file_{path.stem}_{zlib.crc32(whole.encode('utf-8', 'surrogateescape')):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise UsageError(f"{path} cannot be imported: {_blame(error, whole)}") from error
        raise
    return module


def _blame(error: BaseException, file: str = "") -> str:
    """What was raised and where: the last line in ``file`` when it took part, else the last of all."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    outer = [frame for frame in frames if not frame.filename.startswith("<frozen")] or frames
    own = [frame for frame in outer if frame.filename == file] or outer
    return f"{said} ({own[-1].filename}, line {own[-1].lineno})"
