"""Twins: compressed copies of a model, and pairs of models as one target."""
