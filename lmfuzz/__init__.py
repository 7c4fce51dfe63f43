"""lmfuzz: a coverage-guided behaviour fuzzer for language models."""

__version__ = "0.3.0"
