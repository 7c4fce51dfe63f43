"""What a spec names, made: its target, seeds, objectives, operators and search, and whether they fit."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from lmfuzz.campaign.checks import check_channels
from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.campaign.findings import Findings
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.coverage import FEATURES
from lmfuzz.errors import UsageError
from lmfuzz.inputs.bounds import Edits, Linf
from lmfuzz.inputs.bundled import expand
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.seeds import BUNDLED, Seeds, read, read_box
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.detectors import named
from lmfuzz.operators import OPERATORS, suits
from lmfuzz.plugins.grammar import Call, parse
from lmfuzz.protocols import (
    Bound,
    Differentiable,
    Feature,
    HasLexicon,
    Lexicon,
    Operator,
    Sampler,
    Search,
    SearchContext,
    Target,
)
from lmfuzz.rng import Streams
from lmfuzz.search import SEARCHES
from lmfuzz.search.per_seed import PerSeed, traits_of
from lmfuzz.search.seed_outcomes import outcomes_of
from lmfuzz.spec import NOTHING, Own, Spec, own_object
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.twins import recipes
from lmfuzz.types import Batch

FEW = 8  # rows that a target is tried on
_TEXT_NAMES = {"disagreement": "parting"}  # what an objective for labels is called for texts


@dataclass(frozen=True)
class Parts:
    """Everything that a campaign needs, made and checked; nothing was run.

    Attributes:
        context: the space, the seeds, the operators and the corpus that the search works with.
        wants: the channels that the feature, the objectives and the search need of every row.
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


def build(spec: Spec, own: Own = NOTHING, record: CampaignRecord | None = None) -> Parts:
    """Return everything that a spec names; the model is loaded, and not run.

    Args:
        spec: the settings of the campaign.
        own: objects that were given from Python, under what the spec calls them.
        record: a campaign that goes on; its seeds and its corpus are taken instead of the spec's files.

    Raises:
        UsageError: a setting is wrong, or parts do not fit one another.
        TargetError: the model cannot be loaded.
    """
    check_names(spec, own)
    judges = None if spec.twin else objectives(spec, own=own)  # before a model is loaded for minutes
    feature: Feature = FEATURES.build(read_call(spec.feature))
    target = load_target(spec, own)
    judges = judges or objectives(spec, target.space, own)
    judges.must_fit(target.space, target.info.told, spec.max_new)
    evaluator = Evaluator(target, judges)
    space, notes = restrict(target.space, spec), list(target.info.notes)
    corpus = Corpus(space)
    if record is None:
        found = seeds(spec, space, target.info.seeds)
        start, notes = found.batch, [*notes, *found.notes]
    else:  # the files may have changed since
        corpus.add(record.rows)
        start = record.seeds.changed(record.seeds.data[:, : int(record.seeds.lengths.max())])
    if isinstance(space, TextSpace):  # what is in the seeds is drawn too
        space = space.drawing(np.concatenate([start.row(i) for i in range(len(start))]))
    streams, executor = Streams(spec.seed), evaluator.executor
    context = SearchContext(
        space, start, operators(spec, target), judges.targets, corpus, streams["search"],
        sampler=executor if isinstance(target, Sampler) else None,
        bound=bound(spec, space, start),
        queries=spec.per_seed,
        gradients=executor.gradients if isinstance(target, Differentiable) else None,
        lexicon=lexicon(target),
    )  # fmt: skip
    strategy = search(spec, context)
    wanted = {
        "the objectives need": evaluator.channels,
        "the feature needs": feature.needs,
        "the search needs": traits_of(strategy).needs,
    }
    check_channels(target, wanted)
    notes += judges.leave_ungraded(target.channels)
    shrink = {"shrink": Shrinker(evaluator, space, start, spec.batch, spec.edits)} if spec.shrink else {}
    per_seed = outcomes_of(strategy) is not None
    return Parts(
        spec, evaluator, judges, feature, context, strategy,
        Findings(evaluator, start, spec.confirm, spec.keep, per_seed, **shrink),
        frozenset({"origin"}).union(*wanted.values()), tuple(notes), streams,
    )  # fmt: skip


def load_target(spec: Spec, own: Own = NOTHING) -> Target:
    """Return the target that the spec's ``model`` names, or a pair if it names a twin too.

    Raises TargetError when one cannot be loaded.
    """
    from lmfuzz.targets import loading  # only where it is used: it may load torch

    return loading.load_target(spec, own)


def objectives(spec: Spec, space: Space | None = None, own: Own = NOTHING) -> ObjectiveSet:
    """Return the objectives, each under its own name: the class's alone if it comes from a file.

    space: what they are to judge, if it is known: disagreement means something else for texts.
    """
    calls = list(map(read_call, spec.objectives))
    meant = map(_of_texts, calls) if isinstance(space, TextSpace) else calls
    names = [call.name.rpartition(":")[2] for call in calls]
    made = (own_object(call.name, own) for call in calls)
    built = [OBJECTIVES.build(call) if one is None else one for call, one in zip(meant, made, strict=True)]
    return ObjectiveSet(named(zip(names, built, strict=True)))


def read_call(text: str) -> Call:
    """The call that a text of the spec spells, with the paths of bundled files for their names."""
    return parse(text).map_texts(expand)


