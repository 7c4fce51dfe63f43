"""Findings as Markdown, for people: texts stand in code, in which nothing is obeyed."""

import re
from collections.abc import Sequence

from lmfuzz.analysis.summary import escaped
from lmfuzz.exports.export_model import Dossier


def markdown(dossier: Dossier) -> str:
    """A headline, how the campaign stands, and a section per finding."""
    lines = [f"# lmfuzz: {_code(str(dossier.directory))}", "", f"Model {_code(dossier.model)}.", ""]
    if dossier.about:
        lines += _block(dossier.about)
    for line in dossier.lost:
        lines += [f"**Lost**: {_code(line)}", ""]
    if dossier.empty:
        lines += ["Nothing was found.", ""]
    for case in dossier.cases:
        lines += [f"## {_code(case.name)}", "", *_block(dossier.details(case))]
    return "\n".join(lines)


def _fence(text: str, least: int) -> str:
    """More backticks than there are in a row in ``text``."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def _code(text: str) -> str:
    return span(escaped(text))


def span(shown: str) -> str:
    """A text that is escaped already, as code."""
    fence = _fence(shown, 1)
    return f"{fence} {shown} {fence}" if shown.strip(" ") else '`""`'


def _block(lines: Sequence[str]) -> list[str]:
    fence = _fence("\n".join(lines), 3)
    return [f"{fence}text", *lines, fence, ""]
