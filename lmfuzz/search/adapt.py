"""What is known about a search, whether it was written for this version or for 0.3.0."""

from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

from lmfuzz.protocols import SearchTraits
from lmfuzz.search.seed_outcomes import SeedOutcomes


@runtime_checkable
class TracksSeeds(Protocol):
    """Track, as a search, what became of every seed."""

    outcomes: SeedOutcomes


def traits_of(search: Any) -> SearchTraits:
    """Return the traits of a search or a class of searches; in 0.3.0 each was an attribute of its own."""
    if isinstance(traits := getattr(search, "traits", None), SearchTraits):
        return traits
    names = [field.name for field in fields(SearchTraits) if hasattr(search, field.name)]
    return SearchTraits(**{name: getattr(search, name) for name in names})


def outcomes_of(search: Any) -> SeedOutcomes | None:
    """Return what became of every seed, if the search tracks that; in 0.3.0 it was called ``trials``."""
    if isinstance(search, TracksSeeds):
        return search.outcomes
    trials: SeedOutcomes | None = getattr(search, "trials", None)
    return trials
