"""Replay on another version of the model: what still fails, what newly fails, and what cannot be judged."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers import small_lms
from helpers.shell import SEEDS, Shell, forget_files
from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay
from lmfuzz.analysis.verdict import verdict_line
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.toy import Toy
from lmfuzz.types import Batch, Evidence, Reruns, Trace

OTHERS = """
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.targets.toy import Toy
from lmfuzz.types import Batch

class Spelled(Toy):
    '''The easy toy with an alphabet of its own, which begins with other letters.'''

    def __init__(self, letters):
        super().__init__(phrase_key="xyz", loop_key="vk")
        self.identity, self.inner = f"spelled-{letters}", self.space
        self.space = TextSpace(tuple(letters), 1, 32)

    def run(self, batch, wants):
        return super().run(Batch.of([self.inner.encode(text) for text in self.space.texts(batch)]), wants)

def shuffled():
    return Spelled("zyxwvutsrqponmlkjihgfedcba .,")

def lacking():
    return Spelled("zyxwvutsrponmlkjihgfedcba .,")  # no q

class Pinging(Toy):
    '''The easy toy, which says something else.'''

    def __init__(self):
        super().__init__(phrase_key="xyz", loop_key="vk")
        self.identity, self.runs = "pinging", 0

    def run(self, batch, wants):
        trace = dict(super().run(batch, wants))
        self.runs += len(batch)
        for i, text in enumerate(trace["text"]):
            trace["text"][i] = f"so: {text.replace('tick tock', 'ping ping')}"
        return trace

def fading():
    class Fading(Pinging):
        def run(self, batch, wants):
            trace = super().run(batch, wants)
            if self.runs % 4 == 0:  # the fourth run of a finding is the last
                trace["text"][:] = "nothing, x" + str(self.runs)
            return trace
    return Fading()

def greek():
    return Spelled("\\u03b1\\u03b2")

def narrow():
    return type("Narrow", (), {"space": TextSpace(tuple(" abcdefghijklmnopqrstuvwxyz,.\\n"), 1, 12),
        "channels": frozenset({"text"}), "identity": "narrow", "run": lambda self, b, w: Toy().run(b, w)})()

def numbers():
    return type("Box", (), {"space": BoxSpace((2,)), "channels": frozenset({"text"}), "identity": "box",
        "run": lambda self, b, w: {}})()
