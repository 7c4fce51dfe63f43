"""What a person reads of a campaign: its summary, its findings, one finding with its lineage."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.files import PICTURES
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.storage.store import Store
from lmfuzz.text import (
    WIDTH,
    bucket_title,
    escape,
    finding_line,
    format_duration,
    plural,
    quote_output,
    replay_command,
    shorten,
)
from lmfuzz.types import Finding, Minimal

_ENDINGS = {
    "seconds": "the time is spent",
    "executions": "all executions are spent",
    "findings": "enough was found",
    "done": "every seed is done",
}
UNFINISHED = "unfinished"  # how a campaign ended that was killed, or runs


def minimal_lines(number: int, finding: Finding, space: Space) -> Iterator[str]:
    """A finding before and after it was made minimal, on three lines; one where it could not be."""
    head = f"finding {number}, {bucket_title(finding.bucket)}"
    if (small := finding.minimal) is None:
        yield f"{head}: did not fail again alone in this bucket, so it stays as it is"
        return
    yield f"{head}: {reduction(small, space)}"
    for when, one in (("before", finding), ("after", finding.reduced)):
        yield f"  {when:<6} {shorten(one.prompt)} -> {quote_output(one, WIDTH)}"


def alone_words(by_text: bool) -> str:
    """What is to be said of the text of tokens, spelled by the tokenizer."""
    return (
        "fails, too" if by_text else "is spelled as other tokens, which do not fail: these tokens are needed"
    )


def reduction(small: Minimal, space: Space) -> str:
    """``57 -> 2 characters, 24 executions``."""
    if isinstance(space, BoxSpace):
        unit = f"changed {'pixels' if space.image else 'values'}"
    else:
        unit = "characters" if space.tokens is None else "tokens"
    return f"{small.before} -> {small.size} {unit}, {plural(small.executions, 'execution')}"


def record(finding: Finding, number: int | None = None) -> dict[str, Any]:
    """A finding for machines; its row is numbers, ``span`` places in the output."""
    about = {} if number is None else {"number": number}
    texts = {"bucket": finding.bucket, "label": finding.label, "row": finding.row.tolist()}
    small = finding.minimal
    minimal = small and {**asdict(small), "row": small.row.tolist()}
    return {**about, **asdict(finding), **texts, "minimal": minimal}


def summary(store: Store, unwritten: Sequence[Finding] = ()) -> dict[str, Any]:
    """How the campaign stands, as of its last commit: the object that ``--json`` prints.

    seconds and time_in_target are seconds; novelty_rate and stability are shares, 0 to 1; findings:
    objective -> bucket -> kept, hits and the labels of the kept ones; those that could not be written
    are among them, and ``unwritten`` says how many these are.
    """
    state, meta = store.state(), store.meta
    hits, tally = state["findings"]["hits"], state["tally"]
    findings: dict[str, dict[str, Any]] = {}
    for finding in [*store.findings(), *unwritten]:
        buckets = findings.setdefault(finding.objective, {})
        bucket = buckets.setdefault(finding.bucket, {"kept": 0, "hits": 0, "labels": []})
        bucket["kept"] += 1
        bucket["hits"] = max(hits.get(finding.bucket, 0), bucket["kept"])
        bucket["labels"].append(finding.label)
    seconds = state["seconds"]
    return {
        "executions": state["executions"],
        "seconds": round(seconds, 3),
        "executions_per_second": round(state["executions"] / seconds, 1) if seconds else 0.0,
        "time_in_target": round(state["time_in_target"], 3),
        "corpus_size": state["corpus_size"],
        "archive_size": state["archive_size"],
        "novelty_rate": round(tally["novel"] / max(1, tally["rows"]), 6),
        "stability": meta["calibration"]["stability"],
        "findings": findings,
        "trials": _trials(state["trials"]),
        "unwritten": len(unwritten),
        "unscored": {name: count for name, count in state["panel"]["unscored"].items() if count},
        "errors": state["panel"]["errors"],
        "exit_reason": state["reason"] or UNFINISHED,
        "directory": str(store.directory),
    }


def summary_lines(numbers: dict[str, Any]) -> Iterator[str]:
    """The summary in words; buckets with the most hits first."""
    seconds, inside = numbers["seconds"], numbers["time_in_target"]
    yield (
        f"{plural(numbers['executions'], 'execution')} in {format_duration(seconds)} "
        f"({numbers['executions_per_second']:.0f}/s, {inside / seconds if seconds else 0:.0%} of the time in "
        f"the target); corpus {numbers['corpus_size']}, archive {numbers['archive_size']}, "
        f"novel {numbers['novelty_rate']:.1%}, "
        f"stable {numbers['stability']:.0%}; {_ENDINGS.get(numbers['exit_reason'], numbers['exit_reason'])}"
    )
    if trials := numbers["trials"]:
        yield trials_line(trials)
    yield from bucket_lines(numbers["findings"])
    if numbers["unwritten"]:
        yield f"{plural(numbers['unwritten'], 'finding')} of these could not be written"
    for name, count in numbers["unscored"].items():
        yield f"not scored by {escape(name)}: {plural(count, 'row')} (neither safe nor a finding)"
    for name, errors in numbers["errors"].items():
        times = plural(sum(errors.values()), "time")
        yield f"the objective {escape(name)} raised {times}; the first traceback:"
        yield from (f"  {escape(text)}" for text in next(iter(errors)).rstrip().split("\n"))


def _trials(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """What became of the seeds: how many hit as they are, or were solved, with how many queries."""
    if state is None:
        return None
    natural, solved, queries = state["natural"], state["solved"], state["queries"]
    used, far = queries[solved], state["distance"][solved]
    return {
        "seeds": len(solved), "natural": int(natural.sum()), "solved": int(solved.sum()),
        "queries": int(queries.sum()),
        "median_queries": float(np.median(used)) if len(used) else None,
        "mean_queries": round(float(used.mean()), 3) if len(used) else None,
        "median_distance": round(float(np.median(far)), 6) if len(far) else None,
    }  # fmt: skip


def trials_line(trials: dict[str, Any]) -> str:
    """The seeds in words."""
    tried = trials["seeds"] - trials["natural"]
    natural = f"; {trials['natural']} of {trials['seeds']} seeds hit as they are" if trials["natural"] else ""
    solved = f"{trials['solved']} of {plural(tried, 'seed')} solved"
    if not trials["solved"]:
        return f"{solved} with {trials['queries']} queries{natural}"
    return (
        f"{solved}, with {trials['median_queries']:g} queries (median; mean {trials['mean_queries']:.3g}), "
        f"{trials['median_distance']:.3g} from the seed (median){natural}"
    )


def bucket_lines(findings: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A table of the buckets: kept, hits, and how many of the kept were not confirmed every time."""
    rows = [(name, bucket) for buckets in findings.values() for name, bucket in buckets.items()]
    if not rows:
        yield "nothing was found"
        return
    kept = sum(bucket["kept"] for _, bucket in rows)
    yield f"{plural(kept, 'finding')} in {plural(len(rows), 'bucket')}:"
    yield f"  {'kept':>4}  {'hits':>7}  bucket"
    for name, bucket in sorted(rows, key=lambda row: (-row[1]["hits"], row[0])):
        flaky = Counter(label for label in bucket["labels"] if label != "confirmed")
        note = f"  ({sum(flaky.values())} flaky)" if flaky else ""
        yield f"  {bucket['kept']:>4}  {bucket['hits']:>7}  {bucket_title(name)}{note}"


