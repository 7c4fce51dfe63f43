"""Output that a regular expression matches."""

import re
import warnings

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.protocols import ForTexts
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

LEVELS = 24  # prefixes tried per row at most


class Regex(ForTexts):
    """Find outputs that a regular expression matches anywhere.

    The pattern is one for re.search; inline flags work. Margins: 1 for a match, otherwise k/n - 1 for the
    longest of n prefixes of the pattern that matches, the k-th. Prefixes that are not a pattern or match the
    empty string are left out, and more than 24 are thinned evenly; -inf if the pattern has no such prefix.

    The signature is the pattern, since what it matches may differ every time: one regular expression is one
    behaviour. For literal words the objective ``phrases`` guides the search better. Outputs are short, but a
    pattern with nested repeats, such as ``(a+)+b``, can still take exponential time on them, and so can its
    prefixes.
    """

    needs = frozenset({"text"})

    def __init__(self, pattern: str, ignore_case: bool = False) -> None:
        flags = re.IGNORECASE if ignore_case else re.NOFLAG
        if not pattern:
            raise UsageError("regex: an empty pattern matches every output; give it one that does not")
        try:
            self._full = _compile(pattern, flags)
        except re.error as error:
            where = f" at position {error.pos}" if error.pos is not None else ""
            raise UsageError(f"regex: {pattern!r} is not a regular expression: {error.msg}{where}") from None
        except (OverflowError, RecursionError) as error:
            raise UsageError(f"regex: {pattern!r} is too large: {error}") from None
        self.pattern = pattern
        self.targets = (f"regex/{pattern}",)
        prefixes = _prefixes(pattern, flags)
        self._levels = [(k / (len(prefixes) + 1) - 1, p.search) for k, p in enumerate(prefixes, 1)][::-1]

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins float32 (B, 1)."""
        margins = np.fromiter(map(self._margin, trace["text"]), np.float32, len(trace["text"]))
        return margins[:, None]

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the first match; raise ValueError if there is none."""
        match = self._full.search(trace["text"][row])
        if match is None:
            raise ValueError(f"the output does not match {self.pattern!r}")
        return Evidence(self.pattern, f"'{match.group()}' matches '{self.pattern}'", match.span())

    def _margin(self, text: str) -> float:
        if self._full.search(text):
            return 1.0
        for margin, search in self._levels:
            if search(text):
                return margin
        return -1.0 if self._levels else -np.inf


def _compile(pattern: str, flags: re.RegexFlag) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about prefixes that later Pythons may read differently
        return re.compile(pattern, flags)


def _prefixes(pattern: str, flags: re.RegexFlag) -> list[re.Pattern[str]]:
    """Return the proper prefixes that grade a miss, shortest first, evenly thinned to LEVELS."""
    found = []
    for stop in range(1, len(pattern)):
        try:
            prefix = _compile(pattern[:stop], flags)
        except (re.error, OverflowError, RecursionError):
            continue
        if not prefix.search(""):
            found.append(prefix)
    if len(found) <= LEVELS:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, LEVELS).round().astype(int)]
