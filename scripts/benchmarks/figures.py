"""The figures that scripts/bench measures: what each is, what it has to reach, how it is written."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Wrong(Exception):  # noqa: N818  # a check inside a measurement failed, so there is no figure
    """A measurement cannot be trusted, or could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure; ``quick`` shrinks everything so that only the machinery is tried."""

    quick: bool = False
    text: Path | None = None  # the text that the bundled model was trained on
    log: Path | None = None  # where finished trials are kept
    words_budget: str = "5m"
    trials: int = 5
    jobs: int = 1
    model: Path | None = None  # a folder of a causal language model, beside those that are made
    device: str = "cpu"  # of causal language models


@dataclass(frozen=True, slots=True)
class Measured:
    """A value, None when it could not be measured, and lines that say more."""

    value: float | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """``reached`` says whether a value is good enough; None: reported as it is."""

    what: str
    least: str
    reached: Callable[[float], bool] | None
    shown: Callable[[float], str]


def percent(value: float) -> str:
    """0.0312 as 3.12 %."""
    return f"{100 * value:.2f} %"


FIGURES: dict[str, Figure] = {
    "overhead_share": Figure(
        "campaign time outside the model (batch 64, 64 + 50 characters)",
        "under 4 %", lambda v: v < 0.04, percent,
    ),
    "campaign_vs_bare": Figure(
        "prompts/s of a campaign against a bare in-place loop", "0.9", lambda v: v >= 0.9, "{:.3f}".format
    ),
    "inplace_vs_naive": Figure(
        "in-place step against calling nn.LSTM per step, batch 64", "2x", lambda v: v >= 2, "{:.2f}x".format
    ),
    "archive_share_100k": Figure(
        "archive at 100 000 points (d=64), share of model time per row",
        "under 20 %", lambda v: v < 0.2, percent,
    ),
    "help_seconds": Figure(
        "lmfuzz --help and lmfuzz list, no torch", "under 0.4 s", lambda v: v < 0.4, "{:.3f} s".format
    ),
    "memory_growth_mb": Figure(
        "memory growth, executions 100 000 to 500 000, beyond corpus and archive",
        "flat (under 10 MB)", lambda v: v < 10, "{:+.1f} MB".format,
    ),
    "words_directed": Figure("words found of 10: directed", "5 of 10", lambda v: v >= 5, "{:.1f}".format),
    "words_tensorfuzz": Figure("words found of 10: tensorfuzz", "as it is", None, "{:.1f}".format),
    "words_walk": Figure("words found of 10: walk", "as it is", None, "{:.1f}".format),
    "words_random": Figure("words found of 10: random", "as it is", None, "{:.1f}".format),
    "causal_vs_generate": Figure(
        "prompts/s of a campaign on a causal LM against model.generate, batch 64, equal lengths",
        "1.2x", lambda v: v >= 1.2, "{:.2f}x".format,
    ),
    "causal_vs_generate_mixed": Figure(
        "the same with prompts of 8 to 128 tokens", "3x", lambda v: v >= 3, "{:.2f}x".format
    ),
    "causal_overhead_share": Figure(
        "campaign time outside a causal LM (batch 64)", "under 3 %", lambda v: v < 0.03, percent
    ),
    "batch_changes": Figure(
        "rows of 1 000 with another text in a batch of 64 than alone, that no tie of logits explains",
        "0", lambda v: v == 0, "{:.0f}".format,
    ),
    "token_scan_per_second": Figure(
        "tokens/s of the scan for under-trained ones, vocabulary of 32 000", "as it is", None, "{:.0f}".format
    ),
    "shrink_ratio": Figure(
        "length of a prompt after / before it was made minimal, median of the bundled model's findings",
        "at most 0.35", lambda v: v <= 0.35, "{:.2f}".format,
    ),
    "shrink_executions": Figure(
        "executions to make one minimal, the most", "under 2 000", lambda v: v < 2000, "{:.0f}".format
    ),
    "shrink_minimal": Figure(
        "minimal ones that fail alone in their bucket, and without any one symbol do not",
        "100 %", lambda v: v == 1, percent,
    ),
    "distil_seconds": Figure(
        "to distil 20 000 rows of 64 dimensions, no model, processor time",
        "under 10 s", lambda v: v < 10, "{:.2f} s".format,
    ),
    "sweep_resume": Figure(
        "of 40 campaigns of a minute, killed -9 twice: lost, begun twice or run again", "0",
        lambda v: v == 0, "{:.0f}".format,
    ),
    "report_seconds": Figure(
        "to report 1 000 findings and 1 M executions", "under 20 s", lambda v: v < 20, "{:.1f} s".format
    ),
    "module_known": Figure(
        "executions/s on a module of embedding, LSTM and linear against its folder, walk, batch 64",
        "0.95", lambda v: v >= 0.95, "{:.2f}x".format,
    ),
    "module_state": Figure(
        "the same, for a module with a state that the fast kernels do not know", "0.5",
        lambda v: v >= 0.5, "{:.2f}x".format,
    ),
    "module_causal": Figure(
        "the same, for a GPT without a cache (4 layers of 128) against a Hugging Face folder", "0.5",
        lambda v: v >= 0.5, "{:.2f}x".format,
    ),
    "module_gap": Figure(
        "mean best gap of ten rare words after 20 000 executions, module less folder", "equal (within 0.5)",
        lambda v: abs(v) <= 0.5, "{:+.2f} nats".format,
    ),
    "report_mb": Figure("the size of that report", "under 6 MB", lambda v: v < 6, "{:.2f} MB".format),
}  # fmt: skip


def spread(values: Iterable[float], shown: Callable[[float], str]) -> str:
    """``LEAST to MOST``."""
    values = list(values)
    return f"{shown(min(values))} to {shown(max(values))}"


def noted(line: str) -> str:
    """The line, which a person who waits sees at once, on stderr."""
    print(f"  {line}", file=sys.stderr, flush=True)
    return line


def row(key: str, figure: Figure, value: float | None) -> list[str]:
    """A line of the table."""
    if value is None:
        return [key, figure.what, figure.least, "-", "not measured"]
    verdict = ""
    if figure.reached is not None:
        verdict = "reached" if figure.reached(value) else "[red]missed[/red]"
    return [key, figure.what, figure.least, figure.shown(value), verdict]


def show(results: Mapping[str, Measured], figures: Mapping[str, Figure], quick: bool) -> None:
    """Print the table, and below it what else was seen."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("figure", "what", "at least", "measured", ""):
        table.add_column(name, overflow="fold")
    for key, one in results.items():
        table.add_row(*row(key, figures[key], one.value))
    console.print(table)
    for key, one in results.items():
        for line in one.lines:
            console.print(f"{key}: {escape(line)}", soft_wrap=True)
    if quick:
        console.print("--quick only tries the machinery: these values mean nothing")
