"""Torch modules that write characters, as targets."""
