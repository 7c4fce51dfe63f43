"""The plug-ins: their kinds, their names as a shell completes them, and the command that lists them."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from lmfuzz.cli.console import add_verbosity
from lmfuzz.errors import UsageError, nearest
from lmfuzz.inputs.bundled import presets

if TYPE_CHECKING:
    from lmfuzz.plugins.registry import Kind

KINDS = "objectives|operators|searches|features|targets|recipes|presets"


def kinds() -> dict[str, "Kind"]:
    """Return the kinds of plug-ins, by their names in the plural."""
    from lmfuzz.coverage import FEATURES
    from lmfuzz.objectives import OBJECTIVES
    from lmfuzz.operators import OPERATORS
    from lmfuzz.search import SEARCHES
    from lmfuzz.targets import TARGETS
    from lmfuzz.targets.twins.recipes import RECIPES

    return {kind.plural: kind for kind in (OBJECTIVES, OPERATORS, SEARCHES, FEATURES, TARGETS, RECIPES)}


class Text(click.ParamType):  # type: ignore[type-arg]  # it takes none before click 8.5
    """Text that a shell can complete with ``choices``; the spec checks whether it is right."""

    name = "text"

    def __init__(self, choices: Callable[[], Iterable[str]], files: bool = False) -> None:
        self.choices, self.files = choices, files

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Return the choices that begin with what was typed, and files if those are possible."""
        found = [CompletionItem(choice) for choice in self.choices() if choice.startswith(incomplete)]
        return [*found, *([CompletionItem(incomplete, type="file")] if self.files else [])]


@click.command("list")
@click.argument("kind", required=False, metavar=f"[{KINDS}]", type=Text(lambda: KINDS.split("|")))
def list_(kind: str | None) -> None:
    """List the plug-ins to choose from, with their parameters, and the presets."""
    from lmfuzz.plugins.registry import Entry

    known = {name: one.describe() for name, one in kinds().items()}
    known["presets"] = [Entry(name, purpose) for name, purpose in presets().items()]
    if kind is not None and kind not in known:
        right = nearest(kind, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"there is no list of {kind!r}{right}")
    for name in [kind] if kind else known:
        entries = known[name]
        if not entries and kind is None:
            continue
        click.secho(name, bold=True)
        for entry in entries:
            click.echo(f"  {entry.name:<13} {entry.line}")
            for parameter in entry.parameters:
                click.echo(f"  {'':<13}   {parameter}")
        if not entries:
            click.echo("  none are installed; a file or module of your own works too: file.py:name")


add_verbosity(list_)
