"""Searches: strategies that choose which rows to try next, and learn from the answers."""

from lmfuzz.plugins.registry import Kind
from lmfuzz.protocols import Search

_BUILT_IN = {
    "random": "random:Random", "walk": "walk:Walk", "tensorfuzz": "tensorfuzz:TensorFuzz",
    "directed": "directed:Directed", "boundary": "boundary:Boundary",
    "triggerfinder": "triggerfinder:TriggerFinder", "diffchaser": "diffchaser:DiffChaser",
}  # fmt: skip
SEARCHES = Kind("search", "searches", __name__, Search, _BUILT_IN, leading=1)
