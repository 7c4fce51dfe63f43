"""Whether the parts of a campaign fit one another."""

from collections.abc import Mapping

from lmfuzz.errors import UsageError
from lmfuzz.inputs.spaces import BoxSpace, Space
from lmfuzz.protocols import Target
from lmfuzz.types import CRASH, OWN, unknown


def check_channels(target: Target, needs: Mapping[str, frozenset[str]]) -> None:
    """Raise UsageError if the target lacks a channel; ``needs``: "the feature needs" -> channels ..."""
    have = target.channels | OWN | {CRASH}
    for what, wants in needs.items():
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
