"""Named random streams, all from one seed, so that no part's draws disturb another's."""

import zlib

import numpy as np

from lmfuzz.types import State


class Streams:
    """``streams["search"]`` is a generator of its own, the same for the same seed and name."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, np.random.Generator] = {}

    def __getitem__(self, name: str) -> np.random.Generator:
        if name not in self._streams:
            entropy = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
            self._streams[name] = np.random.Generator(np.random.PCG64(entropy))
        return self._streams[name]

    def state(self) -> State:
        """Where every stream stands, for resume."""
        return {name: g.bit_generator.state for name, g in self._streams.items()}

    def restore(self, state: State) -> None:
        """Put every stream back where ``state`` says."""
        for name, position in state.items():
            self[name].bit_generator.state = position
