"""Commands that search: they begin a campaign, or go on with one."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell
from lmfuzz.cli.exit_codes import DISK, FOUND, INTERRUPTED, NOTHING, USAGE, fail
from lmfuzz.cli.options import verbosity
from lmfuzz.errors import UsageError, printable
from lmfuzz.text import shell_quote

if TYPE_CHECKING:
    from lmfuzz.api.running import Note, View
    from lmfuzz.campaign.campaign import Campaign
    from lmfuzz.errors import DiskError
    from lmfuzz.spec import Spec

_WHOLE = options.several(options.DIRECTORY, options.JSON)  # of every command that begins a campaign

_NAN = {"objectives": ["nonfinite"], "search": "directed", "shape": [28, 28, 1]}
_LABELS = {"objectives": ["disagreement"], "search": "boundary", "shape": [28, 28, 1], "count": 100}
_TEXTS = {"objectives": ["disagreement"]}


@options.command()
@options.argument("model", required=False)
@options.CONFIG
@options.spec(("", "text", "box"))
@_WHOLE
def fuzz(config: Path | None, output: Path | None, as_json: bool, **given: Any) -> None:
    """Search for prompts on which MODEL misbehaves.

    MODEL is a Hugging Face folder or OWNER/NAME of the hub, a checkpoint folder, file.py:factory or
    module:factory (default: the bundled model), or a function of tensors: file.py:function. With no
    --objective: repetition, and phrases:file=corpora:words/blacklist.txt.
    A budget counts wall time, or every row that the model runs after calibration, re-runs included.
    """
    from lmfuzz import spec as specs

    _begin(specs.resolve(specs.load(config) if config else {}, given), output, as_json)


@options.command()
@options.argument("model")
@options.argument("twin", required=False)
@options.TWIN
@options.spec(("", "text"), _TEXTS)
@_WHOLE
def diff(twin: str | None, recipe: str | None, output: Path | None, as_json: bool, **given: Any) -> None:
    """Search for prompts that MODEL and its TWIN answer differently, the model being sure.

    TWIN is another model, or a recipe that makes one: fp16, bf16, int8, int4, prune:0.5, round:4, tflite,
    dynamic, torchao. Objectives: disagreement (default), divergence, regression(OBJECTIVE).
    """
    _compare(_TEXTS, {**given, "twin": _twin(twin, recipe)}, output, as_json, images=False)


@click.group()
def image() -> None:
    """Search for images on which a classifier misbehaves."""


@image.command(cls=options.Command)
@options.argument("model")
@options.DOWNLOAD
@options.spec(("", "box"), _NAN)
@_WHOLE
def nan(download: bool, output: Path | None, as_json: bool, **given: Any) -> None:
    """Search for images that make MODEL compute NaN or infinity.

    MODEL is a checkpoint folder, a TorchScript file or exported program, or file.py:factory.
    """
    _fetch(download, given)
    _compare(_NAN, given, output, as_json)


@image.command("diff", cls=options.Command)
@options.argument("model")
@options.argument("twin", required=False)
@options.TWIN
@options.DOWNLOAD
@options.spec(("", "box"), _LABELS)
@_WHOLE
def image_diff(
    twin: str | None, recipe: str | None, download: bool, output: Path | None, as_json: bool, **given: Any
) -> None:
    """Search for images that MODEL and its TWIN give different labels.

    TWIN is another model, or a recipe that makes one: fp16, bf16, int8, int4, prune:0.5, round:4 (2 to 16
    bits), tflite, dynamic. Of the seeds the first 100 are taken (--count).
    """
    _fetch(download, given)
    _compare(_LABELS, {**given, "twin": _twin(twin, recipe)}, output, as_json)


def _twin(twin: str | None, recipe: str | None) -> str:
    if (twin is None) == (recipe is None):
        raise UsageError("name the twin once: another model, or a recipe such as --twin int8")
    return twin or recipe or ""


def _fetch(download: bool, given: dict[str, Any]) -> None:
    """Download what --seeds names, where that is wanted."""
    if not download:
        return
    from lmfuzz.inputs import datasets

    folder = os.environ.get(datasets.DATA)
    names = sorted({name.partition(":")[0] for name in given["seeds"]} & datasets.SUMS.keys())
    if not (folder and names):
        wrong = (
            f"set {datasets.DATA} to the folder to put it in"
            if names
            else "name it: --seeds mnist or cifar10"
        )
        raise UsageError(f"--download fetches a data set; {wrong}")
    for name in names:
        say(f"{name} is in {datasets.download(name, Path(folder).expanduser())}")


def _compare(
    defaults: dict[str, Any], given: dict[str, Any], output: Path | None, as_json: bool, images: bool = True
) -> None:
    from lmfuzz import spec as specs

    _begin(specs.resolve(defaults, given), output, as_json, images)


def _begin(spec: "Spec", output: Path | None, as_json: bool, images: bool | None = None) -> NoReturn:
    """Begin a campaign, run it, and exit as it ended; ``images``: what the command is for."""
    from lmfuzz.api.running import begin, default_directory
    from lmfuzz.campaign.build import build
    from lmfuzz.inputs.spaces import BoxSpace
    from lmfuzz.storage.directory import require_empty
    from lmfuzz.text import plural

    directory = output or default_directory()
    require_empty(directory)
    parts = build(spec)
    space, target = parts.context.space, parts.evaluator.target
    if images is not None and images is not (isinstance(space, BoxSpace) and space.image):
        takes, command = ("no images", "fuzz or diff") if images else ("images", "image diff")
        raise UsageError(f"{spec.model} takes {takes}; the command for it is lmfuzz {command}")
    model = f"model {spec.model}" if spec.model else "the bundled model"
    twin = f" and {spec.twin}" if spec.twin else ""
    seeds = plural(len(parts.context.seeds), "seed")
    say(f"{model}{twin}, {seeds}, {', '.join(spec.objectives)}; seed {spec.seed}")
    for key, value in spec.model_dump(exclude_defaults=True).items():
        say(f"{key} = {value}", level=1)
    say(f"identity {target.identity}; channels {', '.join(sorted(target.channels))}", level=1)
    for note in parts.notes:
        say(note)
    _finish(directory, partial(begin, parts, directory), as_json)


@options.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--budget", metavar="AMOUNT", help="A larger budget, what was spent before included.")
@click.option("--stop-after", type=int, metavar="N", help="End after N findings, those before included.")
@options.JSON
def resume(directory: Path, budget: str | None, stop_after: int | None, as_json: bool) -> None:
    """Go on with the campaign in DIRECTORY."""
    from lmfuzz.api.running import go_on

    _finish(directory, partial(go_on, directory, budget, stop_after, {}), as_json)


def _finish(directory: Path, run: "Callable[[Note, View], Campaign]", as_json: bool) -> NoReturn:
    """Run a campaign, print its summary, and exit as it ended."""
    from lmfuzz.analysis import summary as texts
    from lmfuzz.api.running import silent
    from lmfuzz.cli.progress import watch
    from lmfuzz.errors import DiskError
    from lmfuzz.storage.directory import has_commit
    from lmfuzz.storage.record import CampaignRecord
    from lmfuzz.text import resume_command, strict_json

    campaign, full = None, None
    try:
        campaign = run(say, silent if verbosity() < 0 else partial(watch, out=sys.stdout))
    except DiskError as error:
        if not has_commit(directory):
            raise
        full = error
    except KeyboardInterrupt:  # before the first step, or a second time
        if not has_commit(directory):
            raise
        fail(f"interrupted; go on with: {resume_command(directory)}", INTERRUPTED)
    numbers = texts.summary(CampaignRecord.read(directory), full.findings if full else ())
    if full:
        numbers["exit_reason"] = "disk full"
    tell(texts.summary_lines(numbers))
    interrupted = campaign is not None and campaign.reason == "interrupted"
    if interrupted or full:
        room = "make room, then " if full else ""
        click.echo(printable(f"{room}go on with: {resume_command(directory)}"))
    elif campaign and campaign.kept and verbosity() >= 0:
        click.echo(printable(f"look at one with: lmfuzz show {shell_quote(directory)} 1"))
    click.echo(printable(f"the campaign is in {directory}"))
    if as_json:
        click.echo(strict_json(numbers))
    if full:
        _report(full)
    if interrupted:
        sys.exit(INTERRUPTED)
    if campaign and campaign.unjudged:
        fail(campaign.unjudged, USAGE)
    sys.exit(FOUND if campaign and campaign.kept else NOTHING)


def _report(full: "DiskError") -> NoReturn:
    """Say that the disk is full, with the findings that would be lost otherwise."""
    from lmfuzz.analysis.summary import finding_record
    from lmfuzz.text import plural, strict_json

    for finding in full.findings:
        click.echo(strict_json(finding_record(finding)), err=True)
    lost = plural(len(full.findings), "finding")
    fail(f"{full}{f'; {lost} could not be written, see above' if full.findings else ''}", DISK)
