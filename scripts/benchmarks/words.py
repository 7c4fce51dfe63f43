"""How many of ten rare words does each search make the bundled model write?

One trial is one campaign in a process of its own, run as ``python -m benchmarks.words FILE``.
"""

import json
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from benchmarks.figures import Measured, Options, Wrong
from benchmarks.jobs import apart, logged, note, together
from lmfuzz.budget import Budget
from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.types import Batch

SEARCHES = ("directed", "random", "tensorfuzz", "walk")
PROMPTS, SEEDS, WORDS = 10_000, 512, 10
RARE = range(1, 31)  # how often a word occurs in the training text
# Of the lists of ten words that default_rng(LIST) draws, those from 100 on served development: 0 is held out.
LIST = 0

Trial = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What all trials have in common; trials of another task are no answer to this one."""

    words: list[str]
    budget: str
    identity: str  # of the model
    prompts: list[str]
    seeds: int  # prompts that a trial begins with


def windows_of(text: str, count: int) -> list[str]:
    """``count`` windows of 16 to 64 characters."""
    rng, prompts = np.random.default_rng(1234), []
    for _ in range(count):
        length = int(rng.integers(16, 65))
        start = int(rng.integers(len(text) - 100))
        prompts.append(text[start : start + length])
    return prompts


def words_in(text: str) -> list[str]:
    """The words of ``text``, case folded."""
    return re.findall(r"[a-z]+", text.casefold())


def task(text: str, options: Options) -> tuple[Task, int]:
    """Ten words that are rare in the text and in no greedy output, and how many there were to draw from."""
    from benchmarks.speed import bundled

    target = bundled()
    prompts = windows_of(text, 256 if options.quick else PROMPTS)
    counts = Counter(words_in(text[: len(text) * 9 // 10]))  # the tenth behind it was held out
    written = {word for output in outputs(target.space, target, prompts) for word in words_in(output)}
    rare = {word for word, count in counts.items() if len(word) >= 4 and count in RARE}
    eligible = sorted(rare - written)
    if len(eligible) < WORDS:
        raise Wrong(f"the text has only {len(eligible)} words to draw {WORDS} from")
    words = np.random.default_rng(LIST).choice(eligible, WORDS, replace=False).tolist()
    seeds = min(SEEDS, len(prompts) // 4)
    return Task(words, options.words_budget, target.identity, prompts, seeds), len(eligible)


def outputs(space: TextSpace, target: Any, prompts: Sequence[str]) -> Iterator[str]:
    """The greedy output of every prompt."""
    try:
        rows = [space.encode(prompt) for prompt in prompts]
    except UsageError as error:
        raise Wrong(f"the text is not the one that the bundled model was trained on: {error}") from None
    for start in range(0, len(rows), 64):
        yield from target.run(Batch.of(rows[start : start + 64]), frozenset({"text"}))["text"]


# -- one trial --------------------------------------------------------------------------------------


class Ears:
    """Notes when each word was first confirmed; ends the campaign with the last word."""

    def __init__(self, campaign: Any) -> None:
        self._campaign = campaign
        self._parent = os.getppid()
        self.heard: dict[str, float] = {}  # word -> seconds

    def step(self, step: Any) -> None:
        """Listen to a step."""
        for finding in step.findings:
            if finding.label == "confirmed" and finding.objective.startswith("phrases/"):
                self.heard.setdefault(finding.evidence.signature, round(self._campaign.budget.elapsed(), 1))
        if len(self.heard) == WORDS or os.getppid() != self._parent:  # nobody waits for it any more
            self._campaign.stop()


def trial(task: Task, search: str, number: int) -> Trial:
    """One campaign with the search, on seeds drawn by the trial's number, which is its seed too."""
    from benchmarks.campaigns import Eye, assembled

    chosen = np.random.default_rng(number).choice(len(task.prompts), task.seeds, replace=False)
    phrases = f"phrases:words={json.dumps(task.words)}"
    settings = {"search": search, "seed": number, "objectives": [phrases], "budget": task.budget}
    with assembled([task.prompts[i] for i in chosen], **settings) as (campaign, store):
        ears = Ears(campaign)
        campaign.run(store, Eye(ears.step))
        inside, seconds = campaign.executor.seconds, campaign.budget.elapsed()
        return {
            "search": search, "trial": number, "found": len(ears.heard), "words": ears.heard,
            "executions": campaign.executor.executions, "seconds": round(seconds, 1),
            "time_in_target": round(inside, 1), "corpus": len(campaign.corpus),
            "archive": len(campaign.archive),
        }  # fmt: skip


