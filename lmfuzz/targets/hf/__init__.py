"""Hugging Face causal language models as targets."""
