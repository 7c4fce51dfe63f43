"""How fast is a campaign against its model, and the model's decoding against the plain one?"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.campaigns import assembled, window_prompts
from benchmarks.figures import Measured, Options, Wrong, percent, spread
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.cli.progress import CampaignView, console, progress_of
from lmfuzz.spec import Spec
from lmfuzz.storage.store import Store
from lmfuzz.targets.loading import load_target
from lmfuzz.targets.modules.target import RNNTarget
from lmfuzz.types import Batch, Finding, IntArray, Step

PROMPT, ROWS = 64, 64

Against = Callable[[list[Batch]], float]


def bundled() -> RNNTarget:
    """The bundled model, greedy, 50 characters per row."""
    target = load_target(Spec())
    assert isinstance(target, RNNTarget)
    return target


@torch.inference_mode()
def bare(target: RNNTarget, batches: list[Batch]) -> float:
    """Wall seconds of decoding ``batches`` in place, with nothing around it and nothing shown."""
    started = time.perf_counter()
    for batch in batches:
        target._write(target._read(batch), target.decoding.max_new, target.sampler.choose)
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a campaign in wall seconds: all of it, in the model, and something else's on its rows."""

    wall: float
    inside: float
    sampling: float  # what of ``inside`` was writing tails for the operator ``tail``
    other: float  # what it is measured against, on the same rows
    symbols: float  # mean length of its prompts
    drawn: bool  # whether the live view was drawn, as at a terminal; else lines, as in a pipe
    rows: int  # prompts that the search asked for

    @property
    def outside(self) -> float:
        """The share of the time that is not spent in the model."""
        return 1 - self.inside / self.wall


class Stopwatch:
    """Watches a campaign in slices of ``steps`` steps, each followed by something else on the same rows.

    against: runs the rows of batches, and returns the wall seconds that it took. The live view and the
    lines, as a user would get them, take turns as what is shown.
    """

    def __init__(
        self, campaign: Campaign, out: IO[str], steps: int, slices: int, warm_up: int, against: Against
    ) -> None:
        self._campaign, self._steps, self._wanted, self._left = campaign, steps, slices, warm_up
        self._against = against
        screen = Console(file=out, force_terminal=True, width=120, height=40, legacy_windows=False)
        look = partial(progress_of, campaign)
        self._views = CampaignView(look, screen), CampaignView(look, console(out))
        self.slices: list[Slice] = []
        self._sampling = 0.0
        self._sample = campaign.executor.sample
        campaign.executor.sample = self._sampled  # type: ignore[method-assign]
        self._begin()

    @property
    def _view(self) -> CampaignView:
        return self._views[len(self.slices) % 2]

    def note(self, line: str) -> None:
        """As the view does."""
        self._view.note(line)

    def found(self, number: int, finding: Finding) -> None:
        """As the view does."""
        self._view.found(number, finding)

    def _sampled(self, batch: Batch, new: int, temperature: float, rng: np.random.Generator) -> IntArray:
        before = self._campaign.executor.seconds
        tails = self._sample(batch, new, temperature, rng)
        self._sampling += self._campaign.executor.seconds - before
        return tails

    def _begin(self) -> None:
        self._batches: list[Batch] = []
        self._before = self._campaign.executor.seconds, self._sampling
        self._started = time.perf_counter()

    def step(self, step: Step) -> None:
        """Show and take note of a step; the seeds and the warm-up do not count."""
        self._view.step(step)
        if (step.batch.parent < 0).any() or self._left > 0:
            self._left -= 1
            self._begin()
            return
        self._batches.append(step.batch)
        if len(self._batches) < self._steps:
            return
        wall = time.perf_counter() - self._started
        inside, sampling = self._campaign.executor.seconds - self._before[0], self._sampling - self._before[1]
        symbols = float(np.mean([batch.lengths.mean() for batch in self._batches]))
        drawn, rows = self._view is self._views[0], sum(map(len, self._batches))
        other = self._against(self._batches)
        self.slices.append(Slice(wall, inside, sampling, other, symbols, drawn, rows))
        if len(self.slices) == self._wanted:
            self._campaign.stop()
        self._begin()


def sliced(search: str, quick: bool) -> list[Slice]:
    """A campaign of the default objectives with one search, in slices."""
    prompts = window_prompts(bundled().space, 16 if quick else 256, PROMPT)
    # A commit comes every 3 seconds: slices of 120 steps hold one or more each.
    steps, slices, warm_up = (2, 2, 1) if quick else (120, 10, 40)
    with assembled(prompts, search=search) as (campaign, store):
        target = campaign.target
        assert isinstance(target, RNNTarget)
        return watched(campaign, store, steps, slices, warm_up, partial(bare, target))


def watched(
    campaign: Campaign, store: Store, steps: int, slices: int, warm_up: int, against: Against
) -> list[Slice]:
    """A campaign in so many slices, as Stopwatch."""
    with Path(os.devnull).open("w") as out:
        watch = Stopwatch(campaign, out, steps, slices, warm_up, against)
        campaign.run(store, watch)
    return watch.slices


def measure_campaign(keys: list[str], options: Options) -> dict[str, Measured]:
    """``overhead_share`` and ``campaign_vs_bare``, from the same campaigns."""
    directed, blind = sliced("directed", options.quick), sliced("tensorfuzz", options.quick)
    figures = {"overhead_share": _overhead, "campaign_vs_bare": _against}
    return {key: figures[key](directed, blind) for key in keys}


