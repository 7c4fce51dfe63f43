"""Files that do harm to who reads them carelessly."""

import os
from pathlib import Path


class Malicious:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)
