"""The command line: the only place that knows click, exit codes and signals."""

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NoReturn

import click

import lmfuzz
from lmfuzz.errors import TargetError, UsageError, nearest

if TYPE_CHECKING:
    from lmfuzz.campaign import Campaign
    from lmfuzz.store import Store, Unwritten

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before numpy loads: matrices are small, threads only spin

NOTHING, FOUND, USAGE, TARGET, DISK, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

_EXITS = """
\b
Exit codes:
  0    nothing was found (replay: everything is fixed)
  1    findings (replay: something still fails or could not be judged)
  2    wrong usage, or nothing was found and an objective never scored a row
  3    the model could not be loaded
  4    the disk is full; findings that could not be written are on stderr
  70   a bug in lmfuzz; its traceback is on stderr
  130  interrupted
"""

_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"}


class _Commands(click.Group):
    """Commands that are suggested when one is mistyped, and that end when nobody reads on."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:  # of --help and --version
            _discard()
            sys.exit(NOTHING)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1, which says that something was found
            _discard()
            sys.exit(NOTHING if ctx.invoked_subcommand in ("list", "show") else INTERRUPTED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            commands = ", ".join(self.commands)
            close = nearest(args[0], self.commands) or f"; the commands are {commands}"
            raise UsageError(f"there is no command {args[0]!r}{close}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmfuzz.__version__, prog_name="lmfuzz", message="%(prog)s %(version)s")
def cli() -> None:
    """Search for prompts on which a language model misbehaves."""


_SPEC_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--seeds", multiple=True, metavar="FILE|DIR", help="Seed prompts (default: bundled ones)."),
    click.option(
        "--objective", "objectives", multiple=True, metavar="NAME[:ARG=VAL,...]",
        help="What to look for; may be given several times (`lmfuzz list objectives`; default: repetition, "
        "and phrases:file=corpora:words/blacklist.txt).",
    ),
    click.option("--search", metavar="NAME", help="The strategy (default: directed)."),
    click.option("--feature", metavar="NAME", help="Where in state space a row went (default: hidden_last)."),
    click.option("--operator", "operators", multiple=True, metavar="NAME", help="Mutations (default: all)."),
    click.option("--dictionary", "--dict", "dictionary", metavar="FILE", help="In the format of libFuzzer."),
    click.option("--budget", metavar="AMOUNT", help="90s, 5m, 1.5h, or 200000x rows searched (default: 1m)."),
    click.option("--stop-after", type=int, metavar="N", help="End after N findings."),
    click.option("--seed", type=int, help="Of all random choices (default: 0)."),
    click.option("--batch", type=int, help="Rows run at once (default: 64)."),
    click.option("--max-new", type=int, help="Symbols that the model writes per row (default: 50)."),
    click.option("--temperature", type=float, help="0 is greedy (default)."),
    click.option("--decode-seed", type=int, help="Of the noise, with a temperature (default: 0)."),
    click.option("--stop", multiple=True, metavar="TEXT", help="An output ends where this begins."),
    click.option("--min-length", type=int, help="Symbols of a prompt, at least (default: 1)."),
    click.option("--max-length", type=int, help="Symbols of a prompt, at most (default: 64)."),
    click.option("--unknown", metavar="error|drop", help="Characters of seeds that the model does not know."),
    click.option("--allow-pickle", is_flag=True, default=None, help="Read tensors of a pickled checkpoint."),
    click.option("--confirm", type=int, help="Re-runs per finding (default: 3)."),
    click.option("--keep", type=int, help="Findings kept per bucket (default: 3)."),
    click.option("--radius", type=float, help="How far apart states must be to be new (default: measured)."),
)  # fmt: skip


def _with(options: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return add


_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print a machine-readable summary as the last line."
)

_ONLY_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with everything.")


@cli.command()
@click.argument("model", required=False)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with the same things."
)
@_with(_SPEC_OPTIONS)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: runs/DATE-TIME."
)
@_JSON
def fuzz(config: Path | None, output: Path | None, as_json: bool, **options: Any) -> None:
    """Search for prompts on which MODEL misbehaves.

    MODEL is a checkpoint folder, file.py:factory or module:factory (default: the bundled model).
    A budget counts wall time, or every row that the model runs after calibration, re-runs included.
    """
    from lmfuzz import spec as specs

    spec = specs.resolve(specs.load(config) if config else {}, options)
    from lmfuzz.campaign import Campaign, default_directory
    from lmfuzz.show import counted
    from lmfuzz.store import free

    directory = output or default_directory(datetime.now().strftime("%Y%m%d-%H%M%S"))
    free(directory)
    campaign = Campaign(spec)
    model = f"model {spec.model}" if spec.model else "the bundled model"
    seeds = counted(len(campaign.setting.seeds), "seed")
    _say(f"{model}, {seeds}, {', '.join(spec.objectives)}; seed {spec.seed}")
    for note in campaign.notes:
        _say(note)
    campaign.calibrate()
    _say(campaign.calibration.words())
    with campaign.create(directory) as store, _resumable(directory):
        _run(campaign, store, as_json)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--budget", metavar="AMOUNT", help="A larger budget, what was spent before included.")
@click.option("--stop-after", type=int, metavar="N", help="End after N findings, those before included.")
@_JSON
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
@_ONLY_JSON
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
@_ONLY_JSON
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
    with watch(campaign, sys.stdout) as view, _signals(campaign):
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
        _fail(campaign.unjudged, USAGE)
    sys.exit(FOUND if campaign.kept else NOTHING)


@contextmanager
def _resumable(directory: Path) -> Iterator[None]:
    """Say how to go on when Ctrl-C comes before the first step, or a second time."""
    try:
        yield
    except KeyboardInterrupt:
        from lmfuzz.show import resume_command

        _fail(f"interrupted; go on with: {resume_command(directory)}", INTERRUPTED)


@contextmanager
def _signals(campaign: "Campaign") -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP ends the campaign after its step, a second one at once."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def stop(number: int, frame: object) -> None:
        campaign.stop()
        signal.signal(number, before[signal.Signals(number)])

    if before[signal.SIGHUP] == signal.SIG_IGN:  # as nohup wants it
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(full: "Unwritten") -> NoReturn:
    """Say that the disk is full, with the findings that would be lost otherwise."""
    from lmfuzz.show import counted, record

    for finding in full.findings:
        click.echo(json.dumps(record(finding)), err=True)
    lost = counted(len(full.findings), "finding")
    _fail(f"{full}{f'; {lost} could not be written, see above' if full.findings else ''}", DISK)


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
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        sentence, code = _sentence(error)
        if code == BUG:
            traceback.print_exc()
        _fail(sentence, code)


def _sentence(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    from sqlite3 import DatabaseError

    from lmfuzz.store import Unwritten

    match error:
        case click.ClickException():
            return error.format_message(), USAGE
        case UsageError():
            return str(error), USAGE
        case TargetError():
            return str(error), TARGET
        case Unwritten():
            return str(error), DISK
        case DatabaseError() if getattr(error, "sqlite_errorname", "") in _FULL:
            return f"cannot write the campaign: {error}", DISK
        case DatabaseError():
            return f"the campaign's database cannot be read: {error}", USAGE
        case OSError():
            place = f" {error.filename}" if error.filename else ""
            said = error.strerror or str(error) or type(error).__name__
            return f"cannot read or write{place}: {said}", DISK if error.errno == errno.ENOSPC else USAGE
        case MemoryError():
            return "there is not enough memory; a smaller model, --batch or --max-new needs less", USAGE
    return "this is a bug in lmfuzz; the campaign on disk is kept", BUG


def _fail(sentence: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        _discard()
    click.echo(f"lmfuzz: {sentence}", err=True)
    sys.exit(code)


def _discard() -> None:
    """Send what is left for stdout nowhere: flushing it on the way out would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
