"""Features, which place rows in state space, and the archive of the places seen so far."""

from lmfuzz.plugins.registry import Kind
from lmfuzz.protocols import Feature

_BUILT_IN = {
    "hidden_last": "features:hidden_last", "hidden_mean": "features:hidden_mean",
    "trajectory": "features:Trajectory", "output_cells": "features:OutputCells",
    "channels": "channels:Channels", "total": "channels:Total",
}  # fmt: skip
FEATURES = Kind("feature", "features", __name__, Feature, _BUILT_IN)
