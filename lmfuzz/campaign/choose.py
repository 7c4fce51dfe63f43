"""What a spec names, made one by one: the objectives, seeds, operators, bound and search of a campaign."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from itertools import chain

from lmfuzz.campaign.model_seeds import surprised, write_seeds
from lmfuzz.coverage import FEATURES
from lmfuzz.errors import UsageError
from lmfuzz.inputs import seeds as reading
from lmfuzz.inputs.bounds import Edits, Linf
from lmfuzz.inputs.bundled import expand
from lmfuzz.inputs.prompts import TEXT
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.objectives import OBJECTIVES
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.objectives.detectors import named
from lmfuzz.objectives.phrases import Phrases
from lmfuzz.operators import OPERATORS, suits
from lmfuzz.plugins.grammar import Call, parse
from lmfuzz.protocols import Feature, HasLexicon, Lexicon, Operator, Sampler, Search, SearchContext, Target
from lmfuzz.rng import Streams
from lmfuzz.search import SEARCHES
from lmfuzz.search.per_seed import PerSeed, traits_of
from lmfuzz.spec import NO_OBJECTS, Own, Spec, own_object
from lmfuzz.targets.twins import recipes
from lmfuzz.types import CRASH, Batch

_TEXT_NAMES = {"disagreement": "parting"}  # objectives for labels -> those of the same name for texts


def check_names(spec: Spec, own: Own = NO_OBJECTS) -> None:
    """Raise UsageError for what is wrong in a spec before its model is loaded: that can take minutes."""
    SEARCHES.check(_call(spec.search))
    FEATURES.check(_call(spec.feature))
    for call in map(_call, spec.objectives):
        if call.name == CRASH:
            raise UsageError("crashes are always looked for; leave crash out, and name what else to look for")
        if own_object(call.name, own) is None:
            OBJECTIVES.check(_for_texts(call))  # it has the parameters of both
    for text in spec.operators:
        OPERATORS.check(_call(text))
    if recipes.is_recipe(spec.twin):
        recipes.read(spec.twin)


def feature(spec: Spec) -> Feature:
    """Return the feature that coverage is measured in."""
    return FEATURES.build(_call(spec.feature))


def objectives(
    spec: Spec, space: Space | None = None, own: Own = NO_OBJECTS, without: Collection[str] = ()
) -> ObjectiveSet:
    """Return the objectives, each under its own name; one from a file is named after its class.

    Args:
        spec: the settings of the campaign.
        space: what the objectives judge, if that is known; disagreement has another meaning for texts.
        own: the objects that were given from Python.
        without: words of the default objectives that are not looked for.
    """
    calls = list(map(_call, spec.objectives))
    meant = map(_for_texts, calls) if isinstance(space, TextSpace) else calls
    names = [call.name.rpartition(":")[2] for call in calls]
    given = (own_object(call.name, own) for call in calls)
    built = [OBJECTIVES.build(call) if one is None else one for call, one in zip(meant, given, strict=True)]
    if without:
        known = [word for word in _default_words() if word not in without]
        pairs = [(name, one) for name, one in zip(names, built, strict=True) if name != "phrases"]
        left = [*pairs, *([("phrases", Phrases(known))] if known else [])]
        return ObjectiveSet(named(left), spec.row_timeout)
    return ObjectiveSet(named(zip(names, built, strict=True)), spec.row_timeout)


def unwritable(spec: Spec, space: Space | None) -> list[str]:
    """Return the words that an alphabet cannot write, if the objectives are the default ones."""
    if spec.objectives != Spec().objectives or not isinstance(space, TextSpace):
        return []
    return [word for word in _default_words() if not all(map(space.knows_case, word))]


def _default_words() -> list[str]:
    (words,) = (call for call in map(_call, Spec().objectives) if call.name == "phrases")
    return [target.partition("/")[2] for target in OBJECTIVES.build(words).targets]


def restrict(space: Space, spec: Spec) -> Space:
    """Return the target's space, within the lengths or with the resolution of the spec."""
    if isinstance(space, BoxSpace):
        in_bytes = space.image and spec.resolution == "byte" and not space.step
        return replace(space, step=(space.high - space.low) / 255) if in_bytes else space
    least, most = max(space.min_length, spec.min_length), min(space.max_length, spec.max_length)
    if least > most:
        raise UsageError(
            f"the model takes prompts of {space.min_length} to {space.max_length} symbols, and the campaign"
            f" gives {spec.min_length} to {spec.max_length}; change min_length or max_length"
        )
    return replace(space, min_length=least, max_length=most)


