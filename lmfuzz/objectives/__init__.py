"""What counts as misbehaviour."""

from collections.abc import Callable

from lmfuzz.plugins.registry import Kind

_BUILT_IN = {
    "phrases": "phrases:Phrases", "regex": "regex:Regex", "format": "format:Format", "echo": "echo:Echo",
    "memorised": "memorised:Memorised", "never_ends": "never_ends:NeverEnds",
    "repetition": "repetition:Repetition", "nonfinite": "numeric:Nonfinite", "entropy": "numeric:Entropy",
    "disagreement": "disagreement:LabelDisagreement", "parting": "disagreement:TextDisagreement",
    "divergence": "disagreement:Divergence", "regression": "regression:Regression",
    "all": "combine:All", "any": "combine:Any",
}  # fmt: skip
# What an objective leaves out objectives.detectors makes good; a function takes a text, or batch and trace.
OBJECTIVES = Kind("objective", "objectives", __name__, Callable, _BUILT_IN, itself=(1, 2))
