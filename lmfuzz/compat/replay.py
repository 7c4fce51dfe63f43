"""``lmfuzz.replay``, as tests that 0.3.0 exported import it."""

from lmfuzz.analysis.replay import Recorded, Replay

__all__ = ["Recorded", "Replay"]
