"""Checkpoints that people have, made into folders that can be tested."""
