"""The published experiments with twins and images, run again beside lmfuzz's own searches."""
