"""A run that cannot go on says so in a sentence, with the exit code that is meant for it."""

import json
from pathlib import Path

import pytest

from helpers.shell import Shell
from lmfuzz.text import plural

MODELS = '''
import shutil
from pathlib import Path
import numpy as np
from lmfuzz.targets.toy import Toy

ROWS = 1000  # that run as they should


class Odd(Toy):
    ran = 0

    def run(self, batch, wants):
        self.ran += len(batch)
        shown = dict(super().run(batch, wants))
        return self.odd(shown) if self.ran > ROWS else shown


def model(odd):
    made = Odd(phrase_key="xyz", loop_key="vk")
    made.odd = odd
    return made


def removes():
    return model(lambda shown: shutil.rmtree("c", ignore_errors=True) or shown)


def replaces():
    def odd(shown):
        if not Path("old").exists():
            Path("c").rename("old")
            shutil.copytree("old", "c")
        return shown
    return model(odd)
'''


@pytest.fixture
def odd(sh: Shell) -> Shell:
    Path("odd.py").write_text(MODELS)
    return sh


@pytest.mark.parametrize("model", ["removes", "replaces"])
def test_a_directory_that_goes_away_is_4_and_all_findings_are_on_stderr(odd: Shell, model: str) -> None:
    result = odd.fuzz("-o", "c", model=f"odd.py:{model}", budget="9000x")
    assert result.code == 4
    *rows, last = result.err.splitlines()
    assert last == (
        "lmfuzz: cannot write c: it was removed, moved or replaced while the campaign ran; "
        f"{plural(len(rows), 'finding')} could not be written, see above"
    )
    buckets = {json.loads(row)["bucket"] for row in rows}
    assert buckets and all(bucket.startswith("repetition") for bucket in buckets)
    assert "the campaign is in" not in result.out
