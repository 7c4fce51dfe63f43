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
Quote = Callable[[str], str]  # what is done to texts that are not lmfuzz's own
ANY = "any bucket"
ENDS = ("_low", "_high")  # of the interval of a value, in columns of their own in the CSV
SOONER, LOG_RANK = "_sooner", "_log_rank"  # how a time compares: A12, and the same of its p


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and rows with a value for each; None where there is none."""

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


class Note(NamedTuple):
    """Something to know about the numbers, and the names, not escaped, that it is about."""

    words: str
    names: str = ""

    def text(self, quote: Quote = str) -> str:
        """As a person reads it, its names escaped, then quoted."""
        return f"{self.words}: {quote(escape(self.names))}" if self.names else self.words


@dataclass(frozen=True, slots=True)
class Results:
    """A table per setting, one per setting and bucket, and what to know about them."""

    name: str
    settings: Table
    buckets: Table
    notes: tuple[Note, ...]


def results(sweep: Sweep, plan: Plan, trials: Sequence[tuple[Labels, Trial]]) -> Results:
    """The results of those campaigns that are at their end."""
    arms: dict[Labels, list[Trial]] = {cell.labels: [] for cell in sweep.cells}
    for labels, trial in trials:
        arms[labels].append(trial)
    axes = tuple(name for name, _ in next(iter(arms)))
    chosen = {name: label(value) for name, value in plan.baseline.items() if name in axes}
    rivals = {labels: _rival(labels, chosen, arms) for labels in arms}
    found = Counter(bucket for trials in arms.values() for one in trials for bucket in one.first)
    names = [None, *(bucket for bucket, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))]
    ours = [labels for labels in arms if arms[labels]]
    return Results(
        sweep.folder.name,
        Table(
            "What every setting found",
            (*axes, "trials", "executions", "seconds", *_wide("buckets"), "more", "p"),
            [[*_values(labels), *_found(arms[labels], rivals[labels])] for labels in ours],
        ),
        Table(
            "How soon, to the first confirmed finding",
            ("bucket", *axes, "found", "trials", *_timed("executions"), *_timed("seconds")),
            [
                [bucket or ANY, *_values(labels), *_soon(bucket, arms[labels], rivals[labels])]
                for bucket in names
                for labels in ours
            ],
        ),
        tuple(_notes(sweep, plan, arms, chosen)),
    )


def _wide(name: str) -> list[str]:
    """The columns of a value with an interval."""
    return [name, *(name + end for end in ENDS)]


def _timed(unit: str) -> list[str]:
    """The columns of a time, and of how it compares."""
    return [*_wide(unit), unit + SOONER, unit + LOG_RANK]


def _values(labels: Labels) -> list[str]:
    return [value for _, value in labels]


def _rival(labels: Labels, chosen: Mapping[str, str], arms: Mapping[Labels, list[Trial]]) -> list[Trial]:
    """The trials that those of ``labels`` are compared with; none of the baseline itself."""
    base = tuple((name, chosen.get(name, value)) for name, value in labels)
    return [] if base == labels or not chosen else arms.get(base, [])


def _found(ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """Trials, medians of executions, seconds and buckets, and whether there are more than theirs."""
    many, others = [len(one.first) for one in ours], [len(one.first) for one in theirs]
    return [
        len(ours), statistics.median(one.executions for one in ours),
        statistics.median(one.seconds for one in ours),
        statistics.median(many), *(stats.median_interval(many) or (None, None)),
        stats.a12(many, others) if others else None, stats.mann_whitney(many, others) if others else None,
    ]  # fmt: skip


def _soon(bucket: str | None, ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[Any]:
    """How many trials found a bucket, or any; medians until then; whether that is sooner than theirs."""
    row: list[Any] = []
    for unit in (0, 1):  # executions, seconds
        own, other = _times(bucket, unit, ours), _times(bucket, unit, theirs)
        life = stats.survival(*own)
        row += [life.found, life.trials] if not row else []
        row += [life.median, life.low, life.high]
        row += [stats.gehan(own, other)[0], stats.logrank(own, other)] if theirs else [None] * 2
    return row


def _times(bucket: str | None, unit: int, trials: Sequence[Trial]) -> Times:
    """When each trial found a bucket, or ended without, and whether it did."""
    whole = [(trial.executions, trial.seconds)[unit] for trial in trials]
    first = [
        trial.first.get(bucket) if bucket is not None else min(trial.first.values(), default=None)
        for trial in trials
    ]
    times = [float(end if at is None else at[unit]) for at, end in zip(first, whole, strict=True)]
    return times, [at is not None for at in first]


def _notes(
    sweep: Sweep, plan: Plan, arms: Mapping[Labels, list[Trial]], chosen: Mapping[str, str]
) -> Iterator[Note]:
    """What to know about the numbers."""
    trials = [one for many in arms.values() for one in many]
    if missing := len(sweep.cells) - len(trials):
        are = f"{missing} of {plural(len(sweep.cells), 'campaign')} are"
        failed = [cell.name for cell in sweep.failures]
        yield Note(f"{are} not at their end, and not in here")
        if failed:
            yield Note(f"warning: {plural(len(failed), 'campaign')} failed", ", ".join(failed))
    if few := [len(of) for of in arms.values() if len(of) < ENOUGH]:
        many = plural(few[0], "trial") if len({*few}) == 1 else f"{min(few)} to {max(few)} trials"
        yield Note(f"warning: {many} per setting; below {ENOUGH}, what looks like a difference may be chance")
    if blind := sum(trial.unscored > 0 for trial in trials):
        yield Note(
            f"warning: in {plural(blind, 'campaign')} some rows could not be scored, which says nothing"
        )
    if chosen:
        base = ", ".join(f"{name}={value}" for name, value in chosen.items())
        yield Note(
            "p is two-sided, not corrected for the number of comparisons; A12 and p compare with", base
        )
        yield Note(
            "sooner is A12 over all pairs of trials, those whose order is not known counting half (Gehan),"
            " with the log-rank p"
        )
    elif plan.baseline:
        yield Note(
            "nothing is compared, since what [baseline] names has one value only", ", ".join(plan.baseline)
        )
    else:
        yield Note("nothing is compared, since no [baseline] is chosen")
    if any(cell.spec.stop_after for cell in sweep.cells):
        yield Note(
            "with stop_after a campaign ends at that many findings, flaky ones included, whatever else there"
            " was to find; what it had not found by then is censored there"
        )
    yield Note(
        "medians with 95 % intervals: of buckets by bootstrap, of times by Kaplan and Meier, where a trial "
        "that found nothing may have found it later; executions count from the end of calibration"
    )