# -- all trials -------------------------------------------------------------------------------------


def schedule(searches: Sequence[str], trials: int) -> list[tuple[str, int]]:
    """(search, trial) in the order they start: trial by trial, and every search meets every neighbour."""
    order = []
    for number in range(trials):
        first, others = searches[:1], searches[1:]
        turn = number % max(1, len(others))
        order += [(search, number) for search in (*first, *others[turn:], *others[:turn])]
    return order


def run_all(task: Task, searches: Sequence[str], options: Options) -> list[Trial]:
    """All trials, ``options.jobs`` at a time; those in the log are not run again."""
    settings = {**asdict(task), "jobs": options.jobs}
    del settings["prompts"]
    known = {(t["search"], t["trial"]): t for t in logged(options.log) if t.get("task") == settings}
    wanted = schedule(searches, options.trials)
    writing = Lock()

    def one(search: str, number: int) -> Trial:
        if (search, number) in known:
            return known[search, number]
        record = {"task": asdict(task), "search": search, "trial": number}
        done = apart("benchmarks.words", record, f"{search}, trial {number}")
        with writing:
            print(f"  {search} {number}: {done['found']} words", file=sys.stderr, flush=True)
            if options.log is not None:
                note(options.log, {**done, "task": settings})
        return done

    return together([partial(one, search, number) for search, number in wanted], options.jobs)


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``words_SEARCH``: mean number of words whose findings were confirmed."""
    if options.text is None:
        why = "set LMFUZZ_DATA to a folder with text/tinyshakespeare.txt, or give --text FILE"
        return {key: Measured(None, (f"needs the training text: {why}",)) for key in keys}
    searches = [search for search in SEARCHES if f"words_{search}" in keys]
    work, eligible = task(options.text.read_text(encoding="utf-8"), options)
    trials = run_all(work, searches, options)
    by_search = {search: [t for t in trials if t["search"] == search] for search in searches}
    head = (
        f"list {LIST}, out of {eligible} words: {' '.join(work.words)}; {options.trials} trials of "
        f"{options.words_budget}, {options.jobs} at a time, one thread each"
    )
    found = {}
    for search, own in by_search.items():
        lines = [head] if search == searches[0] else []
        lines += [_told(t) for t in own]
        if search != "directed" and "directed" in by_search:
            lines.append(compared(by_search["directed"], own))
        found[f"words_{search}"] = Measured(statistics.mean(t["found"] for t in own), tuple(lines))
    return found


def _told(t: Trial) -> str:
    words = ", ".join(f"{word} ({second:.0f} s)" for word, second in t["words"].items())
    share = f"{t['time_in_target'] / max(1e-9, t['seconds']):.0%} in the model"
    return f"trial {t['trial']}: {t['found']} in {t['executions']} executions, {share}: {words or 'none'}"


def compared(ours: Sequence[Trial], theirs: Sequence[Trial]) -> str:
    """Mann-Whitney's p, two-sided, and Vargha and Delaney's A12: the chance that ``ours`` found more."""
    a, b = ([t["found"] for t in trials] for trials in (ours, theirs))
    if len(set(a + b)) == 1:
        return "directed against it: A12 0.50, all trials alike"
    from scipy.stats import mannwhitneyu  # type: ignore[import-untyped]

    test = mannwhitneyu(a, b, alternative="two-sided")
    more = test.statistic / (len(a) * len(b))
    return f"directed against it: A12 {more:.2f}, Mann-Whitney p {test.pvalue:.3f}"


def checked_budget(text: str) -> str:
    """``text`` when it is a budget in time; UsageError otherwise."""
    if Budget.parse(text).seconds is None:
        raise UsageError(f"--words-budget {text!r} is not a time (90s, 5m)")
    return text


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(trial(Task(**given["task"]), given["search"], given["trial"])))