def finding_lines(store: Store, width: int = WIDTH) -> Iterator[str]:
    """All findings, one line each."""
    return (finding_line(number, finding, width) for number, finding in enumerate(store.findings(), start=1))


def pick(store: Store, number: int) -> Finding:
    """The finding with this number; UsageError when there is none."""
    found = store.findings()
    if not 1 <= number <= len(found):
        have = f"its findings are 1 to {len(found)}" if found else "it has no findings"
        raise UsageError(f"the campaign in {store.directory} has no finding {number}; {have}")
    return found[number - 1]


def detail_lines(store: Store, number: int) -> Iterator[str]:
    """Everything about one finding."""
    finding, meta = pick(store, number), store.meta
    names = meta["operators"]
    yield f"finding {number} of {store.directory}"
    yield f"bucket      {bucket_title(finding.bucket)}"
    yield f"label       {finding.label}: failed in {finding.failed} of {finding.runs} re-runs alone"
    yield f'prompt      "{escape(finding.prompt)}"'
    yield f"output      {quote_output(finding)}"
    if small := finding.minimal:
        yield f'minimal     "{escape(small.prompt)}" ({reduction(small, store.space)})'
        yield f"            -> {quote_output(finding.reduced)}"
        if small.by_text is not None:
            yield f"            text alone {alone_words(small.by_text)}"
    yield f"evidence    {escape(finding.evidence.words)}"
    yield f"margin      {finding.margin:.4g}"
    yield f"distance    {distance(finding, store.space)}"
    if finding.by_text is not None:
        yield f"text alone  {alone_words(finding.by_text)}"
    if (picture := store.directory / PICTURES / f"{number}.png").exists():
        yield f"pictures    {picture}: the seed, the input, and the difference (grey: no change)"
    if (picture := store.directory / PICTURES / f"{number}-minimal.png").exists():
        yield f"            {picture}: the same of the minimal input"
    yield f"found       at execution {finding.execution}, model {meta['identity']}"
    yield "lineage"
    made = "seed" if finding.parent < 0 else meta["spec"]["search"].partition(":")[0]
    last = names[finding.operator] if finding.operator >= 0 else made
    for ancestor in store.lineage(finding.parent):
        text = store.space.decode(ancestor.row)
        yield f'  #{ancestor.id:<7} {ancestor.operator or "seed":<12} "{escape(text)}"'
    yield f'  {"this":<8} {last:<12} "{escape(finding.prompt)}"'
    yield f"replay it with: {replay_command(store.directory, number)}"


def distance(finding: Finding, space: Space) -> str:
    """How far a finding is from its seed."""
    if isinstance(space, BoxSpace):
        return f"{finding.distance:.4g} from seed {finding.origin} (L-infinity)"
    return f"{plural(round(finding.distance), 'edit')} from seed {finding.origin}"
