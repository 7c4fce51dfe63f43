"""The public API of ``import lmfuzz``: campaigns from Python, and their results."""
