"""The options of the command line, each under the name of the spec's key that it sets."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

Option = Callable[[Any], Any]

_SPEC: dict[str, Option] = {
    "seeds": click.option(
        "--seeds", multiple=True, metavar="FILE|DIR", help="Seed prompts (default: bundled ones)."
    ),
    "images": click.option(
        "--seeds", multiple=True, metavar="NAME|FILE|DIR",
        help="digits (default), mnist, mnist:train or cifar10 (below LMFUZZ_DATA), IDX, CIFAR or PNG files.",
    ),
    "count": click.option(
        "--count", type=int, metavar="N", help="Seeds to take (default: all; image diff: 100)."
    ),
    "shape": click.option(
        "--shape", nargs=3, type=int, metavar="H W C",
        help="Of the images, for a model that does not say so itself (default: 28 28 1).",
    ),
    "resolution": click.option(
        "--resolution", metavar="byte|float", help="Values of pixels: 256 (default), or any."
    ),
    "objectives": click.option(
        "--objective", "objectives", multiple=True, metavar="NAME[:ARG=VAL,...]",
        help="What to look for; may be given several times (`lmfuzz list objectives`).",
    ),
    "search": click.option(
        "--search", metavar="NAME", help="The strategy (default: directed; image diff: boundary)."
    ),
    "feature": click.option(
        "--feature", metavar="NAME", help="Where in state space a row went (default: hidden_last)."
    ),
    "operators": click.option(
        "--operator", "operators", multiple=True, metavar="NAME", help="Mutations (default: all that fit)."
    ),
    "dictionary": click.option(
        "--dictionary", "--dict", "dictionary", metavar="FILE", help="In the format of libFuzzer."
    ),
    "linf": click.option("--linf", type=float, metavar="E", help="Largest change of a pixel, of 0 to 1."),
    "edits": click.option("--edits", type=int, metavar="N", help="Largest change of a prompt, in edits."),
    "per_seed": click.option(
        "--per-seed", type=int, metavar="N", help="Search for each seed by itself, with N executions at most."
    ),
    "budget": click.option(
        "--budget", metavar="AMOUNT", help="90s, 5m, 1.5h, or 200000x rows searched (default: 1m)."
    ),
    "stop_after": click.option("--stop-after", type=int, metavar="N", help="End after N findings."),
    "seed": click.option("--seed", type=int, help="Of all random choices (default: 0)."),
    "batch": click.option("--batch", type=int, help="Rows run at once (default: 64)."),
    "max_new": click.option(
        "--max-new", type=int, help="Symbols that the model writes per row (default: 50)."
    ),
    "temperature": click.option("--temperature", type=float, help="0 is greedy (default)."),
    "decode_seed": click.option(
        "--decode-seed", type=int, help="Of the noise, with a temperature (default: 0)."
    ),
    "stop": click.option("--stop", multiple=True, metavar="TEXT", help="An output ends where this begins."),
    "min_length": click.option("--min-length", type=int, help="Symbols of a prompt, at least (default: 1)."),
    "max_length": click.option("--max-length", type=int, help="Symbols of a prompt, at most (default: 64)."),
    "unknown": click.option(
        "--unknown", metavar="error|drop", help="Characters of seeds that the model does not know."
    ),
    "allow_pickle": click.option(
        "--allow-pickle", is_flag=True, default=None, help="Read tensors of a pickled checkpoint."
    ),
    "level": click.option(
        "--level", metavar="char|token", help="What mutations change, of a model of tokens (default: char)."
    ),
    "system": click.option("--system", metavar="TEXT", help="What the model is told before every prompt."),
    "template": click.option(
        "--template", metavar="auto|chat|raw", help="The tokenizer's own (default if it has one), or none."
    ),
    "layer": click.option(
        "--layer", type=int, metavar="N", help="Block whose states count (default: what the head reads)."
    ),
    "device": click.option("--device", metavar="cpu|cuda|auto", help="Where the model runs (default: cpu)."),
    "dtype": click.option(
        "--dtype", metavar="NAME", help="float32 (default on a CPU), bfloat16, float16, or auto."
    ),
    "batch_tokens": click.option(
        "--batch-tokens", type=int, metavar="N", help="Tokens run at once (default: what memory allows)."
    ),
    "threads": click.option(
        "--threads", type=int, metavar="N", help="Of torch (default: 1; for 50 M parameters or more, all)."
    ),
    "trust_remote_code": click.option(
        "--trust-remote-code", is_flag=True, default=None, help="Run the code that comes with a model."
    ),
    "confirm": click.option("--confirm", type=int, help="Re-runs per finding (default: 3)."),
    "keep": click.option("--keep", type=int, help="Findings kept per bucket (default: 3)."),
    "shrink": click.option(
        "--shrink", is_flag=True, default=None, help="Make every finding minimal when it is kept."
    ),
    "radius": click.option(
        "--radius", type=float, help="How far apart states must be to be new (default: measured)."
    ),
}  # fmt: skip

TEXT = (
    "seeds", "count", "objectives", "search", "feature", "operators", "dictionary", "edits", "per_seed",
    "budget", "stop_after", "seed", "batch", "max_new", "temperature", "decode_seed", "stop", "min_length",
    "max_length", "unknown", "allow_pickle", "confirm", "keep", "shrink", "radius", "level", "system",
    "template", "layer", "device", "dtype", "batch_tokens", "threads", "trust_remote_code",
)  # fmt: skip
LOADING = ("device", "dtype", "threads", "batch_tokens", "trust_remote_code", "allow_pickle")
BOX = ("linf", "resolution", "shape")
IMAGE = (
    "images", "count", "shape", "resolution", "objectives", "search", "feature", "operators", "linf",
    "per_seed", "budget", "stop_after", "seed", "batch", "allow_pickle", "confirm", "keep", "shrink",
    "radius",
)  # fmt: skip

CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with the same things."
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Default: runs/DATE-TIME."
)
TWIN = click.option("--twin", "recipe", metavar="RECIPE|MODEL", help="The twin, where TWIN is not given.")
DOWNLOAD = click.option(
    "--download", is_flag=True, help="Fetch mnist or cifar10 into LMFUZZ_DATA first where it is not there."
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print a machine-readable summary as the last line."
)
TOP = click.option(
    "--top", type=click.IntRange(min=0), default=20, metavar="N", help="Tokens to show (default: 20)."
)
ONLY_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with everything.")


def spec(names: Iterable[str]) -> Option:
    """A decorator that gives a command the options of these names, in this order."""
    return several(*(_SPEC[name] for name in names))


def several(*options: Option) -> Option:
    """A decorator that gives a command all these options, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add
