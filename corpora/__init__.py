"""Seed prompts, loop-prone prompts, word lists and dictionaries, as files beside this one."""
