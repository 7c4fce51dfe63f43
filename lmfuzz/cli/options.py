"""The options of the command line: those of a campaign are made from the fields of Spec."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from lmfuzz.spec import FIND, RUN, SEARCH, TEST, Spec, option_name, setting

if TYPE_CHECKING:
    from lmfuzz.plugins.registry import Kind

Decorator = Callable[[Any], Any]
OUTPUT = "Output"
GROUPS = (TEST, FIND, SEARCH, RUN)  # in the order of the help
LOADING = ("device", "dtype", "threads", "batch_tokens", "trust_remote_code", "allow_pickle")
_NAMED = {"objectives": "objectives", "search": "searches", "feature": "features", "operators": "operators"}
_PATHS = ("model", "twin", "seeds", "dictionary")
_VERBOSITY = "lmfuzz.verbosity"  # in the meta of a click context: -1 quiet, 0, 1 verbose


class Option(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, group: str = OUTPUT, **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


def _set_verbosity(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_VERBOSITY] = 1 if option.name == "verbose" else -1


def verbosity() -> int:
    """Return how much the command that runs is to print: -1 for the results alone, 1 for more than usual."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else context.meta.get(_VERBOSITY, 0)


def verbosity_options() -> list[click.Parameter]:
    """Return the options -q and -v, which every command takes."""
    return [
        Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set_verbosity,
            help="Print only results and errors.",
        ),
        Option(
            ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_set_verbosity,
            help="Print the settings and the model's identity too, and the traceback of every error.",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command with -q and -v, whose help shows its options under headings."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += verbosity_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of a group together."""
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


class _Text(click.ParamType[str]):
    """Text that a shell can complete with ``choices``; the spec checks whether it is right."""

    name = "text"

    def __init__(self, choices: Callable[[], Iterable[str]], files: bool = False) -> None:
        self.choices, self.files = choices, files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the choices that begin in this way, and files where these are meant."""
        found = [CompletionItem(choice) for choice in self.choices() if choice.startswith(incomplete)]
        return [*found, *([CompletionItem(incomplete, type="file")] if self.files else [])]


def kinds() -> dict[str, "Kind"]:
    """Return the kinds of plug-ins by what several of each are called."""
    from lmfuzz.coverage import FEATURES
    from lmfuzz.objectives import OBJECTIVES
    from lmfuzz.operators import OPERATORS
    from lmfuzz.search import SEARCHES
    from lmfuzz.targets import TARGETS
    from lmfuzz.targets.twins.recipes import RECIPES

    return {kind.plural: kind for kind in (OBJECTIVES, OPERATORS, SEARCHES, FEATURES, TARGETS, RECIPES)}


def _recipes() -> Iterable[str]:
    return kinds()["recipes"].names()


def kind_argument() -> Decorator:
    """Return a decorator that gives a command a kind of plug-ins as an argument that may be left out."""
    known = "objectives|operators|searches|features|targets|recipes"
    return click.argument("kind", required=False, metavar=f"[{known}]", type=_Text(kinds))


def command(name: str | None = None) -> Decorator:
    """Return a decorator that makes a function a Command."""
    return click.command(name, cls=Command)


def argument(key: str, required: bool = True) -> Decorator:
    """Return a decorator that gives a command the setting ``key`` as an argument."""
    choices = _recipes if key == "twin" else tuple[str, ...]
    return click.argument(key, required=required, type=_Text(choices, files=True))


def spec(
    rows: Iterable[str], defaults: Mapping[str, Any] | None = None, keys: Iterable[str] | None = None
) -> Decorator:
    """Return a decorator that gives a command the options of a campaign.

    rows: the kinds of settings, as ``Setting.rows`` names them. defaults: those of the command where they
    differ from Spec's. keys: the settings, where not all of these kinds are meant.
    """
    wanted = keys or [key for key in Spec.model_fields if key not in ("model", "twin")]
    return several(*(_option(key, defaults or {}) for key in wanted if setting(key).rows in rows))


def _option(key: str, defaults: Mapping[str, Any]) -> Decorator:
    """The option of one field of Spec; not given, it is None or ()."""
    field, said = Spec.model_fields[key], setting(key)
    annotation = next((a for a in get_args(field.annotation) if a is not NoneType), field.annotation)
    kind: Any = field.annotation if get_origin(field.annotation) in (list, Literal) else annotation
    words, more = [" ".join((field.description or "").split())], dict[str, Any]()
    if kind is bool:
        more = {"is_flag": True, "default": None}
    elif kind == list[int]:
        more = {"nargs": 3, "type": int}
    elif get_origin(kind) is Literal:
        more = {"type": _Text(lambda: get_args(kind)), "metavar": "|".join(get_args(kind))}
    elif kind in (int, float):
        more = {"type": kind}
    elif key in _NAMED:
        more = {"type": _Text(lambda: kinds()[_NAMED[key]].names())}
    elif key in _PATHS:
        more = {"type": click.Path()}
    if kind == list[str]:
        more["multiple"] = True
        words.append("Can be given more than once.")
    if kind is not bool:
        words.append(f"[default: {default_text(defaults.get(key, field.default), said.unset)}]")
    names = said.option.split("/") if said.option else [option_name(key)]
    shown = {"metavar": said.metavar} if said.metavar else {}
    return click.option(*names, key, cls=Option, group=said.group, help=" ".join(words), **shown, **more)


def default_text(value: Any, unset: str) -> str:
    """Return what a default is called in the help: ``unset`` when it is empty."""
    if value in (None, "", []):
        return unset
    if isinstance(value, list):
        return (", " if isinstance(value[0], str) else " ").join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def several(*options: Decorator) -> Decorator:
    """Return a decorator that gives a command all these options, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _output(*names: str, **more: Any) -> Decorator:
    return click.option(*names, cls=Option, **more)


CONFIG = _output(
    "--config", group=TEST, type=click.Path(path_type=Path), metavar="FILE",
    help="A TOML file with settings under the same names; options win over it.",
)  # fmt: skip
DIRECTORY = _output(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
    help="The directory of the campaign. [default: runs/DATE-TIME]",
)  # fmt: skip
JSON = _output("--json", "as_json", is_flag=True, help="Print a machine-readable summary as the last line.")
ONLY_JSON = _output("--json", "as_json", is_flag=True, help="Print one JSON object with everything instead.")
TWIN = click.option(
    "--twin", "recipe", cls=Option, group=TEST, metavar="RECIPE|MODEL",
    type=_Text(_recipes, files=True), help="The twin, if it is not given as an argument.",
)  # fmt: skip
DOWNLOAD = click.option(
    "--download", cls=Option, group=TEST, is_flag=True,
    help="Download mnist or cifar10 into the folder LMFUZZ_DATA first if it is not there.",
)  # fmt: skip
LOADING_OPTIONS = spec(("", "text"), keys=LOADING)
