"""What a person reads of a campaign: its summary, its findings, one finding with its lineage."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmfuzz import files
from lmfuzz.campaign.findings import Finding, Minimal
from lmfuzz.errors import UsageError, printable
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.storage.store import Store

WIDTH = 60  # characters of a text that a line has room for
_ENDINGS = {
    "seconds": "the time is spent",
    "executions": "all executions are spent",
    "findings": "enough was found",
    "done": "every seed is done",
}
PICTURES = "pictures"  # the folder, in a campaign's, of findings that are images
UNFINISHED = "unfinished"  # how a campaign ended that was killed, or runs
BEFORE, AFTER = ">>>", "<<<"  # around the bad part of an output


def escaped(text: str) -> str:
    """``text`` as ``printable`` has it, a backslash doubled, so that the text can be told from it."""
    lines = text.replace("\\", "\\\\").split("\n")
    return "\\n".join(line if line.isprintable() else printable(line) for line in lines)  # most lines are


def shortened(text: str, width: int = WIDTH) -> str:
    """``text`` escaped and in quotes, its middle left out where it is longer than ``width``."""
    shown = escaped(text)
    if len(shown) > width:
        half = (width - 3) // 2
        shown = shown[:half] + "..." + shown[-half:]
    return f'"{shown}"'


def marked(finding: Finding) -> tuple[str, str, str]:
    """The output, escaped, as what is before, in and behind its bad part; ('...', '', '') without one."""
    span, text = finding.evidence.span, finding.output
    if span is None or span[0] >= span[1]:
        return escaped(text), "", ""
    return escaped(text[: span[0]]), escaped(text[span[0] : span[1]]), escaped(text[span[1] :])


def pieces(finding: Finding, width: int, least: int = 10) -> tuple[str, str, str]:
    """What ``marked`` gives, cut to ``width``, but ``least`` characters on each side; '...' says where."""
    before, bad, after = marked(finding)
    if not bad:
        return shortened(finding.output, width)[1:-1], "", ""
    room = max(least, (width - min(len(bad), width)) // 2)
    before = before if len(before) <= room else "..." + before[-room:]
    after = after if len(after) <= room else after[:room] + "..."
    return before, bad if len(bad) <= width else bad[: width - 3] + "...", after


def output(finding: Finding, width: int = 0) -> str:
    """The output in quotes, the bad part marked; with a width, not much more than its surroundings."""
    before, bad, after = pieces(finding, width) if width else marked(finding)
    return f'"{before}{BEFORE}{bad}{AFTER}{after}"' if bad else f'"{before}"'


def title(bucket: str) -> str:
    """A bucket's name, escaped: ``regex/a|b`` alone where that is what ``regex/a|b: a|b`` says."""
    for colon in re.finditer(": ", bucket):
        objective, signature = bucket[: colon.start()], bucket[colon.end() :]
        if objective == signature or objective.endswith(f"/{signature}"):
            return escaped(objective)
    return escaped(bucket)


def line(number: int, finding: Finding, width: int = WIDTH) -> str:
    """A finding on one line: its bucket, prompt and output, each text cut to ``width``."""
    return (
        f"finding {number}, {title(finding.bucket)} ({finding.label}): "
        f"{shortened(finding.prompt, width)} -> {output(finding, width)}"
    )


def minimal_lines(number: int, finding: Finding, space: Space) -> Iterator[str]:
    """A finding before and after it was made minimal, on three lines; one where it could not be."""
    head = f"finding {number}, {title(finding.bucket)}"
    if (small := finding.minimal) is None:
        yield f"{head}: did not fail again alone in this bucket, so it stays as it is"
        return
    yield f"{head}: {reduction(small, space)}"
    for when, one in (("before", finding), ("after", finding.reduced)):
        yield f"  {when:<6} {shortened(one.prompt)} -> {output(one, WIDTH)}"


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
    return f"{small.before} -> {small.size} {unit}, {counted(small.executions, 'execution')}"


