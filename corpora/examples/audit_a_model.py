"""Audit a character model of your own: a torch module, its alphabet, and a detector.

The model here is untrained, so that the example needs no files: put your own in its place.
"""

import torch
from torch import Tensor, nn

import lmfuzz

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"


class CharModel(nn.Module):
    """Symbols (B, T) to logits (B, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), 32)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, len(ALPHABET))

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the logits of the symbol after every symbol."""
        return self.head(self.gru(self.embedding(symbols))[0])


def rare_letters(text: str) -> bool:
    """Return whether the output has a q or a z in it."""
    return "q" in text or "z" in text


if __name__ == "__main__":
    torch.manual_seed(0)
    result = lmfuzz.fuzz(
        CharModel(),
        alphabet=ALPHABET,
        objectives=["repetition", rare_letters],
        seeds=["good morrow", "once upon a time"],
        budget="250x",
        max_new=20,
    )
    print(result)
    for bucket, findings in result.buckets.items():
        print(bucket, "first on", repr(findings[0].prompt))
    print([verdict.words for verdict in result.replay()])
    print("report:", result.report("report.html"))