def seeds(spec: Spec, target: Target, space: Space) -> reading.Seeds:
    """Return the seeds of the spec, ``count`` of them at most.

    If it names none, they are the bundled ones that suit the target. But if the alphabet lacks most of these,
    or the model does not expect such texts, and the target can be sampled, the model writes the seeds.
    """
    if isinstance(space, BoxSpace):
        found = reading.read_box(spec.seeds, space, spec.count, spec.seed)
        return replace(found, batch=found.batch[: spec.count])
    names, bundled, rng = spec.seeds, target.info.seeds or reading.BUNDLED, Streams(spec.seed)["seeds"]
    why = "" if names or not isinstance(target, Sampler) else _unsuitable(spec, target, space, bundled)
    names = [f"{reading.MODEL}{spec.count or reading.SAMPLES}"] if why else names
    several = [
        [f"{TEXT}{text}" for text in write_seeds(name, target, space, rng)]
        if name.startswith(reading.MODEL)
        else [name]
        for name in names
    ]
    found = reading.read([*chain(*several)], space, spec.unknown, bundled, spec.seed_field, spec.count)
    return replace(found, batch=found.batch[: spec.count], written=why)


def _unsuitable(spec: Spec, target: Target, space: TextSpace, bundled: str) -> str:
    """Return why the bundled prompts do not suit a model, or ''."""
    if not reading.suit(bundled, space, spec.unknown):
        return f"the model's alphabet lacks most of the bundled ones ({bundled})"
    if target.info.seeds:
        return ""
    rows = reading.read([], space, spec.unknown, bundled).batch
    return surprised(target, space, rows, Streams(spec.seed)["seeds"])


def operators(spec: Spec, target: Target, begun: Collection[str] | None = None) -> dict[str, Operator]:
    """Return the operators of the spec, by name; if it names none, all that fit the target.

    A campaign that is resumed keeps those that it had, ``begun``, even if there are new ones.
    """
    calls = [parse(text) for text in spec.operators]
    if wrong := [call.name for call in calls if not _fits(call.name, target)]:
        if OPERATORS.find(wrong[0]).rows == "tokens" and isinstance(target.space, TextSpace):
            raise UsageError(
                f"the operator {wrong[0]} changes tokens; it needs a model of tokens and the level token "
                "(--level token)"
            )
        fitting = ", ".join(name for name in OPERATORS.names() if _fits(name, target))
        raise UsageError(f"the operator {wrong[0]} does not fit this model's inputs; these do: {fitting}")
    if not calls:
        without = {"dictionary"} | (set() if isinstance(target, Sampler) else {"tail"})
        known = [name for name in OPERATORS.names() if begun is None or name in begun]
        calls = [Call(n) for n in known if n not in without and _fits(n, target)]
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
    """Return what the target knows of the tokens in its inputs; None if they are not tokens."""
    space = target.space
    tokens = isinstance(space, TextSpace) and space.tokens is not None
    return target.lexicon if tokens and isinstance(target, HasLexicon) else None


def bound(spec: Spec, space: Space, start: Batch) -> Edits | Linf | None:
    """Return how far inputs may be from their seeds; UsageError if the bound does not fit the space."""
    if spec.linf is not None:
        if not isinstance(space, BoxSpace):
            raise UsageError("linf bounds images and numbers; this model takes prompts: use edits (--edits)")
        return Linf(spec.linf, space, start)
    if spec.edits is not None:
        if not isinstance(space, TextSpace):
            raise UsageError("edits bounds prompts; this model takes images or numbers: use linf (--linf)")
        return Edits(spec.edits, space, start)
    return None


def search(spec: Spec, context: SearchContext) -> Search:
    """Return the search of the spec; it runs for each seed separately if the spec says so."""
    call = _call(spec.search)
    make: Callable[[SearchContext], Search] = partial(SEARCHES.build, call)
    separate = traits_of(SEARCHES.find(call.name)).per_seed
    return make(context) if separate or spec.per_seed is None else PerSeed(context, make)


def _call(text: str) -> Call:
    """The call that a text of the spec stands for, with the paths of bundled files for their names."""
    return parse(text).map_texts(expand)


def _for_texts(call: Call) -> Call:
    return replace(call, name=_TEXT_NAMES.get(call.name, call.name))
