"""A model that misbehaves nearly always is still explored, and the user is told."""

from pathlib import Path

import pytest

from helpers.shell import Shell
from lmfuzz.storage.record import CampaignRecord

LOOPING = """
import numpy as np

from lmfuzz.targets.toy import Toy


class Looping(Toy):
    '''Repeats the first three letters of the prompt, but not if the prompt has a z.'''

    def run(self, batch, wants):
        trace = dict(super().run(batch, wants))
        for i, text in enumerate(self.space.texts(batch)):
            if "z" not in text:
                trace["text"][i] = text[:3].replace(" ", "x") * 20
        return trace
"""


@pytest.fixture
def looping(sh: Shell) -> tuple[str, ...]:
    """Makes the model, and says how to test it."""
    Path("looping.py").write_text(LOOPING)
    Path("seeds.txt").write_text("abc def\nbcd efg\ncde fgh\nzoo\n")
    return ("fuzz", "looping.py:Looping", "--seeds", "seeds.txt", "--objective", "repetition", "--budget")


def test_states_of_rows_that_hit_count_too_and_the_user_is_told(sh: Shell, looping: tuple[str, ...]) -> None:
    done = sh(*looping, "3000x", "-o", "c")
    assert done.code == 1
    assert "lmfuzz: 3 of 4 seeds do this unmutated: repetition: loop\n" in done.out
    assert " of the inputs hit repetition: loop: make the objective stricter" in done.out
    assert "set it aside with --ignore 'repetition: loop'" in done.out
    assert " of inputs that hit), novel " in done.out
    assert "3 of 4 seeds unmutated; '" in done.out
    record = CampaignRecord.read(Path("c"))
    hits, variants = record.hits["repetition: loop"], record.variants["repetition: loop"]
    assert hits > 1500
    assert sum(variants.values()) == hits
    assert 10 < record.tally.novel_hits < 4 * len(variants) + 4 * hits**0.5
    assert max(record.kept.values()) <= 30
    assert set(record.kept) <= {"repetition: loop", "repetition: word"}
    assert sh("report", "c").code == 0
    page = Path("c/report.html").read_text()
    assert "3 of 4 seeds do this unmutated. Variants by hits: " in page
    resumed = sh("resume", "c", "--budget", "4000x")
    assert "unmutated: " not in resumed.out, "it was said when the seeds were run"


def test_in_tensorfuzz_rows_that_hit_are_not_covered(sh: Shell, looping: tuple[str, ...]) -> None:
    sh(*looping, "1000x", "-o", "c", "--search", "tensorfuzz")
    assert CampaignRecord.read(Path("c")).tally.novel_hits == 0
