"""lmfuzz: a coverage-guided behaviour fuzzer for language models."""

__version__ = "0.3.0"
__path__.append(f"{__path__[0]}/compat")  # modules under the names that earlier versions gave them
