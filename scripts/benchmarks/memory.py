"""Does a campaign need more memory the longer it runs, beyond what it keeps on purpose?"""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.campaigns import Eye, assembled
from benchmarks.figures import Measured, Options, Wrong
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.types import Step

MEGABYTE = 1e6


def resident() -> float:
    """Resident memory of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    raise Wrong("/proc/self/status does not say how much memory is resident")


def kept(campaign: Campaign) -> float:
    """Bytes that the corpus and the archive's exact index hold, room to grow included."""
    rows = campaign.corpus._rows
    arrays = (rows.data, rows.lengths, rows.parent, rows.operator, campaign.archive._index._rows)
    return float(sum(array.nbytes for array in arrays))


class Scale:
    """Weighs the process the first time each of the ``at`` executions is passed."""

    def __init__(self, campaign: Campaign, at: list[int]) -> None:
        self._campaign, self._left = campaign, list(at)
        self.weights: list[tuple[int, float, float, int, int]] = []

    def step(self, step: Step) -> None:
        """Weigh when it is time."""
        if self._left and step.executions >= self._left[0]:
            self._left.pop(0)
            sizes = len(self._campaign.corpus), len(self._campaign.archive)
            self.weights.append((step.executions, resident(), kept(self._campaign), *sizes))
            if not self._left:
                self._campaign.stop()


def weigh(at: list[int]) -> list[tuple[int, float, float, int, int]]:
    """(executions, resident bytes, bytes kept, corpus, archive) of a directed campaign on the toy."""
    from lmfuzz.targets.toy import SEEDS

    settings = {"model": "lmfuzz.targets.toy:toy", "max_length": 32, "search": "directed",
                "objectives": ["repetition", 'phrases:words=["sesame","lantern"]']}  # fmt: skip
    with assembled(SEEDS, **settings) as (campaign, store):
        scale = Scale(campaign, at)
        campaign.run(store, Eye(scale.step))
    return scale.weights


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``memory_growth_mb``, in a process of its own."""
    first, last, turns = (2_000, 6_000, 3) if options.quick else (100_000, 500_000, 5)
    at = [first + i * (last - first) // (turns - 1) for i in range(turns)]
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(at)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Wrong((done.stderr.strip().splitlines() or ["the measuring process was killed"])[-1])
    weights = json.loads(done.stdout.splitlines()[-1])
    grown, own = (weights[-1][i] - weights[0][i] for i in (1, 2))
    course = ", ".join(f"{w[1] / MEGABYTE:.1f} MB at {w[0]}" for w in weights)
    _, _, _, corpus, archive = weights[-1]
    lines = (
        f"search directed on the toy target: {course}",
        f"corpus {weights[0][3]} to {corpus} rows and archive {weights[0][4]} to {archive} points: "
        f"{own / MEGABYTE:+.1f} MB of that",
    )
    return {keys[0]: Measured((grown - own) / MEGABYTE, lines)}


if __name__ == "__main__":
    print(json.dumps(weigh(json.loads(sys.argv[1]))))
