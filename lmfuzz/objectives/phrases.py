"""Words and phrases that an output must not contain."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.reading import read_text
from lmfuzz.protocols import ForTexts
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

_BARELY = -1e-3  # the largest margin of a phrase that is not in the output
Words = Sequence[str]
_ECHO = -1.0  # the largest margin of a phrase that is in the prompt


class Phrases(ForTexts):
    """Find outputs that contain a phrase from a list, graded by how near the model was to writing it.

    There is one column per phrase. The margin is 1 if the phrase is in the output, otherwise the gap in nats
    that the target's channel ``phrase_gap/`` gives (0 would be a hit).

    Args:
        words: the phrases.
        file: a file of further phrases, one per line; it may begin with ``corpora:``.
        fold: whether case is ignored.
        whole: whether only whole words count; a word that begins in the prompt is not whole.
        echo: whether a phrase counts that is in the prompt as well, even as a part of a longer word.
    """

    def __init__(
        self, words: Words = (), file: str = "", fold: bool = True, whole: bool = True, echo: bool = False
    ) -> None:
        phrases = [*words, *(_read(resource(file)) if file else [])]
        distinct = list(dict.fromkeys(p.lower() if fold else p for p in phrases))
        if not distinct:
            raise UsageError('phrases needs a list: phrases:words=["murder"] or phrases:file=words.txt')
        if not all(distinct):
            raise UsageError("phrases: every output contains an empty phrase; leave it out")
        self.targets = tuple(f"phrases/{phrase}" for phrase in distinct)
        self.fold, self.echo, self._phrases = fold, echo, distinct
        flags = "f" * fold + "w" * whole
        self._channels = [f"phrase_gap/{flags}/{phrase}" for phrase in distinct]
        self.needs = frozenset({"text", *([] if echo else ["prompt"]), *(["lead"] if whole else [])})
        self.grades = tuple(frozenset({channel}) for channel in self._channels)
        edge = (r"(?<!\w)", r"(?!\w)") if whole else ("", "")
        case = re.IGNORECASE if fold else 0
        self._patterns = [re.compile(edge[0] + re.escape(p) + edge[1], case) for p in distinct]

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Return margins (B, N) for N phrases."""
        margins = np.full((len(batch), len(self.targets)), -np.inf, np.float32)
        graded = [column for column, channel in enumerate(self._channels) if channel in trace]
        for column in graded:
            margins[:, column] = np.minimum(trace[self._channels[column]], np.float32(_BARELY))
        written = self._holding(trace["text"], range(len(self._phrases)))
        echoed = {} if self.echo else self._holding(trace["prompt"], {*graded, *written})
        for column, rows in echoed.items():
            margins[rows, column] = np.minimum(margins[rows, column], _ECHO)
        for column, rows in written.items():
            for row in rows:
                if row not in echoed.get(column, ()) and self._place(trace, row, column):
                    margins[row, column] = 1.0
        return margins

    def _place(self, trace: Trace, row: int, column: int) -> tuple[int, int] | None:
        """Return where the phrase is in the output, if it is there."""
        lead = trace["lead"][row] if "lead" in self.needs else ""
        match = self._patterns[column].search(lead + trace["text"][row], len(lead))
        return match and (match.start() - len(lead), match.end() - len(lead))

    def _holding(self, texts: Iterable[str], columns: Iterable[int]) -> dict[int, list[int]]:
        """Return which of the columns' phrases are in some text, even inside words, and in which rows.

        For a prompt that is enough: the larger part of a longer word would prompt the rest.
        """
        folded = [text.lower() if self.fold else text for text in texts]
        whole = "\0".join(folded)  # hardly any phrase is in a text, and one look shows that
        return {
            column: [row for row, text in enumerate(folded) if self._phrases[column] in text]
            for column in columns
            if self._phrases[column] in whole
        }

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """Return the phrase as it is in the output."""
        phrase = self.targets[column].removeprefix("phrases/")
        span = self._place(trace, row, column)
        assert span is not None, "evidence is only for rows with a margin above 0"
        return Evidence(phrase, f"the output holds '{trace['text'][row][slice(*span)]}'", span)


def _read(path: Path) -> list[str]:
    """Return the phrases of a UTF-8 file, one per line, without blank lines and lines that start with #."""
    lines = read_text(path, "word list").splitlines()
    phrases = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not phrases:
        raise UsageError(f"the word list {path} is empty; give it one phrase per line")
    return phrases