def wrapped(text: str, columns: int) -> list[str]:
    """``text`` as lines of at most ``columns`` characters, all its spaces kept."""
    return textwrap.wrap(
        text, max(columns, 20), subsequent_indent="    ", expand_tabs=False, replace_whitespace=False,
        drop_whitespace=False, break_on_hyphens=False,
    ) or [""]  # fmt: skip


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
        f"{counted(numbers['executions'], 'execution')} in {duration(seconds)} "
        f"({numbers['executions_per_second']:.0f}/s, {inside / seconds if seconds else 0:.0%} of the time in "
        f"the target); corpus {numbers['corpus_size']}, archive {numbers['archive_size']}, "
        f"novel {numbers['novelty_rate']:.1%}, "
        f"stable {numbers['stability']:.0%}; {_ENDINGS.get(numbers['exit_reason'], numbers['exit_reason'])}"
    )
    if trials := numbers["trials"]:
        yield trials_line(trials)
    yield from bucket_lines(numbers["findings"])
    if numbers["unwritten"]:
        yield f"{counted(numbers['unwritten'], 'finding')} of these could not be written"
    for name, count in numbers["unscored"].items():
        yield f"not scored by {escaped(name)}: {counted(count, 'row')} (neither safe nor a finding)"
    for name, errors in numbers["errors"].items():
        times = counted(sum(errors.values()), "time")
        yield f"the objective {escaped(name)} raised {times}; the first traceback:"
        yield from (f"  {escaped(text)}" for text in next(iter(errors)).rstrip().split("\n"))


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
    solved = f"{trials['solved']} of {counted(tried, 'seed')} solved"
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
    yield f"{counted(kept, 'finding')} in {counted(len(rows), 'bucket')}:"
    yield f"  {'kept':>4}  {'hits':>7}  bucket"
    for name, bucket in sorted(rows, key=lambda row: (-row[1]["hits"], row[0])):
        flaky = Counter(label for label in bucket["labels"] if label != "confirmed")
        note = f"  ({sum(flaky.values())} flaky)" if flaky else ""
        yield f"  {bucket['kept']:>4}  {bucket['hits']:>7}  {title(name)}{note}"


def finding_lines(store: Store, width: int = WIDTH) -> Iterator[str]:
    """All findings, one line each."""
    return (line(number, finding, width) for number, finding in enumerate(store.findings(), start=1))


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
    yield f"bucket      {title(finding.bucket)}"
    yield f"label       {finding.label}: failed in {finding.failed} of {finding.runs} re-runs alone"
    yield f'prompt      "{escaped(finding.prompt)}"'
    yield f"output      {output(finding)}"
    if small := finding.minimal:
        yield f'minimal     "{escaped(small.prompt)}" ({reduction(small, store.space)})'
        yield f"            -> {output(finding.reduced)}"
        if small.by_text is not None:
            yield f"            text alone {alone_words(small.by_text)}"
    yield f"evidence    {escaped(finding.evidence.words)}"
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
        yield f'  #{ancestor.id:<7} {ancestor.operator or "seed":<12} "{escaped(text)}"'
    yield f'  {"this":<8} {last:<12} "{escaped(finding.prompt)}"'
    yield f"replay it with: {replay_command(store.directory, number)}"


def distance(finding: Finding, space: Space) -> str:
    """How far a finding is from its seed."""
    if isinstance(space, BoxSpace):
        return f"{finding.distance:.4g} from seed {finding.origin} (L-infinity)"
    return f"{counted(round(finding.distance), 'edit')} from seed {finding.origin}"


def replay_command(directory: Path, number: int) -> str:
    """What to type to run a finding again."""
    return f"lmfuzz replay {files.quoted(directory)} {number}"


def resume_command(directory: Path) -> str:
    """What to type to go on."""
    return f"lmfuzz resume {files.quoted(directory)}"


def counted(number: int, what: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """``9.1 s``, ``12 s``, ``3 m 05 s``, ``2 h 03 m``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"
