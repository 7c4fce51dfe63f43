"""The parts of a campaign, made from its spec and checked against one another."""

from dataclasses import dataclass, replace

import numpy as np

from lmfuzz.campaign import choose
from lmfuzz.campaign.checks import check_channels, check_decoding, check_same
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.campaign.findings import Findings
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import TextSpace
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.protocols import Decodes, Differentiable, Feature, HasNotes, Sampler, Search, SearchContext
from lmfuzz.rng import Streams
from lmfuzz.search.per_seed import traits_of
from lmfuzz.search.seed_outcomes import outcomes_of
from lmfuzz.spec import NO_OBJECTS, Own, Spec
from lmfuzz.storage import known as knowing
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.loading import load_target
from lmfuzz.text import plural
from lmfuzz.types import STEPS

FEW = 8  # rows that a target and its objectives are tried on


@dataclass(frozen=True)
class Parts:
    """Hold everything that a campaign needs, made and checked; the model has not run.

    Attributes:
        spec: the settings of the campaign.
        evaluator: the target, and the objectives that judge its outputs.
        objectives: these objectives.
        feature: what coverage is measured in.
        context: the space, the seeds, the operators and the corpus that the search works with.
        search: the search strategy.
        findings: the confirmed hits.
        wants: the channels that the feature, the objectives and the search need for every row.
        notes: lines for a person.
        streams: the random numbers of the search, of calibration and so on.
    """

    spec: Spec
    evaluator: Evaluator
    objectives: ObjectiveSet
    feature: Feature
    context: SearchContext
    search: Search
    findings: Findings
    wants: frozenset[str]
    notes: tuple[str, ...]
    streams: Streams


def build(spec: Spec, own: Own = NO_OBJECTS, record: CampaignRecord | None = None) -> Parts:
    """Return everything that a spec names; the model is loaded, but does not run except to write seeds.

    Args:
        spec: the settings of the campaign.
        own: the objects that were given from Python, by the names that the spec has for them.
        record: a campaign to resume; its seeds and its corpus replace the spec's files.

    Raises:
        UsageError: a setting is wrong, or parts do not fit one another.
        TargetError: the model cannot be loaded.
    """
    choose.check_names(spec, own)
    buckets = record.baseline if record else knowing.read(spec.baseline)
    known = knowing.Known(buckets, spec.ignore)
    judges = None if spec.twin else choose.objectives(spec, own=own)  # fails before a model is loaded
    feature, target = choose.feature(spec), load_target(spec, own)
    begun = record.targets if record else []  # an older campaign looks for what it looked for
    lacking = [one for one in choose.unwritable(spec, target.space) if f"phrases/{one}" not in begun]
    if lacking or judges is None:
        judges = choose.objectives(spec, target.space, own, lacking)
    judges.must_fit(target.space, target.info.told, spec.max_new)
    space, notes = choose.restrict(target.space, spec), [*target.info.notes, *_left_out(lacking)]
    corpus = Corpus(space)
    if record is None:
        check_decoding(target, spec)
        spec = spec.model_copy(update={"clock": spec.clock or target.info.clock})
        found = choose.seeds(spec, target, space)
        start, notes = found.batch, [*notes, *found.notes]
    else:  # the files may have changed since
        corpus.add(record.rows)
        start = record.seeds.changed(record.seeds.data[:, : int(record.seeds.lengths.max())])
    operators = choose.operators(spec, target, record.operators if record else None)
    if isinstance(space, TextSpace):  # mutations may draw every symbol that the seeds have
        space = space.drawing(np.concatenate([start.row(i) for i in range(len(start))]))
        steps = spec.max_new if isinstance(target, Decodes) else None
        for part in (*judges.objectives.values(), *operators.values()):
            notes += part.notes(space, steps) if isinstance(part, HasNotes) else []
    evaluator, streams = Evaluator(target, judges, spec.row_timeout), Streams(spec.seed)
    evaluator.executor.fixed = feature.needs - STEPS
    bound = choose.bound(spec, space, start)
    context = SearchContext(space, start, operators, judges.targets, corpus, streams["search"], bound=bound)
    context = replace(context, queries=spec.per_seed, lexicon=choose.lexicon(target))
    if isinstance(target, Sampler):
        context = replace(context, sampler=evaluator.executor)
    if isinstance(target, Differentiable):
        context = replace(context, gradients=evaluator.executor.gradients)
    search = choose.search(spec, context)
    traits = traits_of(search)
    wanted = {"the objectives need": evaluator.channels, "the feature needs": feature.needs}
    wanted["the search needs"] = traits.needs
    check_channels(target, wanted)
    wants = frozenset({"origin"}).union(*wanted.values())
    notes += [*judges.leave_ungraded(target.channels), *known.notes(spec.baseline)]
    shrink = Shrinker(evaluator, space, start, spec.batch, spec.edits) if spec.shrink else None
    per_seed = outcomes_of(search) is not None
    covering = traits.covers_hits and not per_seed
    findings = Findings(evaluator, start, spec.confirm, spec.keep, per_seed, shrink, known, covering)
    return Parts(spec, evaluator, judges, feature, context, search, findings, wants, tuple(notes), streams)


def _left_out(words: list[str]) -> list[str]:
    why = "which the model's alphabet cannot write; look for others with --objective"
    return [f"left out {plural(len(words), 'word')} of the default list, {why}"] if words else []


def shrinker(record: CampaignRecord, own: Own = NO_OBJECTS) -> Shrinker:
    """Return what shrinks the findings of a campaign; UsageError if its model is a different one now."""
    target = load_target(record.spec, own)
    check_same(record, target)
    judges = choose.objectives(record.spec, target.space, own)
    judges.noise = record.noise
    evaluator = Evaluator(target, judges, record.spec.row_timeout)
    evaluator.run(record.rows[:FEW])  # raises if the target fails on all of them
    return Shrinker(evaluator, record.space, record.seeds, record.spec.batch, record.spec.edits)