"""


@pytest.fixture
def campaign(sh: Shell) -> Callable[..., str]:
    """A campaign on the model of that name; two seeds hold the key of the easy one."""
    Path("seeds.txt").write_text(SEEDS + "vk is here\nand vk is there\n")
    Path("others.py").write_text(OTHERS)

    def made(model: str, *more: str, budget: str = "400x") -> str:
        sh.fuzz("--search", "random", "-o", "c", *more, model=model, budget=budget)
        return "c"

    return made


def test_seeds_that_passed_and_fail_now_newly_fail(sh: Shell, campaign: Callable[..., str]) -> None:
    campaign("model.py:other")
    done = sh("replay", "c", "--model", "model.py:easy", "--junit", "r.xml", "--sarif", "r.sarif")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == "lmfuzz: the model differs from the one that these were found on"
    assert lines[1].startswith('seed 4: newly fails, repetition: loop: "vk is here" -> ">>>tick ')
    assert lines[2].startswith("seed 5: newly fails, ")
    assert lines[3] == "6 seeds: 0 still failing, 2 newly failing"
    suites = ElementTree.parse("r.xml").getroot()
    assert [suite.attrib["name"] for suite in suites] == ["lmfuzz findings", "lmfuzz seeds"]
    assert [suite.attrib["failures"] for suite in suites] == ["0", "2"]
    assert suites[1].attrib["tests"] == "6"
    (run,) = json.loads(Path("r.sarif").read_text())["runs"]
    assert [result["baselineState"] for result in run["results"]] == ["new", "new"]
    assert run["properties"] == {"model": "model.py:easy", "identity": "toy-40-xyz-vk"}
    verdicts = json.loads(sh("replay", "c", "--model", "model.py:easy", "--json").out)["verdicts"]
    assert [(v["verdict"], v["seed"], v["failed"]) for v in verdicts] == [("newly fails", True, 3)] * 2
    assert sh("replay", "c", "--model", "model.py:other").code == 0
    assert "no folder absent to" in sh.refused(
        "replay", "c", "--model", "model.py:easy", "--junit", "absent/x"
    )
    assert sh("replay", "c").code == 0, "without another model the seeds are no matter"


def test_reports_of_another_model_show_what_that_one_does(sh: Shell, campaign: Callable[..., str]) -> None:
    campaign("model.py:easy", "--keep", "1", "--shrink", budget="600x")
    recorded = json.loads(sh("show", "c", "1", "--json").out)
    done = sh("replay", "c", "1", "--model", "others.py:Pinging", "--junit", "r.xml", "--sarif", "r.sarif")
    assert done.code == 1
    old, new = recorded["bucket"], "repetition: word"
    assert old == "repetition: loop"
    line = done.out.splitlines()[1]
    assert line.startswith(f"finding 1: still fails, {old}, now {new}: ")
    assert ' -> "so: >>>ping' in line
    (case,) = ElementTree.parse("r.xml").getroot().iter("testcase")
    assert case.attrib["name"] == f"finding 1: {old}", "its name is the same from replay to replay"
    (failure,) = case
    assert f"still fails, now {new}: " in failure.attrib["message"]
    details = dict(line.split(maxsplit=1) for line in (failure.text or "").split("\n"))
    assert details["bucket"] == new
    assert details["output"].startswith('"so: >>>ping')
    assert "ping" in details["evidence"]
    assert "tick" not in details["output"] + details["evidence"]
    assert "minimal" not in details, "nobody ran that on this model"
    (run,) = json.loads(Path("r.sarif").read_text())["runs"]
    (result,) = run["results"]
    about = result["properties"]
    assert (about["bucket"], about["output"][:4]) == (new, "so: ")
    assert "ping" in about["evidence"]
    sh("replay", "c", "1", "--sarif", "r.sarif", "--junit", "r.xml")
    (same,) = json.loads(Path("r.sarif").read_text())["runs"][0]["results"]
    assert same["partialFingerprints"] == result["partialFingerprints"]
    assert same["properties"]["output"] == recorded["output"]
    assert "\nminimal   " in Path("r.xml").read_text()
    (verdict,) = json.loads(sh("replay", "c", "1", "--model", "others.py:Pinging", "--json").out)["verdicts"]
    assert (verdict["bucket"], verdict["finding"]) == (new, recorded)
    assert verdict["evidence"]["span"][0] == len("so: ")


def test_a_last_run_that_passes_has_no_bad_part(sh: Shell, campaign: Callable[..., str]) -> None:
    directory = campaign("model.py:easy", "--keep", "1", budget="600x")
    recorded = Recorded.of(CampaignRecord.read(Path(directory)), 1)
    again = Replay(replace(recorded, seeds=[]), "others.py:fading")
    (verdict,) = again
    assert (verdict.again, verdict.evidence, verdict.moved) == (Reruns(3, 0, 0), None, "")
    assert verdict.now.evidence == Evidence("loop", "", variant="' tick tock'")
    assert verdict_line(verdict).endswith(' -> "nothing, x4"')


def test_seeds_that_failed_already_are_not_new(sh: Shell, campaign: Callable[..., str]) -> None:
    campaign("model.py:easy", "--keep", "1", budget="600x")
    found = sh("replay", "c", "--model", "model.py:easy")
    assert found.code == 1
    assert "newly" not in found.out
    failing = [line for line in found.out.splitlines() if line.startswith("seed ")]
    assert failing
    assert all(": still fails, repetition: " in line for line in failing)
    fixed = sh("replay", "c", "--model", "model.py:other")
    assert fixed.code == 0
    assert fixed.out.splitlines()[-1] == "1 finding: 0 still failing; 5 seeds: 0 still failing"
    assert "seed" not in sh("replay", "c", "1", "--model", "model.py:easy").out


def test_a_model_that_is_gone_leaves_in_doubt_whether_seeds_are_new(
    sh: Shell, campaign: Callable[..., str]
) -> None:
    Path("old.py").write_text(Path("model.py").read_text())
    campaign("old.py:other")
    Path("old.py").unlink()
    forget_files()
    done = sh("replay", "c", "--model", "model.py:easy")
    assert done.code == 1
    assert "seed 4: fails, unknown since when (there is no file old.py), repetition: " in done.out
    assert done.out.splitlines()[-1].endswith("6 seeds: 0 still failing, 2 failing, unknown since when")
    assert "there is no file old.py" in sh.refused("replay", "c", code=3)


def test_rows_are_spelled_anew_for_another_alphabet(sh: Shell, campaign: Callable[..., str]) -> None:
    campaign("model.py:easy")
    same = sh("replay", "c", "--model", "others.py:shuffled")
    assert same.code == 1
    assert same.out.splitlines()[1] == (
        "lmfuzz: its alphabet or tokenizer differs too: inputs are built again from their texts"
    )
    numbers = [line for line in same.out.splitlines() if line.startswith("finding ")]
    judged = [line for line in numbers if "could not be judged" not in line]
    assert judged
    assert all("still fails" in line for line in judged), "the same texts do the same"
    lacking = sh("replay", "c", "--model", "others.py:lacking")
    assert lacking.code == 1
    words = "could not be judged (character 'q' is not in the model's alphabet)"
    assert f'seed 0: {words}: "the quick brown fox" -> ""' in lacking.out
    assert "1 not judged" in lacking.out.splitlines()[-1]
    narrow = sh("replay", "c", "--model", "others.py:narrow").out
    assert 'seed 0: could not be judged (it has 19 symbols, but the model takes at most 12): "' in narrow


def test_tokens_are_spelled_anew_by_another_tokenizer(sh: Shell, tmp_path: Path) -> None:
    small_lms.save(tmp_path / "merged")
    file = small_lms.save(tmp_path / "bytes") / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"] = []
    file.write_text(json.dumps(tokenizer))
    Path("own.py").write_text(
        "def own(batch, trace):\n    return [1.0 if 'O' in p else -1.0 for p in trace['prompt']]\n\n"
        "own.needs = {'prompt', 'text'}\n"
    )
    Path("seeds.txt").write_text("How now\nO, the moon\nO speak again, the stars\n")
    begun = sh(
        "fuzz", "merged", "--level", "token", "--max-new", "4", "--max-length", "64", "--seeds", "seeds.txt",
        "--objective", "own.py:own", "--keep", "8", "--batch", "8", "--budget", "60x", "-o", "c",
    )  # fmt: skip
    assert begun.code == 1, begun.err
    recorded = Recorded.of(CampaignRecord.read(Path("c")))
    again = Replay(recorded, "bytes")
    assert again.respelled
    for verdict in again:
        text, row = recorded.texts[verdict.number], recorded.findings[verdict.number].row
        assert verdict.words == "still fails", verdict.why
        spelled = again._fitted(row, text)
        assert again._space.decode(spelled) == text
        assert len(spelled) == len(text.encode()) > len(row)
    assert not Replay(recorded, "merged").respelled


def test_a_model_that_takes_none_of_the_rows_is_refused_in_a_sentence(
    sh: Shell, campaign: Callable[..., str]
) -> None:
    campaign("model.py:easy")
    none = "the model cannot be given any of the campaign's inputs: "
    for model, sentence in {
        "others.py:greek": f"{none}character 'v' is not in the model's alphabet",
        "others.py:numbers": "others.py:numbers takes numbers, but the campaign's inputs are texts; ",
    }.items():
        assert sh.refused("replay", "c", "--model", model).startswith(sentence)
    assert "there is no checkpoint folder absent" in sh.refused("replay", "c", "--model", "absent", code=3)
    assert "the target raises on every row" in sh.refused("replay", "c", "--model", "model.py:dead", code=3)
    assert "both name r.xml" in sh.refused("replay", "c", "--junit", "r.xml", "--sarif", "./r.xml")
    Path("own.py").write_text("def never(batch, trace):\n    return [-1.0] * len(batch)\n")


def test_tokens_that_were_needed_are_not_judged_by_their_text(
    sh: Shell, campaign: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded.of(CampaignRecord.read(Path(campaign("model.py:easy"))))
    needed = {n: replace(f, by_text=n % 2 == 1) for n, f in recorded.findings.items()}
    again = Replay(replace(recorded, findings=needed), "others.py:shuffled")
    for verdict in again:
        why = "its text alone did not fail, and the model has another tokenizer"
        assert (verdict.why == why) == (verdict.number % 2 == 0)


def test_a_seed_that_could_not_be_judged_before_is_no_matter(sh: Shell, campaign: Callable[..., str]) -> None:
    class Silent(Toy):
        """Crashes on what holds a q."""

        def run(self, batch: Batch, wants: frozenset[str]) -> Trace:
            if (batch.data == self.space.encode("q")[0]).any():
                raise ValueError("no q")
            return super().run(batch, wants)

    Path("own.py").write_text(
        "def own(batch, trace):\n    return [float('nan') if 'q' in p else -1.0 for p in trace['prompt']]\n\n"
        "own.needs = {'prompt', 'text'}\n"
    )
    campaign("model.py:other", "--objective", "own.py:own")
    recorded = Recorded.of(CampaignRecord.read(Path("c")))
    assert list(Replay(recorded, "model.py:easy").seeds()) == [], "the old model could not be judged either"
    original = Replay(recorded)
    again = Replay(recorded, "model.py:easy")
    again._evaluator.executor.target = Silent()
    (verdict,) = again.seeds()
    assert verdict.finding.objective == "crash"
    assert verdict.words == "newly fails"
    assert verdict.again == Reruns(3, 0, 0)
    assert np.array_equal(recorded.seeds[verdict.number][0], original.recorded.seeds[0][0])
