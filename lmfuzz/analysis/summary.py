"""What a person reads about a campaign: its summary, its findings, one finding with its lineage."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lmfuzz.files import PICTURES
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.storage.known import known_to, matches
from lmfuzz.storage.record import CampaignRecord, Outcomes
from lmfuzz.storage.secrets import conceal
from lmfuzz.text import bucket_title, cut, escape, format_duration, plural, quote_output, replay_command
from lmfuzz.types import Finding, Minimal

_ENDINGS = {
    "seconds": "the time is spent",
    "executions": "all executions are spent",
    "findings": "enough was found",
    "done": "every seed is done",
}
NAMED, WIDE = 3, 24  # variants of a bucket that are named, and how long their names are
UNFINISHED = "unfinished"  # the reason of a campaign that was killed, or still runs


def alone_words(by_text: bool) -> str:
    """Return what the text of a prompt of tokens does when the tokenizer reads it."""
    return "fails too" if by_text else "is tokenized differently and does not fail: these tokens are needed"


def reduction(small: Minimal, space: Space) -> str:
    """Return how much shrinking made of it: ``57 -> 2 characters, 24 executions``."""
    if isinstance(space, BoxSpace):
        unit = f"changed {'pixels' if space.image else 'values'}"
    else:
        unit = "characters" if space.tokens is None else "tokens"
    return f"{small.before} -> {small.size} {unit}, {plural(small.executions, 'execution')}"


def finding_record(finding: Finding, number: int | None = None) -> dict[str, Any]:
    """Return a finding for machines; its row is numbers, ``span`` places in the output."""
    about = {} if number is None else {"number": number}
    texts = {"bucket": finding.bucket, "label": finding.label, "row": finding.row.tolist()}
    small = finding.minimal
    minimal = small and {**asdict(small), "row": small.row.tolist()}
    return {**about, **asdict(finding), **texts, "minimal": minimal}


def summary(record: CampaignRecord, unwritten: Sequence[Finding] = ()) -> dict[str, Any]:
    """Return the campaign as of its last commit, as ``--json`` prints it.

    seconds and time_in_target are seconds; novelty_rate and stability are shares, 0 to 1; findings are
    objective -> bucket -> kept, hits, the labels of the kept ones, how many seeds do this unmutated, and the
    hits of each variant; known says which known buckets were hit again, and how often, how many buckets are
    new, and which patterns match nothing. Findings that could not be written are among ``findings``, and
    ``unwritten`` says how many these are.
    """
    findings: dict[str, dict[str, Any]] = {}
    for finding in [*record.findings, *unwritten]:
        buckets = findings.setdefault(finding.objective, {})
        new = {"kept": 0, "hits": 0, "labels": [], "unmutated": record.unmutated.get(finding.bucket, 0)}
        bucket = buckets.setdefault(finding.bucket, new | {"variants": variants_of(record, finding.bucket)})
        bucket["kept"] += 1
        bucket["hits"] = max(record.hits.get(finding.bucket, 0), bucket["kept"])
        bucket["labels"].append(finding.label)
    seconds = record.seconds
    return {
        "executions": record.executions,
        "calibration_executions": record.calibration_executions,
        "seconds": round(seconds, 3),
        "executions_per_second": round(record.executions / seconds, 1) if seconds else 0.0,
        "time_in_target": round(record.time_in_target, 3),
        "corpus_size": record.corpus_size,
        "archive_size": record.archive_size,
        "archived_hits": record.tally.novel_hits,
        "seeds": record.seed_count,
        "novelty_rate": round(record.tally.novelty, 6),
        "stability": record.calibration["stability"],
        "findings": findings,
        "known": _known(record, {name for buckets in findings.values() for name in buckets}),
        "trials": record.outcomes and _trials(record.outcomes),
        "unwritten": len(unwritten),
        "unscored": {name: count for name, count in record.unscored.items() if count},
        "errors": {
            name: {conceal(text, record.secret): count for text, count in errors.items()}
            for name, errors in record.errors.items()
        },
        "exit_reason": record.reason or UNFINISHED,
        "directory": str(record.directory),
    }


def summary_lines(numbers: dict[str, Any], buckets: bool = True) -> Iterator[str]:
    """Yield the summary in words, with a table of the buckets unless that is not wanted."""
    seconds, inside = numbers["seconds"], numbers["time_in_target"]
    hits = f" ({numbers['archived_hits']} of inputs that hit)" if numbers["archived_hits"] else ""
    before = numbers["calibration_executions"]
    yield (
        f"{plural(before, 'execution')} of calibration and {numbers['executions'] - before} of search in "
        f"{format_duration(seconds)} "
        f"({numbers['executions_per_second']:.0f}/s, {inside / seconds if seconds else 0:.0%} of the time in "
        f"the target); corpus {numbers['corpus_size']}, archive {numbers['archive_size']}{hits}, "
        f"novel {numbers['novelty_rate']:.1%}, "
        f"stable {numbers['stability']:.0%}; {_ENDINGS.get(numbers['exit_reason'], numbers['exit_reason'])}"
    )
    if trials := numbers["trials"]:
        yield trials_line(trials)
    if buckets:
        yield from bucket_lines(
            numbers["findings"], numbers["seeds"], "nothing new" if numbers["known"] else "nothing"
        )
    if numbers["known"]:
        yield from known_lines(**numbers["known"])
    if numbers["unwritten"]:
        yield f"{plural(numbers['unwritten'], 'finding')} of these could not be written"
    for name, count in numbers["unscored"].items():
        yield f"not scored by {escape(name)}: {plural(count, 'input')} (neither safe nor a finding)"
    for name, errors in numbers["errors"].items():
        times = plural(sum(errors.values()), "time")
        yield f"the objective {escape(name)} raised {times}; the first traceback:"
        yield from (f"  {escape(text)}" for text in next(iter(errors)).rstrip().split("\n"))


def _known(record: CampaignRecord, found: Collection[str]) -> dict[str, Any] | None:
    """Which known buckets were hit, if the campaign has any, and how many of those ``found`` are new."""
    if not (known := known_to(record)):
        return None
    buckets = dict(record.known)
    idle = [text for text in known.patterns if not any(matches(text, name) for name in [*buckets, *found])]
    return {"buckets": buckets, "new": sum(name not in known for name in found), "unmatched": idle}


def known_lines(buckets: Mapping[str, int], new: int, unmatched: Sequence[str] = ()) -> Iterator[str]:
    """Yield how many known buckets were hit, and how many new ones, and the patterns that match nothing."""
    were = "was" if len(buckets) == 1 else "were"
    hits = plural(sum(buckets.values()), "hit")
    yield f"{plural(len(buckets), 'known bucket')} {were} hit again ({hits}); {new} new"
    for pattern in unmatched:
        yield f"the pattern {escape(pattern)} matches no bucket that was hit"


def known_table(buckets: Mapping[str, int]) -> Iterator[str]:
    """Yield a table of the known buckets that were hit, most hits first."""
    if buckets:
        yield "known (baseline):"
    for name, hits in sorted(buckets.items(), key=lambda one: (-one[1], one[0])):
        yield f"  {hits:>7}  {bucket_title(name)}"


def _trials(of: Outcomes) -> dict[str, Any]:
    """What became of the seeds: how many hit unchanged, or were solved, and with how many queries."""
    used, far = of.queries[of.solved], of.distance[of.solved]
    return {
        "seeds": len(of.solved), "natural": int(of.natural.sum()), "solved": int(of.solved.sum()),
        "queries": int(of.queries.sum()),
        "median_queries": float(np.median(used)) if len(used) else None,
        "mean_queries": round(float(used.mean()), 3) if len(used) else None,
        "median_distance": round(float(np.median(far)), 6) if len(far) else None,
    }  # fmt: skip


def trials_line(trials: dict[str, Any]) -> str:
    """Return what became of the seeds, in words."""
    tried = trials["seeds"] - trials["natural"]
    natural = f"; {trials['natural']} of {trials['seeds']} seeds hit unchanged" if trials["natural"] else ""
    solved = f"{trials['solved']} of {plural(tried, 'seed')} solved"
    if not trials["solved"]:
        return f"{solved} with {trials['queries']} queries{natural}"
    return (
        f"{solved}, with {trials['median_queries']:g} queries (median; mean {trials['mean_queries']:.3g}), "
        f"{trials['median_distance']:.3g} from the seed (median){natural}"
    )


def bucket_lines(findings: dict[str, dict[str, Any]], seeds: int, nothing: str = "nothing") -> Iterator[str]:
    """Yield a table of the buckets: kept, hits, and what else is known of them; ``seeds`` there were."""
    rows = [(name, bucket) for buckets in findings.values() for name, bucket in buckets.items()]
    if not rows:
        yield f"{nothing} was found"
        return
    kept = sum(bucket["kept"] for _, bucket in rows)
    yield f"{plural(kept, 'finding')} in {plural(len(rows), 'bucket')}:"
    yield f"  {'kept':>4}  {'hits':>7}  bucket"
    for name, bucket in sorted(rows, key=lambda row: (-row[1]["hits"], row[0])):
        flaky = sum(label != "confirmed" for label in bucket["labels"])
        known = [
            f"{flaky} flaky" if flaky else "",
            f"{bucket['unmutated']} of {plural(seeds, 'seed')} unmutated" if bucket["unmutated"] else "",
            variants_line(bucket["variants"]),
        ]
        note = f"  ({said})" if (said := "; ".join(filter(None, known))) else ""
        yield f"  {bucket['kept']:>4}  {bucket['hits']:>7}  {bucket_title(name)}{note}"


def variants_of(record: CampaignRecord, bucket: str) -> dict[str, int]:
    """Return the hits of each variant of a bucket, the most frequent first; none if it has one alone."""
    counts = {conceal(one, record.secret): n for one, n in record.variants.get(bucket, {}).items()}
    return {} if counts.keys() <= {""} else dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def variants_line(variants: dict[str, int]) -> str:
    """Return the most frequent variants of a bucket in words: ``'the' 31, 'and' 2 and 7 more``."""
    named = [f"{cut(escape(name), WIDE)} {count}" for name, count in [*variants.items()][:NAMED]]
    more = f" and {len(variants) - NAMED} more" if len(variants) > NAMED else ""
    return ", ".join(named) + more


def detail_lines(record: CampaignRecord, number: int) -> Iterator[str]:
    """Yield everything about one finding."""
    finding, space, pictures = record.finding(number), record.space, record.directory / PICTURES
    yield f"finding {number} of {record.directory}"
    yield f"bucket      {bucket_title(finding.bucket)}"
    yield f"label       {finding.label}: failed in {finding.failed} of {finding.runs} re-runs alone"
    yield f'prompt      "{escape(finding.prompt)}"'
    yield f"output      {quote_output(finding)}"
    if small := finding.minimal:
        yield f'minimal     "{escape(small.prompt)}" ({reduction(small, space)})'
        yield f"            -> {quote_output(finding.reduced)}"
        if small.by_text is not None:
            yield f"            text alone {alone_words(small.by_text)}"
    yield from (f"{name:<12}{value}" for name, value in facts(finding, space))
    if (picture := pictures / f"{number}.png").exists():
        yield f"pictures    {picture}: the seed, the input, and the difference (grey: no change)"
    if (picture := pictures / f"{number}-minimal.png").exists():
        yield f"            {picture}: the same for the minimal input"
    yield f"found       at execution {finding.execution}, model {record.identity}"
    yield "lineage"
    for row, made, text in ancestors(record, finding):
        yield f'  #{row:<7} {made:<12} "{escape(text)}"'
    last = "seed" if finding.parent < 0 else record.spec.search.partition(":")[0]
    yield f'  {"this":<8} {record.operator(finding.operator) or last:<12} "{escape(finding.prompt)}"'
    yield f"replay it with: {replay_command(record.directory, number)}"


def ancestors(record: CampaignRecord, finding: Finding) -> list[tuple[int, str, str]]:
    """Return the id, the operator and the text of each row that a finding descends from, its seed first."""
    rows = record.rows
    made = [(row, record.operator(int(rows.operator[row])) or "seed") for row in record.lineage(finding)]
    return [(row, name, record.text(rows.row(row))) for row, name in made]


def facts(finding: Finding, space: Space) -> Iterator[tuple[str, str]]:
    """Yield what is known of a finding besides its texts, by name."""
    yield "evidence", escape(finding.evidence.words)
    yield "margin", f"{finding.margin:.4g}"
    if isinstance(space, BoxSpace):
        yield "distance", f"{finding.distance:.4g} from seed {finding.origin} (L-infinity)"
    else:
        yield "distance", f"{plural(round(finding.distance), 'edit')} from seed {finding.origin}"
    if finding.by_text is not None:
        yield "text alone", alone_words(finding.by_text)
