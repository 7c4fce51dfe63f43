"""Texts for people and programs: hostile text is made harmless here, and nowhere else."""

import json
import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from lmfuzz.errors import printable
from lmfuzz.types import Finding

WIDTH = 60  # characters of a text that a line has room for
MARKS = (">>>", "<<<")  # around the bad part of an output
FORMULAS = "=+-@\uff1d\uff0b\uff0d\uff20"  # a cell that begins with one may be run; ' hides what is behind
_SIGN = f"[{re.escape(FORMULAS)}]"
# Where a cell may begin: inside a text, too, for who reads ; as the end of a cell. Where a tab or a new line
# was, an escape begins with a backslash.
_BEGINS = re.compile(rf"""(^(?= *(?:'|{_SIGN}))|[;,](?=[ "']*{_SIGN}))""")


def escape(text: str) -> str:
    """``text`` as ``printable`` has it, a backslash doubled, so that the text can be told from it."""
    lines = text.replace("\\", "\\\\").split("\n")
    return "\\n".join(line if line.isprintable() else printable(line) for line in lines)  # most lines are


def cut(shown: str, width: int) -> str:
    """A text that is escaped already, its middle left out when it is longer than ``width``."""
    half = (width - 3) // 2
    return shown if len(shown) <= width else f"{shown[:half]}...{shown[-half:]}"


def shorten(text: str, width: int = WIDTH) -> str:
    """``text`` escaped and in quotes, its middle left out when it is longer than ``width``."""
    return f'"{cut(escape(text), width)}"'


def wrap(text: str, columns: int) -> list[str]:
    """``text`` as lines of at most ``columns`` characters, all its spaces kept."""
    return textwrap.wrap(
        text, max(columns, 20), subsequent_indent="    ", expand_tabs=False, replace_whitespace=False,
        drop_whitespace=False, break_on_hyphens=False,
    ) or [""]  # fmt: skip


def columns(rows: Sequence[Sequence[str]], numbers: int = 0) -> Iterator[str]:
    """Rows as lines, texts one below the other; the first ``numbers`` of them end at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [text.rjust(width) for text, width in zip(row[:numbers], widths, strict=False)]
        right = [text.ljust(width) for text, width in zip(row[numbers:], widths[numbers:], strict=True)]
        yield "  ".join(left + right).rstrip()


def plural(number: int, what: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """``9.1 s``, ``12 s``, ``3 m 05 s``, ``2 h 03 m``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def as_utf8(text: str) -> str:
    """``text`` as UTF-8 can hold it: what a model wrote need not be."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_value(value: Any) -> Any:
    """``value`` as every JSON parser takes it: texts that are UTF-8, no number that is not finite."""
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
    """``value`` as JSON in ASCII, with nothing in it that a terminal obeys; NaN and infinity are null."""
    return json.dumps(json_value(value), indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


def spreadsheet_cell(value: Any) -> Any:
    """``value`` for a spreadsheet: a text on one line, escaped, with ' before what could be a formula."""
    return _BEGINS.sub(r"\1'", escape(value)) if isinstance(value, str) else value


def fence(text: str, least: int) -> str:
    """More backticks than there are in a row in ``text``."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def markdown_code(shown: str) -> str:
    """A text that is escaped already, as code."""
    marks = fence(shown, 1)
    return f"{marks} {shown} {marks}" if shown.strip(" ") else '`""`'


def shell_quote(path: Path) -> str:
    """A path as a shell reads it back, whatever is in it, and no option."""
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(c if c.isprintable() and c not in "'\\" else _escape(c) for c in text) + "'"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def replay_command(directory: Path, number: int) -> str:
    """What to type to run a finding again."""
    return f"lmfuzz replay {shell_quote(directory)} {number}"


def resume_command(directory: Path) -> str:
    """What to type to go on."""
    return f"lmfuzz resume {shell_quote(directory)}"


def bucket_title(bucket: str) -> str:
    """A bucket's name, escaped: ``regex/a|b`` alone where that is what ``regex/a|b: a|b`` says."""
    for colon in re.finditer(": ", bucket):
        objective, signature = bucket[: colon.start()], bucket[colon.end() :]
        if objective == signature or objective.endswith(f"/{signature}"):
            return escape(objective)
    return escape(bucket)


def mark(finding: Finding) -> tuple[str, str, str]:
    """The output, escaped, as what is before, in and behind its bad part; ('...', '', '') without one."""
    span, text = finding.evidence.span, finding.output
    if span is None or span[0] >= span[1]:
        return escape(text), "", ""
    return escape(text[: span[0]]), escape(text[span[0] : span[1]]), escape(text[span[1] :])


def excerpt(finding: Finding, width: int, least: int = 10) -> tuple[str, str, str]:
    """What ``mark`` gives, cut to ``width``, but ``least`` characters on each side; '...' says where."""
    before, bad, after = mark(finding)
    if not bad:
        return cut(before, width), "", ""
    room = max(least, (width - min(len(bad), width)) // 2)
    before = before if len(before) <= room else "..." + before[-room:]
    after = after if len(after) <= room else after[:room] + "..."
    return before, bad if len(bad) <= width else bad[: width - 3] + "...", after


def quote_output(finding: Finding, width: int = 0) -> str:
    """The output in quotes, the bad part marked; with a width, not much more than its surroundings."""
    before, bad, after = excerpt(finding, width) if width else mark(finding)
    return f'"{before}{MARKS[0]}{bad}{MARKS[1]}{after}"' if bad else f'"{before}"'


def finding_line(number: int, finding: Finding, width: int = WIDTH) -> str:
    """A finding on one line: its bucket, prompt and output, each text cut to ``width``."""
    return (
        f"finding {number}, {bucket_title(finding.bucket)} ({finding.label}): "
        f"{shorten(finding.prompt, width)} -> {quote_output(finding, width)}"
    )
