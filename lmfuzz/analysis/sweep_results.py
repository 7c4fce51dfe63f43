"""The results of a sweep: what every setting found, how soon, and how that compares with the baseline."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmfuzz.analysis import survival as stats
from lmfuzz.analysis.survival import ENOUGH, Times, Trial
from lmfuzz.analysis.sweep import Plan, Sweep, label
from lmfuzz.text import escape, plural

Labels = tuple[tuple[str, str], ...]  # axis and value
Arms = Mapping[Labels, Sequence[Trial]]  # the trials of each setting
Quote = Callable[[str], str]  # what is done to texts that are not lmfuzz's own
ANY = "any bucket"
ENDS = ("_low", "_high")  # of the interval of a value, in columns of their own in the CSV
SOONER, LOG_RANK = "_sooner", "_log_rank"  # how a time compares: A12, and the p of the log-rank test
_UNITS = ("executions", "seconds")


@dataclass(frozen=True, slots=True)
class Table:
    """Hold columns, and rows with a value for each; None if there is none."""

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


class Note(NamedTuple):
    """Hold something to know about the numbers, and the names, not escaped, that it is about."""

    words: str
    names: str = ""

    def text(self, quote: Quote = str) -> str:
        """Return it as a person reads it, its names escaped, then quoted."""
        return f"{self.words}: {quote(escape(self.names))}" if self.names else self.words


@dataclass(frozen=True, slots=True)
class Results:
    """Hold a table per setting, one per setting and bucket, and what to know about them."""

    name: str
    settings: Table
    buckets: Table
    notes: tuple[Note, ...]


def results(sweep: Sweep, plan: Plan, trials: Sequence[tuple[Labels, Trial]]) -> Results:
    """Return the results of the campaigns that have ended."""
    arms: dict[Labels, list[Trial]] = {cell.labels: [] for cell in sweep.cells}
    for labels, trial in trials:
        arms[labels].append(trial)
    axes = tuple(name for name, _ in next(iter(arms)))
    chosen = {name: label(value) for name, value in plan.baseline.items() if name in axes}
    found = Counter(bucket for trials in arms.values() for one in trials for bucket in one.first)
    names = [None, *sorted(found, key=lambda bucket: (-found[bucket], bucket))]
    ours = [
        ([value for _, value in labels], trials, _baseline(labels, chosen, arms))
        for labels, trials in arms.items()
        if trials
    ]
    times = [column for unit in _UNITS for column in (*_wide(unit), unit + SOONER, unit + LOG_RANK)]
    return Results(
        sweep.folder.name,
        Table(
            "What every setting found",
            (*axes, "trials", *_UNITS, *_wide("buckets"), "more", "p"),
            [[*values, *_found(trials, base)] for values, trials, base in ours],
        ),
        Table(
            "How soon, to the first confirmed finding",
            ("bucket", *axes, "found", "trials", *times),
            [
                [bucket or ANY, *values, *_soon(bucket, trials, base)]
                for bucket in names
                for values, trials, base in ours
            ],
        ),
        tuple(_notes(sweep, plan, arms, chosen)),
    )


def _wide(name: str) -> list[str]:
    """The columns of a value with an interval."""
    return [name, *(name + end for end in ENDS)]


def _baseline(labels: Labels, chosen: Mapping[str, str], arms: Arms) -> Sequence[Trial]:
    """The trials that those of ``labels`` are compared with; none for the baseline itself."""
    base = tuple((name, chosen.get(name, value)) for name, value in labels)
    return [] if base == labels or not chosen else arms.get(base, [])


def _found(ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """Trials, medians of executions, seconds and buckets, and whether there are more than theirs."""
    many, others = [len(one.first) for one in ours], [len(one.first) for one in theirs]
    spent = [statistics.median(getattr(one, unit) for one in ours) for unit in _UNITS]
    interval = stats.median_interval(many) or (None, None)
    better = (stats.a12(many, others), stats.mann_whitney(many, others)) if others else (None, None)
    return [len(ours), *spent, statistics.median(many), *interval, *better]


def _soon(bucket: str | None, ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """How many trials found a bucket, or any; medians until then; whether that is sooner than theirs."""
    found, many = sum(_first(bucket, one) is not None for one in ours), len(ours)
    row: list[Any] = [found, many]
    for unit in range(len(_UNITS)):
        own, other = _times(bucket, unit, ours), _times(bucket, unit, theirs)
        sooner = (stats.gehan(own, other)[0], stats.logrank(own, other)) if theirs else (None, None)
        median, low, high = stats.survival(*own)
        if 2 * found < many:  # if trials end early, the curve crosses 1/2 on the word of a few
            median, high = None, None
        row += [median, low, high, *sooner]
    return row


def _first(bucket: str | None, trial: Trial) -> tuple[int, float] | None:
    """When a trial found a bucket, or any."""
    return min(trial.first.values(), default=None) if bucket is None else trial.first.get(bucket)


def _times(bucket: str | None, unit: int, trials: Sequence[Trial]) -> Times:
    """When each trial found a bucket, or ended without it, and whether it found it."""
    first = [_first(bucket, one) for one in trials]
    ends = [(one.executions, one.seconds) for one in trials]
    times = [float((at or end)[unit]) for at, end in zip(first, ends, strict=True)]
    return times, [at is not None for at in first]


def _notes(sweep: Sweep, plan: Plan, arms: Arms, chosen: Mapping[str, str]) -> Iterator[Note]:
    """What to know about the numbers."""
    trials = [one for many in arms.values() for one in many]
    if missing := len(sweep.cells) - len(trials):
        are = f"{missing} of {plural(len(sweep.cells), 'campaign')} are"
        yield Note(f"{are} not at their end, and not in here")
    if failed := [cell.name for cell in sweep.failures]:
        yield Note(f"warning: {plural(len(failed), 'campaign')} failed", ", ".join(failed))
    if few := [len(of) for of in arms.values() if len(of) < ENOUGH]:
        many = plural(few[0], "trial") if len({*few}) == 1 else f"{min(few)} to {max(few)} trials"
        yield Note(f"warning: {many} per setting; below {ENOUGH}, differences may be chance")
    if blind := sum(trial.unscored > 0 for trial in trials):
        yield Note(f"warning: in {plural(blind, 'campaign')} some inputs could not be scored")
    if chosen:
        base = ", ".join(f"{name}={value}" for name, value in chosen.items())
        yield Note("p is two-sided and not corrected for multiple comparisons; A12 and p compare with", base)
        yield Note("sooner: A12 of all pairs of trials, undecided ones counting half (Gehan), and log-rank p")
    elif plan.baseline:
        names = ", ".join(plan.baseline)
        yield Note("nothing is compared, since the grid has only one value of what [baseline] names", names)
    else:
        yield Note("nothing is compared, since there is no [baseline]")
    if any(cell.spec.stop_after for cell in sweep.cells):
        yield Note("stop_after ends a campaign at that many findings, flaky or not; the rest is censored")
    yield Note("medians have 95 % intervals: by bootstrap for buckets, by Kaplan and Meier for times")
    yield Note("a time is the median only where half of the trials, or more, found it")
    yield Note("a trial that found nothing may have found it later; executions count after the calibration")
