"""Words and phrases that must not stand in the output."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import resource
from lmfuzz.inputs.reading import read_text
from lmfuzz.protocols import ForTexts
from lmfuzz.types import Batch, Evidence, FloatArray, Trace

_BARELY = -1e-3  # margin of a phrase that the model would write but for where the output ends
_ECHO = -1.0  # a phrase that stands in the prompt gets no better margin than this


class Phrases(ForTexts):
    """The output holds a phrase from a list; graded by how far the model was from writing it.

    One column per phrase. The margin is 1 where the phrase stands in the output, otherwise the gap in
    nats that the target's channel ``phrase_gap/`` gives (0 would be a hit). ``fold`` ignores case,
    ``whole`` asks for whole words, and unless ``echo`` a phrase that already stands in the prompt, be it
    inside a longer word, does not count.
    """

    def __init__(
        self, words: Sequence[str] = (), file: str = "", fold: bool = True, whole: bool = True,
        echo: bool = False,
    ) -> None:  # fmt: skip
        phrases = [*words, *(_read(resource(file)) if file else [])]
        distinct = list(dict.fromkeys(p.lower() if fold else p for p in phrases))
        if not distinct:
            raise UsageError('phrases needs words, e.g. phrases:words=["murder"] or phrases:file=words.txt')
        if not all(distinct):
            raise UsageError("phrases: an empty phrase stands in every output; leave it out")
        self.targets = tuple(f"phrases/{phrase}" for phrase in distinct)
        self.fold, self.echo, self._phrases = fold, echo, distinct
        flags = "f" * fold + "w" * whole
        self._channels = [f"phrase_gap/{flags}/{phrase}" for phrase in distinct]
        self.needs = frozenset({"text"} if echo else {"text", "prompt"})
        self.grades = tuple(frozenset({channel}) for channel in self._channels)
        edge = (r"(?<!\w)", r"(?!\w)") if whole else ("", "")
        case = re.IGNORECASE if fold else 0
        self._patterns = [re.compile(edge[0] + re.escape(p) + edge[1], case) for p in distinct]

    def __call__(self, batch: Batch, trace: Trace) -> FloatArray:
        """Margins (B, N), N phrases."""
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
                if row not in echoed.get(column, ()) and self._patterns[column].search(trace["text"][row]):
                    margins[row, column] = 1.0
        return margins

    def _holding(self, texts: Iterable[str], columns: Iterable[int]) -> dict[int, list[int]]:
        """Those of the columns' phrases that stand in some text, inside words too, each with the rows.

        For a prompt that is enough: the better part of a longer word would prompt the rest.
        """
        folded = [text.lower() if self.fold else text for text in texts]
        whole = "\0".join(folded)  # nearly no phrase is anywhere: one look finds that out
        return {
            column: [row for row, text in enumerate(folded) if self._phrases[column] in text]
            for column in columns
            if self._phrases[column] in whole
        }

    def evidence(self, batch: Batch, trace: Trace, row: int, column: int) -> Evidence:
        """The phrase as it stands in the output."""
        phrase = self.targets[column].removeprefix("phrases/")
        match = self._patterns[column].search(trace["text"][row])
        assert match is not None, "evidence is asked for rows whose margin was > 0"
        return Evidence(phrase, f"the output holds '{match.group()}'", match.span())


def _read(path: Path) -> list[str]:
    """The phrases of a UTF-8 file, one per line; blank lines and lines starting with # are left out."""
    lines = read_text(path, "word list").splitlines()
    phrases = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not phrases:
        raise UsageError(f"word list {path} holds no phrase")
    return phrases
