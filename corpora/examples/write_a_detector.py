"""Three detectors, from the shortest to one with all there is, used together."""

import numpy as np

import lmfuzz


def talks_of_the_sea(text: str) -> bool:
    """Return a bool: that is enough, and every output is asked about."""
    return "the sea" in text


def vowels(text: str) -> float:
    """Return a margin, which guides the search: how far the share of vowels is above 45 %."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text)) - 0.45


class Short:
    """A detector of whole batches, which names its buckets and marks the bad part."""

    def __call__(self, batch: lmfuzz.Batch, trace: dict[str, np.ndarray]) -> list[float]:
        """Return a margin for each of the B outputs: how many words fewer than 8 it has."""
        return [8 - len(text.split()) for text in trace["text"]]

    def evidence(
        self, batch: lmfuzz.Batch, trace: dict[str, np.ndarray], row: int, column: int
    ) -> lmfuzz.Evidence:
        """Return the bucket, a sentence, and the part of the output that it is about."""
        text = trace["text"][row]
        words = len(text.split())
        return lmfuzz.Evidence(f"{words} words", f"the output has {words} words", (0, len(text)))


if __name__ == "__main__":
    result = lmfuzz.fuzz(objectives=[talks_of_the_sea, vowels, Short()], budget="1500x", seed=0)
    print(result)
