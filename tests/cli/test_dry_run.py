"""A dry run says what would be run, measures one batch, and writes nothing."""

from pathlib import Path

import pytest

from helpers.shell import Shell
from lmfuzz.budget import Budget
from lmfuzz.inputs.bundled import resource

LINES = ("model", "weights", "seeds", "objectives", "operators", "search", "settings", "budget", "directory")


def planned(sh: Shell, *arguments: str) -> dict[str, str]:
    """What a dry run says, by the first word of each line; nothing may be left of it."""
    before = {path for path in Path().rglob("*") if "__pycache__" not in str(path)}
    done = sh(*arguments, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert {path for path in Path().rglob("*") if "__pycache__" not in str(path)} == before
    lines = [line for line in done.out.splitlines() if not line.startswith("lmfuzz: ")]
    assert [line.split()[0].rstrip(":") for line in lines] == [*LINES, "measured"]
    return {line.split()[0].rstrip(":"): line.split(maxsplit=1)[1] for line in lines}


def test_a_dry_run_says_everything_and_writes_nothing(sh: Shell) -> None:
    said = planned(sh, "fuzz", "--budget", "3000x", "--stop-after", "2", "--batch", "16", "-o", "c")
    assert said["model"].startswith("the bundled model, identity ")
    assert said["weights"] == "280,897 in torch.float32 on cpu"
    assert said["seeds"] == "289, from the default"
    assert said["objectives"].startswith("repetition, phrases:file=corpora:words/blacklist.txt, with ")
    assert "splice" in said["operators"]
    assert said["search"] == "directed in hidden_last, seed 0"
    assert {"max_length 64", "batch 16", "max_new 50", "device cpu"} <= set(said["settings"].split(", "))
    assert said["budget"] == "3000x, or 2 findings"
    assert said["directory"] == "c"
    assert said["measured"].startswith("16 rows in ")
    assert "rows/s; that allows 3000 rows in " in said["measured"]


def test_a_dry_run_of_a_time_says_how_many_rows_it_allows(sh: Shell) -> None:
    said = planned(sh, "fuzz", "model.py:easy", "--seeds", "seeds.txt", "--budget", "1h")
    assert said["weights"] == "not known"
    assert said["seeds"] == "4, from seeds.txt"
    assert said["measured"].startswith("64 rows in ")  # seeds repeat until the batch is full
    rate, rows = (float(said["measured"].split(word)[0].split()[-1].replace(",", "")) for word in
                  (" rows/s", " rows in 1h"))  # fmt: skip
    assert rows == pytest.approx(rate * (Budget.parse("1h").seconds or 0), rel=0.05)
    assert said["directory"].startswith("runs/")


def test_twins_and_images_have_dry_runs(sh: Shell) -> None:
    model = str(resource("models:shakespeare"))
    said = planned(sh, "diff", model, "int8", "--seeds", "text:to be", "--max-new", "8")
    assert said["model"].startswith(f"{model} and int8, identity ")
    assert said["weights"].count("280,897") == 2
    said = planned(sh, "image", "nan", str(resource("models:mnist/lenet1")))
    assert said["weights"].startswith("7,206 in ")
    assert said["settings"] == "batch 64"


def test_a_dry_run_refuses_what_a_run_would_refuse(sh: Shell) -> None:
    assert "no weights here" in sh.refused("fuzz", "model.py:fails", "--dry-run", code=3)
    assert "raises on every row" in sh("fuzz", "model.py:dead", "--dry-run").err
    sh.fuzz("-o", "c", budget="100x")
    assert "already holds a campaign" in sh.refused("fuzz", "-o", "c", "--dry-run")


def test_a_dry_run_prints_no_json(sh: Shell) -> None:
    assert "leave out --json" in sh.refused("fuzz", "--dry-run", "--json")
