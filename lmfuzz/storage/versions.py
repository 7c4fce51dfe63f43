"""Campaigns of another version of the program: which, and what to do."""

import tomllib
from pathlib import Path

import lmfuzz


def explain_version(campaign: Path, found: object, known: int) -> str:
    """Why a campaign of format ``found`` is not read where ``known`` is; ``campaign``: its campaign.toml."""
    try:
        made = tomllib.loads(campaign.read_text(encoding="utf-8"))["made_with"]["lmfuzz"]
        by = f"lmfuzz {made if isinstance(made, str) and made.isprintable() else '?'}"
        by = f"another build of {by}" if made == lmfuzz.__version__ else by
    except (OSError, ValueError, KeyError, TypeError):
        by = "another lmfuzz"
    return (
        f"the campaign in {campaign.parent} was made by {by} (format {found}), and this is lmfuzz "
        f"{lmfuzz.__version__} (format {known}): read it with that version, or run it anew with this one: "
        f"lmfuzz fuzz --config {campaign}"
    )
