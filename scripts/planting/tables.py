"""What the trials came to: a Markdown table per fault and search, and the figures for machines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmfuzz.analysis.survival import ENOUGH, Times, gehan, p_text, survival
from planting.faults import FAULTS, OURS, SEARCHES

ALL = "all"  # faults at once: how many of them one search finds in the models of one number, one turn


@dataclass(frozen=True)
class Result:
    """One campaign on one fault: when that was found, or when the campaign ended without.

    It ends when its budget is spent, or at a finding that is another fault's: then that, too, is censored.
    """

    fault: str
    search: str
    number: int  # of the model
    turn: int  # of the campaigns that search has on that model
    found: bool
    at: tuple[float, float]  # executions and seconds


@dataclass(frozen=True)
class Arm:
    """One search on one fault, or on all: trial by trial what is compared, sooner or less being better."""

    found: int  # trials that found it; of all faults: faults
    most: int
    trials: int
    executions: float  # median by Kaplan and Meier, infinite where it was not reached
    seconds: float  # the same
    times: Times  # executions; of all faults: minus how many were found


def arms(results: Iterable[Result]) -> dict[tuple[str, str], Arm]:
    """Fault (or ALL) and search -> what its trials came to."""
    given = list(results)
    made: dict[tuple[str, str], Arm] = {}
    for fault in FAULTS:
        for search in SEARCHES:
            if own := [r for r in given if (r.fault, r.search) == (fault, search)]:
                hits = [r.found for r in own]
                ran, took = zip(*(r.at for r in own), strict=True)
                lives = [survival(times, hits).median for times in (ran, took)]
                executions, seconds = (math.inf if time is None else time for time in lives)
                made[fault, search] = Arm(sum(hits), len(own), len(own), executions, seconds, (ran, hits))
    for search in SEARCHES:
        faults = {r.fault for r in given}
        if counts := _counts([r for r in given if r.search == search], faults):
            most, scores = len(counts) * len(faults), ([-count for count in counts], [True] * len(counts))
            made[ALL, search] = Arm(sum(counts), most, len(counts), math.nan, math.nan, scores)
    return made


def _counts(own: Sequence[Result], faults: set[str]) -> list[int]:
    """How many faults were found in each (number, turn) whose campaigns are all at their end."""
    whole: dict[tuple[int, int], list[bool]] = {}
    for result in own:
        whole.setdefault((result.number, result.turn), []).append(result.found)
    return [sum(hits) for _, hits in sorted(whole.items()) if len(hits) == len(faults)]


def versus(found: Mapping[tuple[str, str], Arm], fault: str, search: str) -> tuple[float, float] | None:
    """A12, the chance that directed does better than ``search``, and Gehan's two-sided p.

    That is Mann and Whitney's, but where campaigns ended early without the fault.
    """
    ours, theirs = found.get((fault, OURS)), found.get((fault, search))
    if search == OURS or ours is None or theirs is None:
        return None
    return gehan(ours.times, theirs.times)


def markdown(results: Iterable[Result]) -> str:
    """A row per fault, a column per search, and below it a warning where trials are few."""
    found = arms(results)
    searches = [OURS, *(search for search in reversed(SEARCHES) if search != OURS)]
    lines = [f"| fault | {' | '.join(f'`{search}`' for search in searches)} |", "|---" * 5 + "|"]
    for fault in dict.fromkeys(fault for fault, _ in found):
        cells = [_cell(found, fault, search) for search in searches]
        name = FAULTS[fault].about if fault in FAULTS else "all of them"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if few := sorted({arm.trials for arm in found.values() if arm.trials < ENOUGH}):
        lines += ["", f"Warning: as few as {few[0]} trials; below {ENOUGH}, differences may be chance."]
    return "\n".join(lines)


def _cell(found: Mapping[tuple[str, str], Arm], fault: str, search: str) -> str:
    """Found of how many; median executions and seconds where they were reached; (A12, p)."""
    if (arm := found.get((fault, search))) is None:
        return ""
    text = f"{arm.found} of {arm.most}"
    if math.isfinite(arm.executions):
        text += f"; {arm.executions:.0f}, {arm.seconds:.1f} s"
    pair = versus(found, fault, search)
    return f"{text} ({pair[0]:.2f}, {p_text(pair[1])})" if pair else text


def figures(results: Iterable[Result]) -> dict[str, Any]:
    """For machines: per fault and search what was found, when, and A12 and p; ``planted``, the verdict.

    planted: the share of all that directed found, the same of random, and whether that is at most half.
    """
    found = arms(results)
    told: dict[str, Any] = {}
    for (fault, search), arm in found.items():
        pair = versus(found, fault, search)
        told.setdefault(fault, {})[search] = {
            "found": arm.found, "of": arm.most, "trials": arm.trials,
            "executions": _finite(arm.executions), "seconds": _finite(arm.seconds),
            **({"a12": round(pair[0], 4), "p": pair[1]} if pair else {}),
        }  # fmt: skip
    told["planted"] = verdict(found)
    return told


def verdict(found: Mapping[tuple[str, str], Arm]) -> dict[str, Any]:
    """What directed and random found of all, as shares; A12 and p of how many faults a trial found."""
    pair = versus(found, ALL, "random")
    ours, theirs = (found.get((ALL, search)) for search in (OURS, "random"))
    if pair is None or ours is None or theirs is None:
        return {}
    return {
        OURS: ours.found / ours.most, "random": theirs.found / theirs.most, "a12": round(pair[0], 4),
        "p": pair[1], "trials": min(ours.trials, theirs.trials),
        "reached": bool(ours.found and 2 * theirs.found <= ours.found),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
