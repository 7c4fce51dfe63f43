"""A run that cannot go on says so in a sentence, with the exit code that is meant for it."""

import json
import re
from pathlib import Path

import pytest

from helpers.shell import Shell, forget_files
from lmfuzz.text import plural

MODELS = """
import shutil
from pathlib import Path
import numpy as np
from lmfuzz.errors import Unfit
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


def narrow():
    return model(lambda shown: {**shown, "hidden_last": shown["hidden_last"][:, :5]})


def picky():
    def odd(shown):
        raise Unfit("too long")
    return model(odd)


def stops():
    def odd(shown):
        raise GeneratorExit
    return model(odd)


def quits():
    raise GeneratorExit("no model")
"""
OWN = """
class Made:
    def __init__(self):
        raise EOFError("nothing to read")


def judge(batch, trace):
    raise GeneratorExit("enough")


def change(rows, near):
    raise ERROR


class Feature:
    needs = frozenset({"text"})

    def fit(self, trace):
        pass

    def __call__(self, trace):
        raise ERROR
"""


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
    assert buckets
    assert all(bucket.startswith("repetition") for bucket in buckets)
    assert "the campaign is in" not in result.out


@pytest.mark.parametrize(
    ("model", "raised"),
    [
        ("narrow", "ValueError: the channel hidden_last holds numbers of shape (B, 5)"),
        ("stops", "GeneratorExit"),
    ],
)
def test_what_a_target_does_wrong_later_is_a_crash_finding(odd: Shell, model: str, raised: str) -> None:
    result = odd.fuzz("-o", "c", model=f"odd.py:{model}", budget="4000x")
    assert (result.code, result.err) == (1, "")
    shown = odd("show", "c", "--json").out
    assert any(bucket.startswith(f"crash: {raised.replace('5', 'N')}") for bucket in _buckets(shown))


def _buckets(shown: str) -> list[str]:
    return [bucket for of in json.loads(shown)["findings"].values() for bucket in of]


def test_a_factory_that_stops_is_3_and_a_detector_that_stops_is_2(odd: Shell) -> None:
    Path("mine.py").write_text(OWN)
    said = odd.refused("fuzz", "odd.py:quits", "--seeds", "seeds.txt", code=3)
    assert "odd.py:quits raised GeneratorExit: no model (" in said
    base = "fuzz", "odd.py:removes", "--seeds", "seeds.txt", "--budget", "2000x"
    said = odd.refused(*base, "--objective", "mine.py:Made")
    assert "mine.py:Made cannot be made: EOFError: nothing to read (" in said


@pytest.mark.parametrize("error", ["SystemExit(0)", "EOFError()", "GeneratorExit()", "ValueError('odd')"])
@pytest.mark.parametrize("option", ["--operator mine.py:change", "--feature mine.py:Feature"])
def test_an_operator_or_feature_that_raises_is_2_with_its_file(odd: Shell, error: str, option: str) -> None:
    Path("mine.py").write_text(OWN.replace("ERROR", error))
    forget_files()
    result = odd.fuzz(*option.split(), "-o", "c")
    kind = error.partition("(")[0]
    assert result.code == 2
    assert result.err.startswith(f"lmfuzz: mine.py raised {kind}")
    assert "mine.py, line" in result.err
    assert result.err.count("\n") == 1


RATHER = """
class Rather:
    'Scores only some batches.'
    calls = 0

    def __call__(self, batch, trace):
        self.calls += 1
        if self.calls % 20 > LAST:
            raise ValueError("not today")
        return [FOUND] * len(batch)
"""


def _rather(sh: Shell, last: int, found: float, *more: str, model: str = "model.py:easy") -> tuple[int, str]:
    Path("rather.py").write_text(RATHER.replace("LAST", str(last)).replace("FOUND", str(found)))
    forget_files()
    result = sh.fuzz(
        "--objective", "rather.py:Rather", "-o", f"c{last}{found}{len(more)}", *more, model=model
    )
    return result.code, result.err


def test_many_unscored_inputs_are_2_unless_that_is_allowed(sh: Shell) -> None:
    code, err = _rather(sh, 1, -1.0)
    assert code == 2
    assert re.fullmatch(
        r"lmfuzz: nothing was found, but Rather left \d\d% of the inputs unscored \(ValueError: not today\):"
        r" fix it and run again, or accept it with --allow-unscored\n",
        err,
    )
    assert _rather(sh, 1, -1.0, "--allow-unscored") == (0, "")
    assert _rather(sh, 18, -1.0) == (0, ""), "a twentieth is tolerated"


def test_many_unscored_inputs_are_said_beside_findings(sh: Shell) -> None:
    code, err = _rather(sh, 1, 1.0)
    assert code == 1
    assert re.fullmatch(r"lmfuzz: Rather left \d\d% of the inputs unscored \(ValueError: not today\)\n", err)
    assert _rather(sh, 1, 1.0, "--allow-unscored") == (1, "")


def test_inputs_that_the_target_cannot_take_are_not_the_objectives(odd: Shell) -> None:
    code, err = _rather(odd, 20, -1.0, model="odd.py:picky")
    assert (code, err) == (0, "")
    assert "not scored by Rather: " in odd("show", "c20-1.00").out


def test_a_resumed_campaign_still_knows_what_was_not_scored(sh: Shell) -> None:
    _rather(sh, 1, -1.0)
    forget_files()
    Path("rather.py").write_text(RATHER.replace("LAST", "20").replace("FOUND", "-1.0"))
    result = sh("resume", "c1-1.00", "--budget", "3500x")
    assert result.code == 2
    assert "of the inputs unscored" in result.err


def test_a_detector_that_raises_on_every_input_is_refused_at_once(sh: Shell) -> None:
    Path("raises.py").write_text("import numpy as np\ndef raises(text):\n    return np.reshape(0, (7, 7))\n")
    forget_files()
    said = sh.refused("fuzz", "model.py:easy", "--seeds", "seeds.txt", "--objective", "raises.py:raises")
    assert said.startswith("the objective raises raises on every input: ValueError: cannot reshape")
    assert said.endswith("raises.py, line 3)")


def test_an_output_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = "fuzz", "model.py:fails", "-o"
    said = sh.refused(*fails, "seeds.txt/a/c")
    assert said.endswith("seeds.txt is a file; choose another with --output")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot create a/c: " in (said := sh.refused(*fails, "a/c"))
    assert said.endswith(" cannot be written to; choose another with --output")


def test_crash_need_not_be_named(sh: Shell) -> None:
    assert "always looked for" in sh.refused("fuzz", "model.py:fails", "--objective", "crash")


LONG = """
from lmfuzz.types import Evidence

class Long:
    'A long name.'
    def __call__(self, batch, trace):
        return [1.0] * len(batch)

    def evidence(self, batch, trace, row, column):
        return Evidence("\\n" * 150 + trace["text"][row] * 100, "words")
"""


def test_the_name_of_a_behaviour_is_cut(sh: Shell) -> None:
    Path("long.py").write_text(LONG)
    result = sh.fuzz("--objective", "long.py:Long", "-o", "c", "--keep", "1", budget="200x")
    assert max(map(len, result.out.splitlines())) < 500
    shown = sh("show", "c", "--json").out
    assert {len(bucket) for bucket in _buckets(shown)} == {len("Long: ") + 200}
    assert sh("replay", "c").code == 1
    assert sh("shrink", "c", "1").code == 0
