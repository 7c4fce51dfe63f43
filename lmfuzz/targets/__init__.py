"""Models under test."""

from lmfuzz.plugins.registry import Kind
from lmfuzz.protocols import PlainTarget

TARGETS = Kind("target", "targets", __name__, PlainTarget, {})
