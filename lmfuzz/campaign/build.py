"""What a spec names, made: its target, seeds, objectives, operators and search, and whether they fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmfuzz.campaign.executor import LocalExecutor
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.errors import UsageError
from lmfuzz.inputs.bounds import Edits, Linf
from lmfuzz.inputs.seeds import BUNDLED, Seeds, read, read_box
from lmfuzz.inputs.spaces import BoxSpace, Space, TextSpace
from lmfuzz.objectives.combine import ObjectiveSet
from lmfuzz.plugins import registry as plugins
from lmfuzz.plugins.grammar import Call, parse
from lmfuzz.plugins.recipes import is_recipe
from lmfuzz.plugins.recipes import read as read_recipe
from lmfuzz.protocols import Bound, Feature, Lexicon, Operator, Search, SearchContext, Target
from lmfuzz.search.per_seed import PerSeed
from lmfuzz.spec import Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.types import CRASH, OWN, Batch, unknown

_ON_TEXTS = (
    "repetition", "phrases", "regex", "entropy", "parting", "format", "echo", "memorised", "never_ends",
)  # fmt: skip
FEW = 8  # rows that a target is tried on
_TEXT_NAMES = {"disagreement": "parting"}  # what an objective for labels is called for texts


def load_target(spec: Spec) -> Target:
    """The target that the spec's ``model`` names, a pair where it names a twin, too.

    TargetError when one cannot be loaded.
    """
    from lmfuzz.targets import loading  # only where it is used: it may load torch

    return loading.load_target(spec)


def objectives(spec: Spec, space: Space | None = None) -> ObjectiveSet:
    """The objectives, each under its own name: the class's alone where it comes from a file.

    space: what they are to judge, where it is known: disagreement means another thing of texts.
    """
    parts: dict[str, object] = {}
    for text in spec.objectives:
        call = parse(text)
        short = call.name.rpartition(":")[2]
        taken = sum(name.partition("#")[0] == short for name in parts)
        if isinstance(space, TextSpace):
            call = _of_texts(call)
        parts[f"{short}#{taken + 1}" if taken else short] = plugins.build("objectives", call)
    return ObjectiveSet(parts)


def _of_texts(call: Call) -> Call:
    return replace(call, name=_TEXT_NAMES.get(call.name, call.name))


def check_objectives(spec: Spec, target: Target, panel: ObjectiveSet) -> None:
    """UsageError when an objective could never hit: it looks at texts and there are none, or for a secret
    that the target is not told, or for more tokens than an output has.
    """
    space, told = target.space, getattr(target, "told", None)
    for name, made in panel.objectives.items():
        part: Any = made
        if told is not None and getattr(part, "secret", told) not in told:
            raise UsageError(f"{name} looks for {part.secret!r}, which --system does not hold; put it there")
        if getattr(part, "tokens", 0) > spec.max_new:
            raise UsageError(
                f"{name} looks for {part.tokens} tokens in a row, and an output has {spec.max_new}; give it"
                " fewer (tokens=...), or a larger --max-new"
            )
    blind = [name for text in spec.objectives if (name := parse(text).name) in _ON_TEXTS]
    if blind and isinstance(space, BoxSpace):
        raise UsageError(
            f"{blind[0]} looks at texts, and this model takes numbers; name what to look for with "
            "--objective, such as nonfinite or a detector of your own"
        )


def check_names(spec: Spec) -> None:
    """UsageError for what can be seen to be wrong before a model is loaded, which may take minutes."""
    plugins.check("searches", parse(spec.search))
    plugins.check("features", parse(spec.feature))
    for call in map(parse, spec.objectives):
        plugins.check("objectives", _of_texts(call))  # that has the parameters of both
    for call in map(parse, spec.operators):
        plugins.check("operators", call)
    if is_recipe(spec.twin):
        read_recipe(spec.twin)


def operators(spec: Spec, target: Target) -> dict[str, Operator]:
    """The operators of the spec; all that fit the target where it names none."""
    calls = [parse(text) for text in spec.operators]
    if wrong := [call.name for call in calls if not _fits(call.name, target)]:
        if plugins.on_tokens(wrong[0]) and isinstance(target.space, TextSpace):
            raise UsageError(
                f"the operator {wrong[0]} changes tokens; it needs a model of tokens and --level token"
            )
        fitting = [name for name in plugins.names("operators") if _fits(name, target)]
        raise UsageError(
            f"the operator {wrong[0]} does not fit what the model takes; those that do: {', '.join(fitting)}"
        )
    if not calls:
        without = {"dictionary"} | (set() if hasattr(target, "sample") else {"tail"})
        calls = [Call(n) for n in plugins.names("operators") if n not in without and _fits(n, target)]
    if spec.dictionary:
        calls.append(Call("dictionary", (("file", spec.dictionary),)))
    names = Counter(call.name for call in calls)
    return {
        call.name if names[call.name] == 1 else str(call): plugins.build("operators", call) for call in calls
    }


def _fits(name: str, target: Target) -> bool:
    """Whether an operator is for rows of this kind; nobody knows of one that is not built in."""
    space = target.space
    if plugins.on_tokens(name):
        tokens = isinstance(space, TextSpace) and space.tokens is not None
        return tokens and (name == "respell" or lexicon(target) is not None)
    if (box := plugins.on_boxes(name)) is None:
        return True
    if isinstance(space, TextSpace) or not box:
        return isinstance(space, TextSpace) and not box
    return space.image or not plugins.find("operators", name).images_only


def lexicon(target: Target) -> Lexicon | None:
    """What the target, of a pair the base, knows of its rows' tokens; None where rows are none."""
    space = target.space
    if not (isinstance(space, TextSpace) and space.tokens is not None):
        return None
    return getattr(getattr(target, "base", target), "lexicon", None)


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
    call = parse(spec.search)

    def make(context: SearchContext) -> Search:
        made: Search = plugins.build("searches", call, context)
        return made

    by_itself = getattr(plugins.find("searches", call.name), "per_seed", False)
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


def needs(judged: frozenset[str], feature: Feature, search: object) -> list[tuple[str, frozenset[str]]]:
    """Who needs which channels, for ``check_channels``."""
    own: frozenset[str] = getattr(search, "needs", frozenset())
    return [
        ("the objectives need", judged), ("the feature needs", feature.needs), ("the search needs", own),
    ]  # fmt: skip