def _of_texts(call: Call) -> Call:
    return replace(call, name=_TEXT_NAMES.get(call.name, call.name))


def check_names(spec: Spec, own: Own = NOTHING) -> None:
    """Raise UsageError for what can be seen to be wrong before a model is loaded, which may take minutes."""
    SEARCHES.check(read_call(spec.search))
    FEATURES.check(read_call(spec.feature))
    for call in map(read_call, spec.objectives):
        if own_object(call.name, own) is None:
            OBJECTIVES.check(_of_texts(call))  # that has the parameters of both
    for text in spec.operators:
        OPERATORS.check(read_call(text))
    if recipes.is_recipe(spec.twin):
        recipes.read(spec.twin)


def operators(spec: Spec, target: Target) -> dict[str, Operator]:
    """The operators of the spec; all that fit the target where it names none."""
    calls = [parse(text) for text in spec.operators]
    if wrong := [call.name for call in calls if not _fits(call.name, target)]:
        if OPERATORS.find(wrong[0]).rows == "tokens" and isinstance(target.space, TextSpace):
            raise UsageError(
                f"the operator {wrong[0]} changes tokens; it needs a model of tokens and --level token"
            )
        fitting = [name for name in OPERATORS.names() if _fits(name, target)]
        raise UsageError(
            f"the operator {wrong[0]} does not fit what the model takes; those that do: {', '.join(fitting)}"
        )
    if not calls:
        without = {"dictionary"} | (set() if isinstance(target, Sampler) else {"tail"})
        calls = [Call(n) for n in OPERATORS.names() if n not in without and _fits(n, target)]
    if spec.dictionary:
        calls.append(Call("dictionary", (("file", spec.dictionary),)))
    names = Counter(call.name for call in calls)
    return {
        call.name if names[call.name] == 1 else str(call): OPERATORS.build(call.map_texts(expand))
        for call in calls
    }


def _fits(name: str, target: Target) -> bool:
    return suits(OPERATORS.find(name), target.space, lexicon(target))


def lexicon(target: Target) -> Lexicon | None:
    """What the target knows of its rows' tokens; None where rows are none."""
    space = target.space
    tokens = isinstance(space, TextSpace) and space.tokens is not None
    return target.lexicon if tokens and isinstance(target, HasLexicon) else None


def shrinker(record: CampaignRecord, own: Own = NOTHING) -> Shrinker:
    """Return what shrinks the findings of a campaign; UsageError when its model is another now."""
    target = load_target(record.spec, own)
    if target.identity != record.identity:
        raise UsageError(
            f"the findings in {record.directory} are those of another target: its model was "
            f"{record.identity}, this one is {target.identity}"
        )
    judges = objectives(record.spec, target.space, own)
    judges.noise = record.noise
    evaluator = Evaluator(target, judges)
    evaluator.run(record.rows[:FEW])  # a target that raises on all of them is broken
    return Shrinker(evaluator, record.space, record.seeds, record.spec.batch, record.spec.edits)


def seeds(spec: Spec, space: Space, bundled: str | None = None) -> Seeds:
    """The seeds of the spec, else the ``bundled`` ones that suit the target; ``count`` where it says so."""
    found = (
        read_box(spec.seeds, space, spec.count, spec.seed)
        if isinstance(space, BoxSpace)
        else read(spec.seeds, space, spec.unknown, bundled or BUNDLED)
    )
    return replace(found, batch=found.batch[: spec.count])


def bound(spec: Spec, space: Space, start: Batch) -> Bound | None:
    """How far rows may be from their seeds; UsageError for a bound that does not fit the space."""
    for value, option, right in ((spec.linf, "--linf", BoxSpace), (spec.edits, "--edits", TextSpace)):
        if value is not None and not isinstance(space, right):
            other = "edits" if right is BoxSpace else "linf"
            raise UsageError(f"{option} does not fit what this model takes; --{other} bounds its rows")
    if spec.linf is not None and isinstance(space, BoxSpace):
        return Linf(spec.linf, space, start)
    if spec.edits is not None and isinstance(space, TextSpace):
        return Edits(spec.edits, space, start)
    return None


def search(spec: Spec, context: SearchContext) -> Search:
    """The search of the spec, for each seed by itself where the spec or the search wants that."""
    call = read_call(spec.search)

    def make(context: SearchContext) -> Search:
        made: Search = SEARCHES.build(call, context)
        return made

    by_itself = traits_of(SEARCHES.find(call.name)).per_seed
    return make(context) if by_itself or spec.per_seed is None else PerSeed(context, make)


def restrict(space: Space, spec: Spec) -> Space:
    """The target's space within the lengths, or with the resolution, of the spec."""
    if isinstance(space, BoxSpace):
        return replace(space, step=(space.high - space.low) / 255) if _in_bytes(space, spec) else space
    least, most = max(space.min_length, spec.min_length), min(space.max_length, spec.max_length)
    if least > most:
        raise UsageError(
            f"the target takes prompts of {space.min_length} to {space.max_length} symbols, the campaign"
            f" gives {spec.min_length} to {spec.max_length} (--min-length, --max-length)"
        )
    return replace(space, min_length=least, max_length=most)


def _in_bytes(space: BoxSpace, spec: Spec) -> bool:
    return space.image and spec.resolution == "byte" and not space.step
