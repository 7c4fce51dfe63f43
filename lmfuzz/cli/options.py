"""The options of the command line; those of a campaign are made from the fields of Spec."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click

from lmfuzz.cli.console import add_verbosity
from lmfuzz.cli.listing import Text, kinds
from lmfuzz.inputs.bundled import presets
from lmfuzz.spec import FIND, RUN, SEARCH, TEST, Spec, option_name, setting

Decorator = Callable[[Any], Any]
PATH = click.Path(path_type=Path)
OUTPUT = "Output"
GROUPS = (TEST, FIND, SEARCH, RUN)  # in the order of the help
LOADING = ("device", "dtype", "threads", "batch_tokens", "trust_remote_code", "allow_pickle")
_NAMED = {"objectives": "objectives", "search": "searches", "feature": "features", "operators": "operators"}
_PATHS = ("model", "twin", "seeds", "dictionary")


class Option(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, group: str = OUTPUT, **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


def option(declared: str, help: str, name: str = "", **more: Any) -> Decorator:
    """Return a decorator that gives a command an option.

    Args:
        declared: its names and the placeholder for its value, such as "-o/--output FILE"; a flag has none.
        help: a sentence.
        name: the parameter of the command, if its name is not that of the option.
        more: as of ``click.option``.
    """
    names, _, metavar = declared.partition(" ")
    more |= {"metavar": metavar} if metavar else {"is_flag": True}
    return click.option(*names.split("/"), *filter(None, [name]), cls=Option, help=help, **more)


def several(*options: Decorator) -> Decorator:
    """Return a decorator that gives a command all these options, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class Command(click.Command):
    """A command with -q and -v, whose help shows its options under headings."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        add_verbosity(self)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped under their headings."""
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        named = {param.name: param.group for param in params if isinstance(param, Option)}
        others = OUTPUT if len(set(named.values())) > 1 else "Options"
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for param in params:
            if (record := param.get_help_record(ctx)) is not None:
                group = named.get(param.name, others)
                groups.setdefault(others if group == OUTPUT else group, []).append(record)
        for group, records in ((group, records) for group, records in groups.items() if records):
            with formatter.section(group):
                formatter.write_dl(records)


def _recipes() -> Iterable[str]:
    return kinds()["recipes"].names()


def command(name: str | None = None) -> Decorator:
    """Return a decorator that makes a function a Command."""
    return click.command(name, cls=Command)


def argument(key: str, required: bool = True) -> Decorator:
    """Return a decorator that gives a command the setting ``key`` as an argument."""
    choices = _recipes if key == "twin" else tuple[str, ...]
    return click.argument(key, required=required, type=Text(choices, files=True))


def spec(
    rows: Iterable[str], defaults: Mapping[str, Any] | None = None, keys: Iterable[str] | None = None
) -> Decorator:
    """Return a decorator that gives a command the options of a campaign.

    Args:
        rows: the kinds of settings, as ``Setting.rows`` names them.
        defaults: the command's own defaults, if they differ from Spec's.
        keys: the settings, if not all of these kinds are wanted.
    """
    wanted = keys or [key for key in Spec.model_fields if key not in ("model", "twin")]
    return several(*(_setting(key, defaults or {}) for key in wanted if setting(key).rows in rows))


def _setting(key: str, defaults: Mapping[str, Any]) -> Decorator:
    """The option of one field of Spec; if it is not given, its value is None or ()."""
    field, about = Spec.model_fields[key], setting(key)
    annotation = next((a for a in get_args(field.annotation) if a is not NoneType), field.annotation)
    kind: Any = field.annotation if get_origin(field.annotation) in (list, Literal) else annotation
    words, metavar, more = [" ".join((field.description or "").split())], about.metavar, dict[str, Any]()
    if kind is bool:
        more = {"default": None}
    elif kind == list[int]:
        more = {"nargs": 3, "type": int}
    elif get_origin(kind) is Literal:
        more, metavar = {"type": Text(lambda: get_args(kind))}, "|".join(get_args(kind))
    elif kind in (int, float):
        more = {"type": kind}
    elif key in _NAMED:
        more = {"type": Text(lambda: kinds()[_NAMED[key]].names())}
    elif key in _PATHS:
        more = {"type": click.Path()}
    if kind == list[str]:
        more["multiple"] = True
        words.append("Can be given more than once.")
    if kind is not bool:
        words.append(f"[default: {default_text(defaults.get(key, field.default), about.unset)}]")
    declared = f"{about.option or option_name(key)} {metavar}".strip()
    return option(declared, " ".join(words), key, group=about.group, **more)


def default_text(value: Any, unset: str) -> str:
    """Return how the help shows a default: as ``unset`` if it is empty."""
    if value in (None, "", []):
        return unset
    if isinstance(value, list):
        return (", " if isinstance(value[0], str) else " ").join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


DIRECTORY = click.argument("directory", type=PATH)
FINDING = click.argument("finding", type=int, required=False)
CONFIG = option(
    "--config FILE", "A TOML file of settings with these names; options override it.", group=TEST, type=PATH
)
JSON = option("--json", "Print a machine-readable summary as the last line.", "as_json")
ONLY_JSON = option("--json", "Print everything as one JSON object.", "as_json")
_PRESET = "Settings for a purpose (lmfuzz list presets); those of --config and options override them."
NEW = several(
    option("--preset NAME", _PRESET, group=TEST, type=Text(presets)),
    option("-o/--output DIR", "The directory of the campaign. [default: runs/DATE-TIME]", type=PATH),
    option("--dry-run", "Say what would be run, and how fast one batch runs; write nothing."),
    JSON,
)
_AS_TWIN = Text(_recipes, files=True)
TWIN = option("--twin RECIPE|MODEL", "The twin, if not an argument.", "recipe", group=TEST, type=_AS_TWIN)
SECRETS = option("--with-secrets", "Show the system prompt too; its length stands in its place without this.")
DOWNLOAD = option(
    "--download", "First download mnist or cifar10 into the folder LMFUZZ_DATA if it is missing.", group=TEST
)
TRUST = spec(("",), keys=("trust_remote_code",))
_KNOWN = ("baseline", "ignore")
KNOWN = spec(("",), dict.fromkeys(_KNOWN, "the campaign's own"), _KNOWN)
LOADING_OPTIONS = spec(("", "text"), keys=LOADING)
