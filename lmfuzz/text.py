"""Texts for people and programs: the one place that makes hostile text harmless."""

import json
import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmfuzz.errors import NAME, printable

if TYPE_CHECKING:
    from lmfuzz.types import Finding

WIDTH = 60  # characters of a text on a line
MARKS = (">>>", "<<<")  # around the bad part of an output
FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20"  # a cell that begins with one may be run, unless a ' precedes it
_SIGN = f"[{re.escape(FORMULAS)}]"
# Where a cell may begin: also inside a text, for programs that end a cell at a semicolon. Tabs and new lines
# are escapes by then, which begin with a backslash.
_BEGINS = re.compile(rf"""(^(?= *(?:'|{_SIGN}))|[;,](?=[ "']*{_SIGN}))""")


def escape(text: str) -> str:
    """Return ``text`` as ``printable`` does, with backslashes doubled, so that it can be read back."""
    lines = text.replace("\\", "\\\\").split("\n")
    return "\\n".join(line if line.isprintable() else printable(line) for line in lines)  # most lines are


def cut(shown: str, width: int) -> str:
    """Return an escaped text, its middle left out if it is longer than ``width``."""
    half = (width - 3) // 2
    return shown if len(shown) <= width else f"{shown[:half]}...{shown[-half:]}"


def shorten(text: str, width: int = WIDTH) -> str:
    """Return ``text`` escaped and in quotes, its middle left out if it is longer than ``width``."""
    return f'"{cut(escape(text), width)}"'


def wrap(text: str, columns: int) -> list[str]:
    """Return ``text`` as lines of at most ``columns`` characters, with all its spaces."""
    options = ("expand_tabs", "replace_whitespace", "drop_whitespace", "break_on_hyphens")
    kept: dict[str, Any] = dict.fromkeys(options, False)
    return textwrap.wrap(text, max(columns, 20), subsequent_indent="    ", **kept) or [""]


def columns(rows: Sequence[Sequence[str]], numbers: int = 0) -> Iterator[str]:
    """Yield rows as lines with aligned columns, the first ``numbers`` of them to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [text.rjust(width) for text, width in zip(row[:numbers], widths, strict=False)]
        right = [text.ljust(width) for text, width in zip(row[numbers:], widths[numbers:], strict=True)]
        yield "  ".join(left + right).rstrip()


def plural(number: int, what: str) -> str:
    """Return a number of things: ``1 finding``, ``2 findings``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Return a duration as ``9.1 s``, ``12 s``, ``3 m 05 s`` or ``2 h 03 m``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def as_utf8(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it; what a model wrote may have lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_value(value: Any) -> Any:
    """Return ``value`` as every JSON parser takes it: texts are UTF-8, numbers are finite or None."""
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {json_value(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value


def strict_json(value: Any, indent: int | None = None) -> str:
    """Return ``value`` as JSON in ASCII, without control characters; NaN and infinity are null."""
    return json.dumps(json_value(value), indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def spreadsheet_cell(value: Any) -> Any:
    """Return ``value`` for a spreadsheet: a text escaped, with ' before what could be a formula."""
    return _BEGINS.sub(r"\1'", escape(value)) if isinstance(value, str) else value


def fence(text: str, least: int) -> str:
    """Return at least ``least`` backticks, and more than follow each other anywhere in ``text``."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def markdown_code(shown: str) -> str:
    """Return an escaped text as Markdown code."""
    marks = fence(shown, 1)
    return f"{marks} {shown} {marks}" if shown.strip(" ") else '`""`'


def shell_quote(path: Path) -> str:
    """Return a path as a shell reads it back, whatever is in it, and never as an option."""
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(c if c.isprintable() and c not in "'\\" else _escape(c) for c in text) + "'"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def replay_command(directory: Path, number: int) -> str:
    """Return the command that runs a finding again."""
    return f"lmfuzz replay {shell_quote(directory)} {number}"


def resume_command(directory: Path) -> str:
    """Return the command that goes on with a campaign."""
    return f"lmfuzz resume {shell_quote(directory)}"


def import_command(file: Path) -> str:
    """Return the command that makes a folder of a checkpoint."""
    return f"lmfuzz import {shell_quote(file)} -o {shell_quote(Path(file.name.partition('.')[0] or 'model'))}"


def bucket_title(bucket: str) -> str:
    """Return a bucket's name, escaped and cut; ``regex/a|b: a|b`` is shortened to ``regex/a|b``."""
    for colon in re.finditer(": ", bucket):
        objective, signature = bucket[: colon.start()], bucket[colon.end() :]
        if objective == signature or objective.endswith(f"/{signature}"):
            return cut(escape(objective), NAME)
    return cut(escape(bucket), NAME)


def mark(finding: "Finding") -> tuple[str, str, str]:
    """Return the output, escaped, as what is before, in and after its bad part; all before without one."""
    span, text = finding.evidence.span, finding.output
    if span is None or span[0] >= span[1]:
        return escape(text), "", ""
    return escape(text[: span[0]]), escape(text[span[0] : span[1]]), escape(text[span[1] :])


def excerpt(finding: "Finding", width: int, least: int = 10) -> tuple[str, str, str]:
    """Return what ``mark`` does, cut to ``width``, with at least ``least`` characters on each side."""
    before, bad, after = mark(finding)
    if not bad:
        return cut(before, width), "", ""
    side = max(least, (width - min(len(bad), width)) // 2)
    before = before if len(before) <= side else "..." + before[-side:]
    after = after if len(after) <= side else after[:side] + "..."
    return before, bad if len(bad) <= width else bad[: width - 3] + "...", after


def quote_output(finding: "Finding", width: int = 0) -> str:
    """Return the output in quotes, the bad part marked; with a width, cut to about that."""
    before, bad, after = excerpt(finding, width) if width else mark(finding)
    return f'"{before}{MARKS[0]}{bad}{MARKS[1]}{after}"' if bad else f'"{before}"'


def finding_line(number: int, finding: "Finding", width: int = WIDTH) -> str:
    """Return a finding on one line: its bucket, prompt and output, each text cut to ``width``."""
    return (
        f"finding {number}, {bucket_title(finding.bucket)} ({finding.label}): "
        f"{shorten(finding.prompt, width)} -> {quote_output(finding, width)}"
    )
