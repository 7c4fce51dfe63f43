"""Findings as Markdown, for people: texts stand in code, so that no markup in them acts."""

from collections.abc import Sequence

from lmfuzz.exports.export_model import Dossier
from lmfuzz.text import escape, fence, markdown_code


def markdown(dossier: Dossier) -> str:
    """Return a headline, a summary of the campaign, and a section per finding."""
    lines = [f"# lmfuzz: {_code(str(dossier.directory))}", "", f"Model {_code(dossier.model)}.", ""]
    if dossier.about:
        lines += _block(dossier.about)
    if dossier.empty:
        lines += ["Nothing was found.", ""]
    for case in dossier.cases:
        lines += [f"## {_code(case.title)}", "", *_block(dossier.details(case))]
    return "\n".join(lines)


def _code(text: str) -> str:
    return markdown_code(escape(text))


def _block(lines: Sequence[str]) -> list[str]:
    marks = fence("\n".join(lines), 3)
    return [f"{marks}text", *lines, marks, ""]
