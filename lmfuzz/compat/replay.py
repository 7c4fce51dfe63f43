"""``lmfuzz.replay``, as the tests that 0.3.0 exported import it."""

from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay

__all__ = ["Recorded", "Replay"]
