"""The program that runs one campaign of a sweep: ``python -m lmfuzz.cli.sweep_campaign CONFIG DIRECTORY``."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lmfuzz.cli.exit_codes import NOTHING
from lmfuzz.cli.main import main
from lmfuzz.errors import UsageError
from lmfuzz.storage.directory import has_commit
from lmfuzz.storage.record import CampaignRecord

POLL = 0.5  # seconds between checks of a process that an earlier sweep began


def run(config: Path, directory: Path) -> None:
    """Begin or resume the campaign as soon as no other process works on it; then exit."""
    with FileLock(config.with_suffix(".lock")).acquire(poll_interval=POLL):
        with suppress(UsageError):  # there is none yet, or the command reports what is wrong
            if CampaignRecord.read(directory).at_end:
                sys.exit(NOTHING)
        if has_commit(directory):
            arguments = ["resume", str(directory)]
        else:
            shutil.rmtree(directory, ignore_errors=True)  # it was killed before its first commit
            arguments = ["fuzz", "--config", str(config), "-o", str(directory)]
        sys.argv = ["lmfuzz", *arguments]
        main()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
