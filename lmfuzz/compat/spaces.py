"""``lmfuzz.spaces``, as targets written for 0.3.0 import it."""

from lmfuzz.inputs.spaces import BoxSpace, TextSpace

__all__ = ["BoxSpace", "TextSpace"]
