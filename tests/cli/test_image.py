"""Images, twins and functions on the command line, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_models import MODELS
from helpers.shell import Result, Shell, forget_files
from lmfuzz.storage.record import CampaignRecord

DETECTORS = """
class High:
    needs = {"value"}

    def __call__(self, batch, trace):
        return trace["value"] - 0.9
"""


@pytest.fixture
def shell(sh: Shell) -> Shell:
    Path("images.py").write_text(MODELS)
    Path("high.py").write_text(DETECTORS)
    forget_files()
    return sh


SEARCHES = ("boundary", "triggerfinder", "walk", "tensorfuzz", "random", "directed")


def differ(sh: Shell, *more: str, model: str = "images.py:few", twin: str = "round:4") -> Result:
    base = ("image", "diff", model, "--twin", twin, "--count", "20", "--budget", "20000x")
    return sh(*base, *more)


def test_labels_that_differ_are_found_shown_replayed_and_pictured(shell: Shell) -> None:
    done = differ(shell, "-o", "c", "--json")
    assert done.code == 1, done
    assert "the twin: 4 bits per tensor: 1 tensor of 1 Linear rounded" in done.out
    assert "noise floor of disagreement: " in done.out
    summary = json.loads(done.out.splitlines()[-1])
    trials = summary["trials"]
    assert trials["seeds"] == 20
    assert trials["solved"] == 20 - trials["natural"] > 0
    assert trials["mean_queries"] < 20
    assert summary["exit_reason"] == "done"
    record = CampaignRecord.read(Path("c"))
    found, rows = record.findings, record.rows
    assert len({finding.origin for finding in found}) == 20
    for number, finding in enumerate(found, start=1):
        with Image.open(f"c/pictures/{number}-input.png") as picture:
            pixels = np.asarray(picture).astype(np.float32)
        assert np.abs(pixels / 255 - finding.row[:, :, 0]).max() < 1e-6, "the picture is the input that ran"
        assert finding.distance == np.abs(finding.row - rows.row(finding.origin)).max()
        with Image.open(f"c/pictures/{number}.png") as picture:
            assert picture.height >= 160
    shown = shell("show", "c", "1").out
    assert f"from seed {found[0].origin} (L-infinity)" in shown
    assert "pictures    c/pictures/1.png" in shown
    assert "evidence    base: " in shown
    assert "; twin: " in shown
    again = shell("replay", "c", "1")
    assert again.code == 1
    assert "still fails" in again.out


def test_every_search_keeps_the_bound_and_goes_on_after_a_stop(shell: Shell) -> None:
    for search in (*SEARCHES, "diffchaser:population=50"):
        folder = search.partition(":")[0]
        more = ("--linf", "0.25", "--search", search, "--per-seed", "150", "-o", folder)
        stopped = differ(shell, *more, "--stop-after", "2", "--json")
        assert stopped.code == 1, stopped
        assert json.loads(stopped.out.splitlines()[-1])["exit_reason"] == "findings"
        done = shell("resume", folder, "--stop-after", "1000", "--json")
        assert json.loads(done.out.splitlines()[-1])["exit_reason"] == "done"
        whole = differ(shell, *more[:-1], f"{folder}-whole", "--json")
        before, after = (json.loads(each.out.splitlines()[-1])["trials"] for each in (done, whole))
        assert before == after, f"{search} goes on as if it had never stopped"
        record = CampaignRecord.read(Path(folder))
        assert all(finding.distance <= 0.25 + 1e-6 for finding in record.findings)


def test_overflow_is_found_from_images(shell: Shell) -> None:
    done = shell(
        "image", "nan", "images.py:hot", "--count", "5", "--budget", "30000x", "--stop-after", "1", "-o", "c"
    )
    assert done.code == 1, done
    assert "nonfinite" in done.out


def test_a_function_and_a_detector_of_ones_own(shell: Shell) -> None:
    done = shell(
        "fuzz",
        "images.py:saddle",
        "--objective",
        "high.py:High",
        "--budget",
        "20000x",
        "--stop-after",
        "1",
        "-o",
        "c",
    )
    assert done.code == 1, done
    record = CampaignRecord.read(Path("c"))
    (finding,) = record.findings
    assert finding.row.shape == (2,)
    assert finding.row[0] * finding.row[1] > 0.9
    assert not Path("c/pictures").exists()


def test_texts_that_part_within_few_edits(shell: Shell) -> None:
    few = ("--count", "30", "--max-new", "20", "--budget", "1500x", "--stop-after", "2", "-o", "c")
    sure = ("--objective", "disagreement:gap=0.1")
    done = shell("diff", "models:shakespeare", "--twin", "int4", "--edits", "2", *sure, *few)
    assert done.code == 1, done
    record = CampaignRecord.read(Path("c"))
    found, rows, space = record.findings, record.rows, record.space
    assert all(space.distance(f.row, rows.row(f.origin)) == f.distance <= 2 for f in found)
    assert "from seed" in shell("show", "c", "1").out


def test_what_is_wrong_is_said_in_one_sentence(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMFUZZ_DATA", raising=False)
    (tmp_path / "broken-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(10))
    (tmp_path / "magic").write_bytes(b"\0\0\x08\x01" + bytes(100))
    diff = ("image", "diff", "images.py:few", "-o", "new")
    texts = ("diff", "models:shakespeare", "--twin", "int8", "-o", "new")
    saddle = ("fuzz", "images.py:saddle", "--objective", "high.py:High", "-o", "new")
    labels = ("--objective", "divergence:of=labels")
    alone = ("image", "nan", "images.py:few", "-o", "new")
    for command, code, said in (
        ((*diff, "images.py:four"), 3, "the twin has 4 classes, its base 3"),
        ((*diff, "images.py:wide"), 3, "a pair needs the same in both"),
        ((*diff, "--twin", "int9"), 3, "neither a model nor a recipe int9; did you mean 'int8'?"),
        ((*diff, "images.py:few"), 3, "the twin is its base"),
        ((*diff, "--twin", "int8", "--linf", "5"), 2, "bounds nothing: values go from 0 to 1"),
        ((*diff, "--twin", "int8", "--objective", "divergence"), 2, "for images use disagreement"),
        ((*texts, "--search", "triggerfinder"), 2, "for texts use regression(OBJECTIVE)"),
        (("diff", "images.py:few", *texts[2:], *labels), 2, "takes images; the command for it is"),
        ((*alone[:2], texts[1], *texts[4:]), 2, "takes no images; the command for it is lmfuzz fuzz"),
        (("fuzz", "models:mnist/lenet1", "-o", "new"), 2, "repetition looks at texts"),
        ((*saddle[:1], "images.py:bare", *saddle[2:]), 3, "declare its box of legal values"),
        ((*diff, "--twin", "prune:0"), 2, "prune"),
        (("image", "diff", "images.py:rounded", "--twin", "round:4", "-o", "new"), 2, "changes"),
        ((*diff, "images.py:rounded", "--twin", "int8"), 2, "name the twin once"),
        (diff, 2, "name the twin once"),
        ((*diff, "--twin", "int8", "--linf", "0.001"), 2, "below the pixel step"),
        ((*diff, "--twin", "int8", "--seeds", "mnist"), 2, "LMFUZZ_DATA"),
        ((*diff, "--twin", "int8", "--seeds", "mnist", "--download"), 2, "set LMFUZZ_DATA to the folder"),
        ((*diff, "--twin", "int8", "--seeds", "broken-images-idx3-ubyte"), 2, "broken-images-idx3-ubyte"),
        ((*diff, "--twin", "int8", "--seeds", "magic"), 2, "magic"),
        ((*diff, "--twin", "int8", "--operator", "insert"), 2, "does not fit this model's inputs"),
        (("image", "nan", "images.py:training", "-o", "new"), 3, ".eval()"),
        (("image", "nan", "images.py:dropping", "-o", "new"), 3, "gives different logits each time"),
        ((*alone, "--objective", "disagreement"), 2, "the objectives need two models; add a twin"),
        ((*texts, "--search", "boundary"), 2, "take directed for texts"),
        (("fuzz", "models:shakespeare", "--linf", "0.1", "-o", "new"), 2, "prompts: use edits (--edits)"),
        ((*saddle, "--edits", "1"), 2, "this model takes images or numbers: use linf (--linf)"),
        (("image", "nan", "models:mnist/lenet", "-o", "new"), 3, "did you mean"),
    ):  # fmt: skip
        assert said in shell.refused(*command, code=code), command
