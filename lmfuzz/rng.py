"""Named random streams, all from one seed, so that one part's draws do not change another's."""

import zlib

import numpy as np

from lmfuzz.types import State


class Streams:
    """Make a generator per name: ``streams["search"]`` depends on the seed and the name alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, np.random.Generator] = {}

    def __getitem__(self, name: str) -> np.random.Generator:
        if name not in self._streams:
            entropy = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
            self._streams[name] = np.random.Generator(np.random.PCG64(entropy))
        return self._streams[name]

    def state(self) -> State:
        """Return the position of every stream, for ``restore``."""
        return {name: stream.bit_generator.state for name, stream in self._streams.items()}

    def restore(self, state: State) -> None:
        """Put every stream back to the position in ``state``."""
        for name, position in state.items():
            self[name].bit_generator.state = position
