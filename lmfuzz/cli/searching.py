"""Commands that search: they begin a campaign, or resume one."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lmfuzz import spec as specs
from lmfuzz.analysis import summary as texts
from lmfuzz.cli import options
from lmfuzz.cli.console import say, tell, tell_json, verbosity
from lmfuzz.cli.exit_codes import DISK, FOUND, INTERRUPTED, NOTHING, USAGE, fail
from lmfuzz.errors import DiskError, GoneError, UsageError, printable
from lmfuzz.inputs import datasets
from lmfuzz.inputs.bundled import preset
from lmfuzz.inputs.spaces import BoxSpace
from lmfuzz.plugins.timeout import ending_late_code
from lmfuzz.spec import Spec
from lmfuzz.storage.directory import has_commit, require_empty
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.secrets import stand_in
from lmfuzz.text import plural, resume_command, shell_quote, strict_json

if TYPE_CHECKING:
    from lmfuzz.api.running import Note, View
    from lmfuzz.campaign.campaign import Campaign

_NAN = {"objectives": ["nonfinite"], "search": "directed", "shape": [28, 28, 1]}
_LABELS = {"objectives": ["disagreement"], "search": "boundary", "shape": [28, 28, 1], "count": 100}
_TEXTS = {"objectives": ["disagreement"]}


@options.command()
@options.argument("model", required=False)
@options.CONFIG
@options.spec(("", "text", "box"))
@options.NEW
def fuzz(config: Path | None, **given: Any) -> None:
    """Search for prompts on which MODEL misbehaves.

    MODEL is a checkpoint folder, a Hugging Face folder or OWNER/NAME on the hub, file.py:factory or
    module:factory, or a function of tensors, file.py:function. Without it the bundled model is tested.
    Without --objective the search looks for repetition and for the words of a bundled list. The budget counts
    wall time, or every input that the model runs after calibration, including re-runs.
    """
    _begin({}, given, config=config)


@options.command()
@options.argument("model")
@options.argument("twin", required=False)
@options.TWIN
@options.spec(("", "text"), _TEXTS)
@options.NEW
def diff(**given: Any) -> None:
    """Search for prompts that MODEL and its TWIN answer differently.

    TWIN is another model, or a recipe that makes one: fp16, bf16, int8, int4, prune:0.5, round:4, tflite,
    dynamic or torchao. The objective is disagreement (the default), which asks that MODEL be sure of its
    answer, or divergence, or regression(OBJECTIVE).
    """
    _begin(_TEXTS, given, images=False)


@click.group()
def image() -> None:
    """Search for images on which a classifier misbehaves."""


@image.command(cls=options.Command)
@options.argument("model")
@options.DOWNLOAD
@options.spec(("", "box"), _NAN)
@options.NEW
def nan(**given: Any) -> None:
    """Search for images that make MODEL compute NaN or infinity.

    MODEL is a checkpoint folder, a TorchScript file, an exported program, or file.py:factory.
    """
    _begin(_NAN, given, images=True)


@image.command("diff", cls=options.Command)
@options.argument("model")
@options.argument("twin", required=False)
@options.TWIN
@options.DOWNLOAD
@options.spec(("", "box"), _LABELS)
@options.NEW
def image_diff(**given: Any) -> None:
    """Search for images that MODEL and its TWIN label differently.

    TWIN is another model, or a recipe that makes one: fp16, bf16, int8, int4, prune:0.5, round:4 (2 to 16
    bits), tflite or dynamic.
    """
    _begin(_LABELS, given, images=True)


def _begin(
    defaults: dict[str, Any], given: dict[str, Any], images: bool | None = None, config: Path | None = None
) -> NoReturn:
    """Begin a campaign, run it, and exit.

    Args:
        defaults: the settings of the command.
        given: the options and arguments of the command.
        images: whether the command is for images; None if it is for anything.
        config: a file of settings, which override those of a preset.
    """
    from lmfuzz.api.running import begin, default_directory
    from lmfuzz.campaign.build import build

    output, as_json, name = given.pop("output"), given.pop("as_json"), given.pop("preset")
    for file in filter(None, [name and preset(name), config]):
        defaults = {**defaults, **specs.load(file)}
    if (dry_run := given.pop("dry_run")) and as_json:
        raise UsageError("--dry-run prints no JSON; leave out --json")
    if given.pop("download", False):
        _download(given["seeds"])
    if "recipe" in given:
        if (given["twin"] is None) == (given["recipe"] is None):
            raise UsageError("name the twin once: another model, or a recipe such as --twin int8")
        given["twin"] = given.pop("recipe") or given["twin"]
    spec = specs.resolve(defaults, given)
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
        say(f"{key} = {stand_in(value) if key == 'system' else value}", level=1)
    say(f"identity {target.identity}; channels {', '.join(sorted(target.channels))}", level=1)
    for note in parts.notes:
        say(note)
    if dry_run:
        from lmfuzz.api.plan import plan_lines

        tell(plan_lines(parts, directory))
        sys.exit(NOTHING)
    _finish(directory, partial(begin, parts, directory), as_json, spec)


def _download(seeds: tuple[str, ...]) -> None:
    """Download the data sets that ``seeds`` names."""
    folder = os.environ.get(datasets.DATA)
    names = sorted({name.partition(":")[0] for name in seeds} & datasets.SUMS.keys())
    if not names:
        raise UsageError("--download fetches a data set; name it with --seeds mnist or --seeds cifar10")
    if not folder:
        raise UsageError(f"--download needs a place for data; set {datasets.DATA} to the folder to put it in")
    for name in names:
        say(f"{name} is in {datasets.download(name, Path(folder).expanduser())}")


@options.command()
@options.DIRECTORY
@options.option("--budget AMOUNT", "A larger budget, which includes what was spent before.")
@options.option("--stop-after N", "Stop after N findings, including those found before.", type=int)
@options.KNOWN
@options.TRUST
@options.JSON
def resume(directory: Path, as_json: bool, **given: Any) -> None:
    """Resume the campaign in DIRECTORY."""
    from lmfuzz.api.running import go_on

    run = partial(go_on, directory, given, {})
    _finish(directory, run, as_json, CampaignRecord.read(directory).spec)


def _finish(directory: Path, run: "Callable[[Note, View], Campaign]", as_json: bool, spec: Spec) -> NoReturn:
    """Run a campaign, print its summary, and exit with the code for how it ended."""
    from lmfuzz.api.running import silent
    from lmfuzz.cli.progress import watch

    campaign, full = None, None
    words = "lmfuzz: what ran ignored --row-timeout, so it is killed; what was found is in"
    late = ending_late_code(f"{words} {printable(str(directory))}") if spec.row_timeout else nullcontext()
    try:
        with late:
            campaign = run(say, silent if verbosity() < 0 else partial(watch, out=sys.stdout))
    except (DiskError, KeyboardInterrupt) as error:
        if isinstance(error, GoneError):
            _report(error)
        if not has_commit(directory):
            raise
        if isinstance(error, KeyboardInterrupt):  # before the first step, or a second time
            fail(f"interrupted; go on with: {resume_command(directory)}", INTERRUPTED)
        full = error
    numbers = texts.summary(CampaignRecord.read(directory), full.findings if full else ())
    if full:
        numbers["exit_reason"] = "disk full"
    tell(texts.summary_lines(numbers))
    for line in campaign.common if campaign else ():
        say(line)
    interrupted = campaign is not None and campaign.reason == "interrupted"
    if interrupted or full:
        space = "free some space, then " if full else ""
        click.echo(f"{space}go on with: {resume_command(directory)}")
    elif campaign and campaign.kept and verbosity() >= 0:
        click.echo(f"look at one with: lmfuzz show {shell_quote(directory)} 1")
    click.echo(printable(f"the campaign is in {directory}"))
    if as_json:
        tell_json(numbers)
    if full:
        _report(full)
    if interrupted:
        sys.exit(INTERRUPTED)
    if campaign and campaign.unjudged:
        fail(campaign.unjudged, USAGE)
    if campaign and campaign.unscored:
        fail(campaign.unscored, FOUND)
    sys.exit(FOUND if campaign and campaign.new else NOTHING)


def _report(full: DiskError) -> NoReturn:
    """Print why the campaign cannot be written, with the findings that would otherwise be lost."""
    for finding in full.findings:
        click.echo(strict_json(texts.finding_record(finding)), err=True)
    lost = plural(len(full.findings), "finding")
    fail(f"{full}{f'; {lost} could not be written, see above' if full.findings else ''}", DISK)
