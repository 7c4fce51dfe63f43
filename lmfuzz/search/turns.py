"""Whose turn is it, in searches that advance many seeds side by side?"""

import numpy as np

from lmfuzz.search.seed_outcomes import Trials
from lmfuzz.types import IntArray

TURN = 100  # queries after which a seed makes way for those that had fewer


def turn(trials: Trials, size: int) -> IntArray:
    """At most ``size`` of the seeds to go on with, those that had fewer turns of ``TURN`` queries first.

    So that no more seeds are under way than there is room for, and a seed that cannot be solved does
    not keep the others from being tried.
    """
    seeds = trials.open
    return np.sort(seeds[np.argsort(trials.queries[seeds] // TURN, kind="stable")[:size]])
