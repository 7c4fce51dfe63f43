"""What ``import lmfuzz`` offers: campaigns from Python, and what they came to."""
