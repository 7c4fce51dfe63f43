"""Objectives, operators, searches and all other kinds of plug-ins by name.

A name is a built-in one, an entry point in the group ``lmfuzz.<kind>`` of an installed package,
``module:Class`` or ``path/to/file.py:Class``; lmfuzz.plugins.grammar describes how to write parameters.
Nothing is imported before it is asked for, and packages cannot replace built-in names.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lmfuzz.errors import INTERRUPTS, UsageError, nearest
from lmfuzz.plugins.coerce import convert, words
from lmfuzz.plugins.grammar import Call, spell
from lmfuzz.plugins.modules import blame, resolve

_PARTS = "parts"  # the parameter for the plug-ins in parentheses
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_Parameters = Mapping[str, inspect.Parameter]


@dataclass(frozen=True, slots=True)
class Entry:
    """Describe one plug-in for a list of them.

    Attributes:
        name: how it is asked for.
        line: what it does.
        parameters: each as ``times (whole number, default 4)``.
    """

    name: str
    line: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """Find and make the plug-ins of one kind.

    Attributes:
        noun: the word for one of them, such as ``objective``.
        plural: the word for several; entry points are in the group ``lmfuzz.<plural>``.
        package: where the built-in ones are.
        promise: a protocol; a plug-in must have all of its members that have no default.
        table: built-in name -> ``module:Class`` in the package.
        leading: the number of arguments that a constructor takes before its parameters.
        itself: a function that needs this many arguments is a plug-in itself, not a constructor.
    """

    noun: str
    plural: str
    package: str
    promise: Any
    table: Mapping[str, str]
    leading: int = 0
    itself: tuple[int, ...] = ()

    def names(self) -> list[str]:
        """Return the built-in names, then those of installed packages."""
        return [*self.table, *self._installed()]

    def find(self, name: str) -> Any:
        """Return the class or function that a name, ``module:Class`` or ``file.py:Class`` stands for.

        Raises UsageError if there is none, or if importing it fails.
        """
        if name in self.table:
            return resolve(f"{self.package}.{self.table[name]}")
        installed = self._installed()
        if name in installed:
            return _load(installed[name])
        head, colon, rest = name.partition(":")
        if head in self.table or head in installed:
            wrong = f"{head} has no parameter {rest!r}; `lmfuzz list {self.plural}` shows what it has"
            raise UsageError(f"{wrong}, and quotes make it a value: {head}:{json.dumps(rest)}")
        if colon:
            return resolve(name)
        if name.endswith(".py"):
            raise UsageError(f"{name} is a file; say which {self.noun} in it: {name}:Class")
        known = nearest(name, [*self.table, *installed])
        raise UsageError(f"unknown {self.noun} {name!r}{known} (`lmfuzz list {self.plural}` shows all)")

    def build(self, call: Call, *leading: Any) -> Any:
        """Return the object that ``call`` describes; ``leading`` are the arguments before its parameters.

        Parameters are converted by the annotations of the constructor, and parts are built and passed as the
        list ``parts``. A function that is a plug-in itself is returned with its parameters bound. Raises
        UsageError for any error in the call, and for what the constructor raises.
        """
        make, arguments, itself = self._bound(call)
        if call.parts:
            arguments[_PARTS] = [self.build(part, *leading) for part in call.parts]
        if itself:
            return update_wrapper(partial(make, **arguments), make) if arguments else make
        built = _made(call.name, partial(make, *leading, **arguments), trusted=call.name in self.table)
        declared, given = inspect.get_annotations(self.promise), vars(self.promise)
        promised = [name for name in (*declared, *given) if (name in declared) != (name in given)]
        public = [name for name in promised if name == "__call__" or name[0] != "_"]
        if missing := [name for name in public if not hasattr(built, name)]:
            lacks = f"lacks what every {self.noun} must have: {', '.join(missing)}"
            raise UsageError(f"{call.name} makes {type(built).__name__}, which {lacks}")
        return built

    def check(self, call: Call) -> None:
        """Raise UsageError for a name or parameter that ``build`` would refuse; make nothing."""
        self._bound(call)
        for part in call.parts:
            self.check(part)

    def describe(self) -> list[Entry]:
        """Return the entries of all that there are; the line of a broken one says so.

        If a kind has no built-in ones, nothing is imported (targets may need torch), and lines say where each
        comes from.
        """
        installed = self._installed()
        if not self.table:
            return [Entry(name, f"{point.value}, from {_source(point)}") for name, point in installed.items()]
        entries = [self.entry(name) for name in self.table]
        for name in installed:
            try:
                entries.append(self.entry(name))
            except Exception as error:  # one broken package must not hide the others
                entries.append(Entry(name, f"broken: {error}"))
        return entries

    def entry(self, name: str) -> Entry:
        """Return the entry of one plug-in."""
        make = self.find(name)
        parameters, _ = self._parameters(make, None)
        shown = [p for p in parameters.values() if p.kind not in _OPEN and p.name != _PARTS]
        line = (inspect.getdoc(make) or "").partition("\n")[0]
        return Entry(name, line, tuple(map(_described, shown)))

    def _installed(self) -> dict[str, EntryPoint]:
        points = sorted(entry_points(group=f"lmfuzz.{self.plural}"), key=lambda point: point.name)
        return {point.name: point for point in points if point.name not in self.table}

    def _bound(self, call: Call) -> tuple[Any, dict[str, Any], bool]:
        """Return what a call names, its parameters by name, and whether that is the plug-in itself."""
        make = self.find(call.name)
        if not callable(make):
            raise UsageError(f"{call.name} is {make!r}; the {self.noun} must be a class or a function")
        parameters, itself = self._parameters(make, call)
        return make, _arguments(call, parameters), itself

    def _parameters(self, make: Any, call: Call | None) -> tuple[_Parameters, bool]:
        """Return the parameters that a user can give, and whether ``make`` is itself the plug-in.

        If it is, the arguments that it needs are left out. If a function of one argument can be either, it
        makes a plug-in if the call gives that argument.
        """
        parameters = dict([*signature(make).items()][self.leading :])
        own = needed(parameters)
        itself = not isinstance(make, type) and len(own) in self.itself
        if itself and len(own) == 1:
            first = next(iter(parameters))
            itself = call is not None and own[0] not in {name or first for name, _ in call.parameters}
        return {name: p for name, p in parameters.items() if not (itself and name in own)}, itself


def _described(parameter: inspect.Parameter) -> str:
    default, right = parameter.default, words(parameter.annotation).removeprefix("a ")
    if default is not parameter.empty:
        right += f", default {json.dumps(default, ensure_ascii=False, default=str)}"
    return f"{parameter.name} ({right})"


def needed(parameters: _Parameters) -> list[str]:
    """Return the names of the parameters that have no default."""
    return [name for name, p in parameters.items() if p.default is p.empty and p.kind not in _OPEN]


def signature(make: Any) -> _Parameters:
    """Return the parameters of a callable; none if it is written in C and does not tell them."""
    try:
        return inspect.signature(make, eval_str=True).parameters
    except ValueError:
        return {}
    except (NameError, AttributeError):  # annotations that exist for type checkers only
        return inspect.signature(make).parameters


def _arguments(call: Call, parameters: _Parameters) -> dict[str, Any]:
    """Return the parameters by name, converted; raise UsageError for unknown, missing and wrong ones."""
    known = {name: p.annotation for name, p in parameters.items() if name != _PARTS and p.kind not in _OPEN}
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if call.parts and _PARTS not in parameters:
        raise UsageError(f"{call.name} does not combine others; leave out the parentheses")
    if _PARTS in needed(parameters) and not call.parts:
        raise UsageError(f"{call.name} combines others; name them in parentheses, as in all(echo, entropy)")
    arguments: dict[str, Any] = {}
    for given, value in call.parameters:
        name = given or next(iter(known), "")
        if name in arguments:
            raise UsageError(f"{call.name}: {name} is given twice, first without its name")
        if name not in known and (not free or name in ("", _PARTS)):
            wrong = f"{call.name} has no parameter {given or spell(value)!r}"
            takes = ", ".join(known) or "no parameters"
            raise UsageError(f"{wrong}; {call.name} takes {takes}{nearest(given, known)}")
        try:
            arguments[name] = convert(value, known.get(name, Any))
        except ValueError as error:
            raise UsageError(f"{call.name}: {name} {error}") from None
    for name in needed(parameters):
        if name not in arguments and name != _PARTS:
            raise UsageError(f"{call.name} needs {name} ({words(known[name])}): {call.name}:{name}=...")
    return arguments


def _made(name: str, make: Callable[[], Any], trusted: bool) -> Any:
    """Return what ``make`` returns; raise UsageError for what it raises, unless that is a bug in lmfuzz."""
    try:
        return make()
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{name}: {' '.join(str(error).split())}") from error
    except BaseException as error:
        if trusted or isinstance(error, INTERRUPTS):
            raise
        raise UsageError(f"{name} cannot be made: {blame(error)}") from error


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except INTERRUPTS:
        raise
    except BaseException as error:
        wrong = f"the plug-in {point.name} of {_source(point)} cannot be loaded"
        raise UsageError(f"{wrong}: {blame(error)}") from error


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
