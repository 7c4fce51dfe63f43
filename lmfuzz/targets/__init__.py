"""Models under test."""

from lmfuzz.plugins.registry import Kind
from lmfuzz.protocols import Target

TARGETS = Kind("target", "targets", __name__, Target, {})
