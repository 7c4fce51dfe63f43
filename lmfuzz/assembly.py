"""What a spec names, made: its target, objectives and operators, and whether they fit each other."""

from collections import Counter
from dataclasses import replace

from lmfuzz import plugins
from lmfuzz.calls import Call, parse
from lmfuzz.errors import UsageError
from lmfuzz.executors import CRASH
from lmfuzz.objectives.combine import Panel
from lmfuzz.protocols import Feature, Operator, Target
from lmfuzz.spec import Spec
from lmfuzz.types import TextSpace, unknown


def load_target(spec: Spec) -> Target:
    """The target that the spec's ``model`` names; TargetError when it cannot be loaded."""
    from lmfuzz.targets import loading  # only where it is used: it may load torch

    return loading.load_target(spec)


def objectives(spec: Spec) -> Panel:
    """The objectives, each under its own name: the class's alone where it comes from a file."""
    parts: dict[str, object] = {}
    for text in spec.objectives:
        call = parse(text)
        short = call.name.rpartition(":")[2]
        taken = sum(name.partition("#")[0] == short for name in parts)
        parts[f"{short}#{taken + 1}" if taken else short] = plugins.build("objectives", call)
    return Panel(parts)


def operators(spec: Spec, target: Target) -> dict[str, Operator]:
    """The operators of the spec; all there are where it names none, those apart that lack something."""
    calls = [parse(text) for text in spec.operators]
    if not calls:
        without = {"dictionary"} | (set() if hasattr(target, "sample") else {"tail"})
        calls = [Call(name) for name in plugins.names("operators") if name not in without]
    if spec.dictionary:
        calls.append(Call("dictionary", (("file", spec.dictionary),)))
    names = Counter(call.name for call in calls)
    return {
        call.name if names[call.name] == 1 else str(call): plugins.build("operators", call) for call in calls
    }


def narrowed(space: TextSpace, spec: Spec) -> TextSpace:
    """The target's space within the lengths of the spec."""
    least, most = max(space.min_length, spec.min_length), min(space.max_length, spec.max_length)
    if least > most:
        raise UsageError(
            f"the target takes prompts of {space.min_length} to {space.max_length} symbols, the campaign"
            f" gives {spec.min_length} to {spec.max_length} (--min-length, --max-length)"
        )
    return replace(space, min_length=least, max_length=most)


def check_channels(target: Target, panel: Panel, feature: Feature) -> None:
    """UsageError when the target lacks a channel that is wanted, with those that it has."""
    have = target.channels | {CRASH, "prompt"}
    judged = panel.needs | {"text"}
    for what, wants in (("the objectives need", judged), ("the feature needs", feature.needs)):
        if missing := unknown(wants, have):
            shown = ", ".join(dict.fromkeys(name.split("/", 1)[0] for name in missing))
            raise UsageError(
                f"{what} {shown}, which the target does not show; it has {', '.join(sorted(target.channels))}"
            )
