"""The script that runs the published experiments: cells, figures, and wrong usage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
from reproduction import experiments, tables  # noqa: E402
from reproduction.cells import GAPLESS, Cell, gap, run  # noqa: E402
from reproduction.experiments import Sizes  # noqa: E402

PAIR = {
    "model": "models:mnist/lenet1", "twin": "int4", "count": 12, "objectives": ["disagreement"],
    "per_seed": 300, "confirm": 1, "keep": 1, "batch": 12, "budget": "100h",
    "feature": 'channels:names=["base/probabilities","twin/probabilities"],radius=0.7071',
}  # fmt: skip


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k != "LMFUZZ_DATA"}
    command = [sys.executable, str(ROOT / "scripts" / "reproduce_papers"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=known | environment)


def record(
    search: str, found: list[bool], queries: list[int], case: str = "net tflite", **more: object
) -> dict:
    cell = {"experiment": "twins", "case": case, "search": search}
    return {"cell": cell, "natural": 0, "found": found, "queries": queries, "distance": []}


def test_a_cell_says_what_became_of_every_seed() -> None:
    for search in ("boundary", "walk"):
        done = run(Cell("twins", "lenet1 int4", search, "seeds", {**PAIR, "search": search}))
        assert len(done["found"]) == len(done["queries"]) == len(done["distance"]) == 12 - done["natural"]
        assert done["executions"] >= sum(done["queries"])
        if search == "boundary":
            assert all(done["found"])


def test_a_first_finding_is_counted_in_mutants() -> None:
    spec = {**PAIR, "per_seed": None, "search": "walk", "budget": "4000x"}
    done = run(Cell("nan", "lenet1 int4", "walk", "first", spec))
    assert done["found"] == [True]
    assert 0 < done["queries"][0] < 4000


def test_gaps_are_those_at_partings(tmp_path: Path) -> None:
    trace = {"parting": np.array([1, -1]), "base_gap": np.array([[9.0, 2.5], [9, 9]])}
    assert gap(None, trace).tolist() == [2.5 - GAPLESS, -np.inf]
    prompts = tmp_path / "prompts.jsonl"
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "corpora" / "seeds" / "plays.txt").read_text(encoding="utf-8") * 4)
    experiments.write_prompts(text, 6, prompts)
    sizes = Sizes(text_trials=1, text_budget=200)
    cells = list(experiments.text_twins(sizes, prompts))
    assert {cell.case.partition(",")[0] for cell in cells} == set(experiments.TEXT_TWINS)
    (cell,) = [c for c in cells if (c.case, c.search) == ("int4", "walk")]
    done = run(Cell(cell.experiment, cell.case, cell.search, cell.kind, {**cell.spec, "max_new": 30}))
    assert len(done["found"]) == 6
    assert any(done["found"])
    assert 0 < done["gaps"][0] < 20


def test_figures_are_shares_medians_and_ratios() -> None:
    records = [
        record("boundary", [True] * 4, [2, 3, 4, 5]),
        record("triggerfinder", [True, True, True, False], [50, 60, 70, 999]),
        record("walk", [True] * 4, [40, 50, 60, 70]),
        record("diffchaser", [True] * 2, [4000]) | {"queries": [4000, 6000]},
    ]
    found = tables.arms(records)
    figures = tables.summary("twins", found)
    assert figures["boundary_found_share"] == 1
    assert figures["triggerfinder_found_share"] == 0.75
    assert figures["boundary_median_queries"] == 3.5
    assert figures["triggerfinder_median_queries"] == 65
    assert figures["diffchaser_over_triggerfinder"] == pytest.approx(5000 / 65, abs=1e-3)
    assert figures["boundary_over_best"] == pytest.approx(3.5 / 55, abs=1e-3)
    assert figures["diffchaser_over_triggerfinder_means"] == pytest.approx(5000 / 60, abs=1e-3)
    table = tables.markdown(found).splitlines()
    assert len(table) == 2 + len(records)
    assert "| twins | net tflite | triggerfinder | 4 | 3 (75%) | 65 |" in table[3]
    assert table[4].endswith("| 1.00 | 0.029 |"), "the walk needs more queries each time"
    assert json.loads(json.dumps(figures)) == figures


def test_the_sizes_of_a_quick_run_are_a_tenth() -> None:
    whole, quick = Sizes(), Sizes.quick()
    assert (whole.twin_seeds, quick.twin_seeds) == (300, 30)
    assert len(list(experiments.twins(quick))) == len(list(experiments.twins(whole)))
    assert all(cell.spec["linf"] == 0.1 for cell in experiments.twins(quick, linf=0.1))


def test_wrong_usage() -> None:
    done = script("--only", "twin")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'twins'?" in done.stderr
    done = script("--only", "twins")
    assert (done.returncode, done.stdout) == (2, "")
    assert "set LMFUZZ_DATA" in done.stderr
