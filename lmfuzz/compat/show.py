"""``lmfuzz.show``, as the tests that 0.3.0 exported import it."""

from lmfuzz.analysis.verdict import verdict_line

__all__ = ["verdict_line"]
