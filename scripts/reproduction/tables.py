"""What the cells came to: rows of a Markdown table, and the object for machines."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, mannwhitneyu  # type: ignore[import-untyped]

from reproduction.experiments import INT8

HEAD = (
    "| experiment | case | search | trials | found | median | 95 % interval | mean | A12 of {lead} | p |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
LEADS = {"nan": "tensorfuzz", "fp16": "boundary", "twins": "boundary", "twins_linf": "boundary",
         "text_twins": "directed"}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One search on one case: per trial whether it found, and what it cost (queries) or reached (gaps)."""

    experiment: str
    case: str
    search: str
    found: list[bool]
    values: list[float]  # queries of a trial that found, inf of one that did not; or gaps in nats
    natural: int
    gaps: bool = False
    buckets: dict[str, int] | None = None

    @property
    def trials(self) -> int:
        """How many there were; of gaps one looks at all prompts."""
        return len(self.values) if self.gaps else len(self.found)

    @property
    def share(self) -> float:
        """The share of trials that found something."""
        return float(np.mean(self.found)) if self.found else float("nan")

    @property
    def median(self) -> float:
        """Over all trials; inf where half or more found nothing."""
        return float(np.median(self.values)) if self.values else float("nan")

    @property
    def mean(self) -> float:
        """Over the trials that found something; of gaps over all."""
        known = [value for value in self.values if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")


def arms(records: Iterable[dict[str, Any]]) -> list[Arm]:
    """Records of one experiment, search and case as one arm each."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        cell = record["cell"]
        groups[cell["experiment"], cell["case"], cell["search"]].append(record)
    return [_arm(*key, parts) for key, parts in groups.items()]


def _arm(experiment: str, case: str, search: str, parts: Sequence[dict[str, Any]]) -> Arm:
    found = [hit for part in parts for hit in part["found"]]
    gaps = [gap for part in parts for gap in part.get("gaps", ())]
    queries = [q for part in parts for q in part["queries"]]
    values = gaps or [float(q) if hit else float("inf") for q, hit in zip(queries, found, strict=False)]
    buckets = next((part["buckets"] for part in parts if "buckets" in part), None)
    return Arm(experiment, case, search, found, values, sum(p["natural"] for p in parts), bool(gaps), buckets)


def markdown(found: Sequence[Arm]) -> str:
    """One table; A12 is the chance that the leading search of the experiment does better than the row's."""
    lines = [HEAD.format(lead="the first")]
    for arm in found:
        lead = LEADS.get(arm.experiment)
        ours = next((a for a in found if (a.experiment, a.case, a.search) == (*_case(arm), lead)), None)
        effect, p = compared(ours, arm) if ours is not None and ours is not arm else ("", "")
        lines.append(
            f"| {arm.experiment} | {arm.case} | {arm.search} | {arm.trials} | {_share(arm)} "
            f"| {_number(arm.median)} | {interval(arm.values)} | {_number(arm.mean)} | {effect} | {p} |"
        )
    return "\n".join(lines)


def _case(arm: Arm) -> tuple[str, str]:
    return arm.experiment, arm.case


def _share(arm: Arm) -> str:
    if arm.buckets is not None:
        return f"{len(arm.buckets)} buckets, {sum(arm.buckets.values())} rows"
    return f"{arm.share:.0%} of the prompts part" if arm.gaps else f"{sum(arm.found)} ({arm.share:.0%})"


def _number(value: float) -> str:
    if np.isnan(value):
        return ""
    return "none" if np.isinf(value) else f"{value:.4g}"


def interval(values: Sequence[float]) -> str:
    """The bootstrap interval of the median, 95 %, percentile method; '' where there is nothing to say."""
    if len(values) < 3:
        return ""
    large = np.nan_to_num(np.array(values), posinf=1e12)
    if len(set(large.tolist())) == 1:
        return f"{_number(values[0])} to {_number(values[0])}"
    rng = np.random.default_rng(0)
    found = bootstrap((large,), np.median, method="percentile", n_resamples=2000, rng=rng).confidence_interval
    low, high = (float("inf") if v >= 1e11 else float(v) for v in found)
    return f"{_number(low)} to {_number(high)}"


def compared(ours: Arm, theirs: Arm) -> tuple[str, str]:
    """Vargha and Delaney's A12, the chance that ours does better, and Mann-Whitney's two-sided p."""
    a, b = (np.nan_to_num(np.array(arm.values), posinf=1e12) for arm in (ours, theirs))
    if not len(a) or not len(b):
        return "", ""
    if len(set(np.concatenate([a, b]).tolist())) == 1:
        return "0.50", "1"
    test = mannwhitneyu(a, b, alternative="two-sided")
    more = test.statistic / (len(a) * len(b))
    return f"{more if ours.gaps else 1 - more:.2f}", f"{test.pvalue:.2g}"


def summary(key: str, found: Sequence[Arm]) -> dict[str, float | None]:
    """The experiment for machines: shares and medians over all its cases, and the ratios asked for."""
    own = [arm for arm in found if arm.experiment == key]
    result: dict[str, float | None] = {}
    for search in dict.fromkeys(arm.search for arm in own):
        parts = [arm for arm in own if arm.search == search and arm.buckets is None]
        hits = [hit for arm in parts for hit in arm.found]
        values = [value for arm in parts for value in arm.values]
        what = "median_gap" if any(arm.gaps for arm in parts) else "median_queries"
        result[f"{search}_found_share"] = round(float(np.mean(hits)), 4) if hits else None
        median = float(np.median(values)) if values else float("inf")
        result[f"{search}_{what}"] = round(median, 4) if np.isfinite(median) else None
    if key == "twins":
        result |= ratios(own)
    return result


def ratios(own: Sequence[Arm]) -> dict[str, float | None]:
    """DiffChaser's median queries over TriggerFinder's, the smallest of all pairs; boundary's over the best
    of TriggerFinder's and the walk's, the largest of the int8 pairs; the same of the means."""
    found: dict[str, float | None] = {}
    for what, values in (
        ("", {(arm.case, arm.search): arm.median for arm in own}),
        ("_means", {(arm.case, arm.search): arm.mean for arm in own}),
    ):
        found |= _ratios(values, what)
    return found


def _ratios(values: dict[tuple[str, str], float], what: str) -> dict[str, float | None]:
    cases = dict.fromkeys(case for case, _ in values)

    def over(case: str, a: str, *others: str) -> float:
        below = [values.get((case, other), float("nan")) for other in others]
        return values.get((case, a), float("nan")) / np.nanmin(below) if not np.isnan(below).all() else np.nan

    baseline = [over(case, "diffchaser", "triggerfinder") for case in cases]
    ours = [over(case, "boundary", "triggerfinder", "walk") for case in cases if INT8 in case.split()]
    return {
        f"diffchaser_over_triggerfinder{what}": _rounded(min(baseline, default=np.nan)),
        f"boundary_over_best{what}": _rounded(max(ours, default=np.nan)),
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
