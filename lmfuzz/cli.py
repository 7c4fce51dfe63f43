"""The command line: the only place that knows exit codes and signals."""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NoReturn

import click

import lmfuzz
from lmfuzz import options
from lmfuzz.errors import UsageError, nearest
from lmfuzz.exits import BUG, DISK, EXITS, FOUND, INTERRUPTED, NOTHING, USAGE, discard, fail, sentence
from lmfuzz.signals import heeded

if TYPE_CHECKING:
    from lmfuzz.campaign import Campaign
    from lmfuzz.spec import Spec
    from lmfuzz.store import Store, Unwritten

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before numpy loads: matrices are small, threads only spin


class _Commands(click.Group):
    """Commands that are suggested when one is mistyped, and that end when nobody reads on."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:  # of --help and --version
            discard()
            sys.exit(NOTHING)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1, which says that something was found
            discard()
            sys.exit(NOTHING if ctx.invoked_subcommand in ("list", "show") else INTERRUPTED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            commands = ", ".join(self.commands)
            close = nearest(args[0], self.commands) or f"; the commands are {commands}"
            raise UsageError(f"there is no command {args[0]!r}{close}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, epilog=EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmfuzz.__version__, prog_name="lmfuzz", message="%(prog)s %(version)s")
def cli() -> None:
    """Search for inputs on which a model misbehaves: prompts, images, numbers."""


_WHOLE = options.several(options.OUTPUT, options.JSON)  # of every command that begins a campaign

_NAN = {"objectives": ["nonfinite"], "search": "directed", "shape": [28, 28, 1]}
_LABELS = {"objectives": ["disagreement"], "search": "boundary", "shape": [28, 28, 1], "count": 100}
_TEXTS = {"objectives": ["disagreement"]}


@cli.command()
@click.argument("model", required=False)
@options.CONFIG
@options.spec((*options.TEXT, *options.BOX))
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


@cli.command()
@click.argument("model")
@click.argument("twin", required=False)
@options.TWIN
@options.spec(options.TEXT)
@_WHOLE
def diff(twin: str | None, recipe: str | None, output: Path | None, as_json: bool, **given: Any) -> None:
    """Search for prompts that MODEL and its TWIN answer differently, the model being sure.

    TWIN is another model, or a recipe that makes one: fp16, bf16, int8, int4, prune:0.5, round:4.
    Objectives: disagreement (default), divergence, regression(OBJECTIVE).
    """
    _compare(_TEXTS, {**given, "twin": _twin(twin, recipe)}, output, as_json, images=False)


@cli.group()
def image() -> None:
    """Search for images on which a classifier misbehaves."""


@image.command()
@click.argument("model")
@options.DOWNLOAD
@options.spec(options.IMAGE)
@_WHOLE
def nan(download: bool, output: Path | None, as_json: bool, **given: Any) -> None:
    """Search for images that make MODEL compute NaN or infinity.

    MODEL is a checkpoint folder, a TorchScript file or exported program, or file.py:factory.
    """
    _fetch(download, given)
    _compare(_NAN, given, output, as_json)


@image.command("diff")
@click.argument("model")
@click.argument("twin", required=False)
@options.TWIN
@options.DOWNLOAD
@options.spec(options.IMAGE)
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
    from lmfuzz import images

    folder = os.environ.get(images.DATA)
    names = sorted({name.partition(":")[0] for name in given["seeds"]} & images.SUMS.keys())
    if not (folder and names):
        wrong = (
            f"set {images.DATA} to the folder to put it in" if names else "name it: --seeds mnist or cifar10"
        )
        raise UsageError(f"--download fetches a data set; {wrong}")
    for name in names:
        _say(f"{name} is in {images.download(name, Path(folder).expanduser())}")


def _compare(
    defaults: dict[str, Any], given: dict[str, Any], output: Path | None, as_json: bool, images: bool = True
) -> None:
    from lmfuzz import spec as specs

    _begin(specs.resolve(defaults, given), output, as_json, images)


def _begin(spec: "Spec", output: Path | None, as_json: bool, images: bool | None = None) -> NoReturn:
    """Begin a campaign, run it, and exit as it ended; ``images``: what the command is for."""
    from lmfuzz.campaign import Campaign, default_directory
    from lmfuzz.show import counted
    from lmfuzz.store import free

    directory = output or default_directory(datetime.now().strftime("%Y%m%d-%H%M%S"))
    free(directory)
    campaign = Campaign(spec)
    if images is not None and images is not getattr(campaign.space, "image", False):
        takes, command = ("no images", "fuzz or diff") if images else ("images", "image diff")
        raise UsageError(f"{spec.model} takes {takes}; the command for it is lmfuzz {command}")
    model = f"model {spec.model}" if spec.model else "the bundled model"
    twin = f" and {spec.twin}" if spec.twin else ""
    seeds = counted(len(campaign.setting.seeds), "seed")
    _say(f"{model}{twin}, {seeds}, {', '.join(spec.objectives)}; seed {spec.seed}")
    for note in campaign.notes:
        _say(note)
    campaign.calibrate()
    _say(campaign.calibration.words())
    for name, floor in campaign.panel.noise.items():
        _say(f"noise floor of {name}: {floor:.3g}; what differs by less is no finding")
    with campaign.create(directory) as store, _resumable(directory):
        _run(campaign, store, as_json)
    raise AssertionError("a run ends with an exit")


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--budget", metavar="AMOUNT", help="A larger budget, what was spent before included.")
@click.option("--stop-after", type=int, metavar="N", help="End after N findings, those before included.")
@options.JSON
def resume(directory: Path, budget: str | None, stop_after: int | None, as_json: bool) -> None:
    """Go on with the campaign in DIRECTORY."""
    from lmfuzz.campaign import Campaign, resumed
    from lmfuzz.show import counted
    from lmfuzz.store import Store

    spec = resumed(directory, budget, stop_after)
    with Store.resume(directory) as store, _resumable(directory):
        campaign = Campaign(spec, store=store)
        campaign.restore(store)
        _say(f"going on with {directory} after {counted(campaign.executor.executions, 'execution')}")
        _run(campaign, store, as_json)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("finding", type=int, required=False)
@options.ONLY_JSON
def show(directory: Path, finding: int | None, as_json: bool) -> None:
    """Show the campaign in DIRECTORY, or one FINDING of it."""
    from lmfuzz import show as texts
    from lmfuzz.store import Store

    with Store.read(directory) as store:
        if as_json and finding is not None:
            click.echo(json.dumps(texts.record(texts.pick(store, finding), finding)))
        elif as_json:
            records = [texts.record(found, n) for n, found in enumerate(store.findings(), start=1)]
            click.echo(json.dumps({**texts.summary(store), "records": records}))
        elif finding is not None:
            _print(texts.detail_lines(store, finding))
        else:
            _print(texts.summary_lines(texts.summary(store)))
            _print(texts.finding_lines(store))


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("finding", type=int, required=False)
@options.ONLY_JSON
def replay(directory: Path, finding: int | None, as_json: bool) -> None:
    """Run the findings in DIRECTORY, or one FINDING, again, each alone."""
    from lmfuzz.replay import Replay
    from lmfuzz.show import verdict_line, verdict_record

    again = Replay(directory, finding)
    if again.changed and not as_json:
        _say("the model is another than the one these were found on")
    verdicts = []
    for verdict in again:
        verdicts.append(verdict)
        if not as_json:
            _print([verdict_line(verdict)])
    if as_json:
        click.echo(json.dumps({"changed": again.changed, "verdicts": [verdict_record(v) for v in verdicts]}))
    elif not verdicts:
        _say(f"{directory} has no findings")
    sys.exit(NOTHING if all(verdict.fixed for verdict in verdicts) else FOUND)


@cli.command()
@click.argument("model")
@options.TOP
@options.spec(options.LOADING)
@options.ONLY_JSON
def tokens(top: int, as_json: bool, **given: Any) -> None:
    """Look for tokens that MODEL hardly saw in training.

    MODEL is a Hugging Face causal language model, a folder or a name on the hub. Its embeddings say which
    tokens are suspicious; of every one the model is asked whether it can say it after reading it again and
    again. Those it cannot are under-trained: a prompt that holds one can make the model do anything.
    """
    from lmfuzz import spec as specs
    from lmfuzz.token_scan import FIXED, Scan

    scan = Scan(specs.resolve(FIXED, given))
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(scan), label="tokens", file=sys.stderr, hidden=hidden) as bar:
        for many in scan:
            bar.update(many)
    if as_json:
        click.echo(json.dumps(scan.record(), allow_nan=False))
    else:
        _print(scan.lines(top))
    sys.exit(FOUND if scan.found else NOTHING)


@cli.command("list")
@click.argument("kind", required=False, metavar="[objectives|operators|searches|features|targets]")
def list_(kind: str | None) -> None:
    """List what there is to choose from, with parameters."""
    from lmfuzz import plugins

    if kind is not None and kind not in plugins.KINDS:
        known = nearest(kind, plugins.KINDS) or f"; there are {', '.join(plugins.KINDS)}"
        raise UsageError(f"there is no list of {kind!r}{known}")
    for each in plugins.KINDS:
        entries = plugins.describe(each) if kind in (None, each) else []
        if not entries and kind != each:
            continue
        click.secho(each, bold=True)
        for entry in entries:
            click.echo(f"  {entry.name:<13} {entry.line}")
            for p in entry.parameters:
                click.echo(f"  {'':<13}   {p.name} ({p.type}{f', default {p.default}' if p.default else ''})")
        if not entries:
            click.echo("  none are installed; a file or module of your own works too: file.py:name")


def _run(campaign: "Campaign", store: "Store", as_json: bool) -> NoReturn:
    """Run the campaign, print its summary, and exit as it ended."""
    from lmfuzz import show as texts
    from lmfuzz.live import watch
    from lmfuzz.store import Unwritten

    full: Unwritten | None = None
    with watch(campaign, sys.stdout) as view, heeded(campaign.stop):
        try:
            campaign.run(store, view)
        except Unwritten as error:
            full = error
    numbers = texts.summary(store, full.findings if full else ())
    if full:
        numbers["exit_reason"] = "disk full"
    _print(texts.summary_lines(numbers))
    interrupted = campaign.reason == "interrupted"
    if interrupted or full:
        room = "make room, then " if full else ""
        click.echo(f"{room}go on with: {texts.resume_command(store.directory)}")
    elif campaign.kept:
        click.echo(f"look at one with: lmfuzz show {store.directory} 1")
    click.echo(f"the campaign is in {store.directory}")
    if as_json:
        click.echo(json.dumps(numbers))
    if full:
        _report(full)
    if interrupted:
        sys.exit(INTERRUPTED)
    if campaign.unjudged:
        fail(campaign.unjudged, USAGE)
    sys.exit(FOUND if campaign.kept else NOTHING)


@contextmanager
def _resumable(directory: Path) -> Iterator[None]:
    """Say how to go on when Ctrl-C comes before the first step, or a second time."""
    try:
        yield
    except KeyboardInterrupt:
        from lmfuzz.show import resume_command

        fail(f"interrupted; go on with: {resume_command(directory)}", INTERRUPTED)


def _report(full: "Unwritten") -> NoReturn:
    """Say that the disk is full, with the findings that would be lost otherwise."""
    from lmfuzz.show import counted, record

    for finding in full.findings:
        click.echo(json.dumps(record(finding)), err=True)
    lost = counted(len(full.findings), "finding")
    fail(f"{full}{f'; {lost} could not be written, see above' if full.findings else ''}", DISK)


def _say(line: str) -> None:
    click.echo(f"lmfuzz: {line}")


def _print(lines: Iterable[str]) -> None:
    """Lines as they are, but wrapped where a terminal would cut words in two."""
    from lmfuzz.show import wrapped

    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in lines:
        for part in wrapped(line, columns) if columns else [line]:
            click.echo(part)


def main() -> NoReturn:
    """Run the command line; every error a user can cause is one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack a character
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", INTERRUPTED)
    except Exception as error:
        words, code = sentence(error)
        if code == BUG:
            traceback.print_exc()
        fail(words, code)
