"""Hunts for planted bugs: the real loop, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmfuzz import loop
from lmfuzz.budget import Budget
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.campaign.findings import Findings
from lmfuzz.coverage import FEATURES
from lmfuzz.coverage.archive import Archive
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.operators import OPERATORS
from lmfuzz.plugins.grammar import parse
from lmfuzz.protocols import SearchContext, Target
from lmfuzz.rng import Streams
from lmfuzz.search import SEARCHES
from lmfuzz.types import Batch


@dataclass
class Quarry:
    """A target with bugs in it, and what tells that one was found."""

    target: Target
    seeds: Sequence[str]
    objectives: Sequence[str]
    bugs: Sequence[str]  # parts of buckets


def hunt(quarry: Quarry, search: str, seed: int, executions: int) -> set[str]:
    """The bugs that ``search`` finds with so many executions; it ends early when it has found all."""
    objectives = ObjectiveSet({text: OBJECTIVES.build(parse(text)) for text in quarry.objectives})
    evaluator, space = Evaluator(quarry.target, objectives), quarry.target.space
    executor = evaluator.executor
    operators = {
        name: OPERATORS.build(parse(name))
        for name in OPERATORS.names()
        if OPERATORS.find(name).rows == "text"
        and name != "dictionary"
        and (name != "tail" or hasattr(quarry.target, "sample"))
    }
    seeds = Batch.of([space.encode(text) for text in quarry.seeds])
    setting = SearchContext(
        space, seeds, operators, objectives.targets, Corpus(space), Streams(seed)["search"],
        executor if hasattr(quarry.target, "sample") else None,
    )  # fmt: skip
    feature = FEATURES.build(parse("hidden_last"))
    feature.fit(executor.run(seeds, feature.needs))
    findings = Findings(evaluator, seeds, runs=1, keep=1)
    archive = Archive(4.0, feature(executor.run(seeds[:1], feature.needs)).shape[1], approximate=False)
    strategy = SEARCHES.build(parse(search), setting)
    budget = Budget(executions=executions)
    found: set[str] = set()
    always = feature.needs | evaluator.channels
    for step in loop.run(strategy, executor, feature, objectives, archive, findings, budget, 64, always):
        for finding in step.findings:
            found |= {bug for bug in quarry.bugs if bug in finding.bucket and finding.label == "confirmed"}
        if len(found) == len(quarry.bugs):
            break
    return found
