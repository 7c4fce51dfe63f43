"""What a spec names, made: its target, seeds, objectives, operators and search, and whether they fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.coverage import FEATURES
from lmfuzz.errors import UsageError
from lmfuzz.inputs.bounds import Edits, Linf
from lmfuzz.inputs.bundled import expand
from lmfuzz.inputs.seeds import BUNDLED, Seeds, read, read_box
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.detectors import named
from lmfuzz.operators import OPERATORS, suits
from lmfuzz.plugins.grammar import Call, parse
from lmfuzz.protocols import (
    Bound,
    Feature,
    HasLexicon,
    Lexicon,
    Operator,
    PlainTarget,
    Sampler,
    Search,
    SearchContext,
    Target,
)
from lmfuzz.search import SEARCHES
from lmfuzz.search.adapt import traits_of
from lmfuzz.search.per_seed import PerSeed
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.twins import recipes
from lmfuzz.types import CRASH, OWN, Batch, unknown

FEW = 8  # rows that a target is tried on
_TEXT_NAMES = {"disagreement": "parting"}  # what an objective for labels is called for texts


def load_target(spec: Spec, own: PlainTarget | None = None) -> Target:
    """The target that the spec's ``model`` names, a pair where it names a twin, too; or one's ``own``.

    TargetError when one cannot be loaded.
    """
    from lmfuzz.targets import kinds, loading  # only where it is used: it may load torch

    return loading.load_target(spec) if own is None else kinds.own(own, spec)


def objectives(spec: Spec, space: Space | None = None) -> ObjectiveSet:
    """The objectives, each under its own name: the class's alone where it comes from a file.

    space: what they are to judge, where it is known: disagreement means another thing of texts.
    """
    calls = list(map(read_call, spec.objectives))
    meant = map(_of_texts, calls) if isinstance(space, TextSpace) else calls
    names = [call.name.rpartition(":")[2] for call in calls]
    return ObjectiveSet(named(zip(names, map(OBJECTIVES.build, meant), strict=True)))


def read_call(text: str) -> Call:
    """The call that a text of the spec spells, with the paths of bundled files for their names."""
    return parse(text).map_texts(expand)


def _of_texts(call: Call) -> Call:
    return replace(call, name=_TEXT_NAMES.get(call.name, call.name))


def check_objectives(spec: Spec, target: Target, panel: ObjectiveSet) -> None:
    """UsageError when an objective could never hit: it looks at texts and there are none, or for a secret
    that the target is not told, or for more tokens than an output has.
    """
    panel.must_fit(target.space, target.info.told, spec.max_new)


def check_names(spec: Spec) -> None:
    """UsageError for what can be seen to be wrong before a model is loaded, which may take minutes."""
    SEARCHES.check(read_call(spec.search))
    FEATURES.check(read_call(spec.feature))
    for call in map(read_call, spec.objectives):
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


def shrinker(record: CampaignRecord) -> Shrinker:
    """What makes the findings of a campaign minimal, on its model; UsageError where that is another now."""
    target = load_target(record.spec)
    if target.identity != record.identity:
        raise UsageError(
            f"the findings in {record.directory} are those of another target: its model was "
            f"{record.identity}, this one is {target.identity}"
        )
    panel, executor = objectives(record.spec, target.space), LocalExecutor(target)
    panel.noise, wants = record.noise, panel.needs | {"text"}
    executor.run(record.rows[:FEW], wants)  # a target that raises on all of them is broken
    batch, edits = record.spec.batch, record.spec.edits
    return Shrinker(panel, executor, wants, record.space, record.seeds, batch, edits)


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


def check_channels(target: Target, needs: Sequence[tuple[str, frozenset[str]]]) -> None:
    """UsageError when the target lacks a channel that somebody ``needs``, with those that it has."""
    have = target.channels | OWN | {CRASH}
    for what, wants in needs:
        if missing := unknown(wants, have):
            if any(name.startswith("base/") for name in target.channels):
                raise UsageError(
                    f"{what} what this pair of models does not show; {_comparable(target.space)}"
                )
            if any(name.startswith(("base/", "twin/")) for name in missing):
                raise UsageError(
                    f"{what} two models; name the other one: lmfuzz diff MODEL TWIN, or image diff MODEL TWIN"
                )
            shown = ", ".join(dict.fromkeys(name.split("/", 1)[0] for name in missing))
            raise UsageError(
                f"{what} {shown}, which the target does not show; it has {', '.join(sorted(target.channels))}"
            )


def _comparable(space: Space) -> str:
    """What can be asked of a pair."""
    if isinstance(space, BoxSpace):
        return "for images take disagreement, divergence:of=labels, or regression(OBJECTIVE)"
    return (
        "for texts take regression(OBJECTIVE) and search with directed, walk, random or tensorfuzz; of two "
        "character RNNs (all recipes but tflite and dynamic), or of two Hugging Face models with one "
        "tokenizer, also disagreement and divergence"
    )


def needs(judged: frozenset[str], feature: Feature, search: Search) -> list[tuple[str, frozenset[str]]]:
    """Who needs which channels, for ``check_channels``."""
    return [
        ("the objectives need", judged),
        ("the feature needs", feature.needs),
        ("the search needs", traits_of(search).needs),
    ]