def _overhead(directed: list[Slice], blind: list[Slice]) -> Measured:
    value, lines = outside(directed)
    tails = percent(statistics.median(s.sampling / s.wall for s in directed))
    lengths = [f"{statistics.median(s.symbols for s in slices):.0f}" for slices in (directed, blind)]
    return Measured(
        value,
        (
            *lines,
            f"search tensorfuzz, no grading in the model: {line((s.outside for s in blind), percent)}",
            f"counted as model time: tails that the model writes for the operator tail, {tails}",
            f"mean prompt: {lengths[0]} characters (directed), {lengths[1]} (tensorfuzz)",
        ),
    )


def outside(directed: list[Slice]) -> tuple[float, tuple[str, str]]:
    """The share of a directed campaign's time outside its model, the live view drawn, and lines on it."""
    drawn = [s.outside for s in directed if s.drawn]
    piped = [s.outside for s in directed if not s.drawn]
    return statistics.median(drawn), (
        f"search directed, live view drawn: {line(drawn, percent)}",
        f"the same in a pipe: {line(piped, percent)}",
    )


def _against(directed: list[Slice], blind: list[Slice]) -> Measured:
    def against(s: Slice) -> float:
        return s.other / s.wall

    return Measured(
        statistics.median(map(against, blind)),
        (
            f"search tensorfuzz, no grading in the model: {line(map(against, blind), '{:.3f}'.format)}",
            f"search directed: {line(map(against, directed), '{:.3f}'.format)}; its grading (phrase "
            "gaps) and tails are model work that the bare loop does not do",
        ),
    )


def line(values: Iterable[float], shown: Callable[[float], str]) -> str:
    """The median of some slices, and their spread."""
    values = list(values)
    return f"{shown(statistics.median(values))} ({spread(values, shown)} in {len(values)} slices)"


@torch.inference_mode()
def naive(target: RNNTarget, hidden: Tensor, cell: Tensor) -> Tensor:
    """Tokens (T, B), greedy, by calling the module once per step from the state (layers, B, H)."""
    model, state = target.module, (hidden, cell)
    tokens = torch.empty((target.decoding.max_new, hidden.shape[1]), dtype=torch.int64)
    logits = model.output(hidden[-1])
    for step in range(len(tokens)):
        if step:
            every, state = model(tokens[step - 1][:, None], state)
            logits = every[:, -1]
        torch.argmax(logits, dim=1, out=tokens[step])
    return tokens


@torch.inference_mode()
def measure_decoding(keys: list[str], options: Options) -> dict[str, Measured]:
    """``inplace_vs_naive``: the same tokens from the same states, one after the other."""
    target = bundled()
    prompts = window_prompts(target.space, ROWS, PROMPT)
    symbols = torch.from_numpy(np.stack([target.space.encode(prompt) for prompt in prompts])).long()
    _, (hidden, cell) = target.module(symbols)
    ratios, times = [], []
    for turn in range(4 if options.quick else 60):
        flat = torch.cat(list(hidden), dim=1), torch.cat(list(cell), dim=1)
        started = time.perf_counter()
        ours, *_ = target._write(flat, target.decoding.max_new, target.sampler.choose)
        between = time.perf_counter()
        theirs = naive(target, hidden, cell)
        ended = time.perf_counter()
        if not torch.equal(ours, theirs):
            raise Wrong("the in-place step and nn.LSTM wrote different tokens")
        if turn:  # the first warms up
            ratios.append((ended - between) / (between - started))
            times.append((between - started, ended - between))
    mine, plain = (statistics.median(column) for column in zip(*times, strict=True))
    new = target.decoding.max_new
    rate = ROWS * new / mine
    lines = (
        f"{1000 * mine:.1f} ms against {1000 * plain:.1f} ms for {ROWS} x {new} characters,"
        f" tokens equal; {rate / 1000:.0f} k characters/s; {spread(ratios, '{:.2f}x'.format)}",
    )
    return {keys[0]: Measured(statistics.median(ratios), lines)}


HEAVY = {"torch", "nmslib", "transformers"}


def measure_help(keys: list[str], options: Options) -> dict[str, Measured]:
    """``help_seconds``: the slower of two commands, each the median of 5 runs in a new process."""
    medians = {}
    for arguments in (["--help"], ["list"]):
        words = " ".join(["lmfuzz", *arguments])
        command = ["-m", "lmfuzz", *arguments]
        traced = [sys.executable, "-X", "importtime", *command]
        imports = subprocess.run(traced, capture_output=True, text=True)
        if imports.returncode:
            reason = (imports.stderr.strip().splitlines() or ["nothing said"])[-1]
            raise Wrong(f"`{words}` ends with exit code {imports.returncode}: {reason}")
        loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in imports.stderr.splitlines()}
        if heavy := sorted(HEAVY & loaded):
            raise Wrong(f"`{words}` imports {', '.join(heavy)}")
        seconds = []
        for _ in range(1 if options.quick else 5):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
        medians[words] = statistics.median(seconds)
    shown = ", ".join(f"{words} {value:.3f} s" for words, value in medians.items())
    return {keys[0]: Measured(max(medians.values()), (f"{shown}; neither imports torch",))}
