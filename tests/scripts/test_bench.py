"""The benchmark's machinery, on settings so small that its values mean nothing."""

import json
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts" / "bench"
ENVIRONMENT = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")

import torch  # noqa: E402

from benchmarks import batches, causal, causal_models, jobs, ties, words  # noqa: E402
from benchmarks.figures import FIGURES, Options, Wrong  # noqa: E402
from benchmarks.speed import Slice, outside  # noqa: E402

KEYS = [
    "overhead_share", "campaign_vs_bare", "inplace_vs_naive", "archive_share_100k", "help_seconds",
    "memory_growth_mb", "words_directed", "words_tensorfuzz", "words_walk", "words_random",
    "causal_vs_generate", "causal_vs_generate_mixed", "causal_overhead_share", "batch_changes",
    "token_scan_per_second", "shrink_ratio", "shrink_executions", "shrink_minimal", "distil_seconds",
    "sweep_resume", "report_seconds", "module_known", "module_state", "module_causal", "module_gap",
    "report_mb",
]  # fmt: skip


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k != "LMFUZZ_DATA"}
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments], capture_output=True, text=True, env=known | environment
    )


def a_text(folder: Path) -> Path:
    """A text in the bundled model's alphabet with fifteen words that no model would write."""
    lines = (ROOT / "corpora" / "seeds" / "plays.txt").read_text().splitlines()
    odd = [f"qz{a}{b}x" for a in "abcde" for b in "fgh"]
    path = folder / "text" / "tinyshakespeare.txt"
    path.parent.mkdir()
    path.write_text("\n".join([*odd, *lines, *lines]))
    return path


def test_all_figures_are_measured_and_named() -> None:
    done = bench("--quick", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    values = json.loads(done.stdout.splitlines()[-1])
    assert list(values) == KEYS == list(FIGURES)
    assert 0 < values["overhead_share"] < 1
    assert all(values[key] > 0 for key in KEYS[1:5])
    assert abs(values["memory_growth_mb"]) < 100
    assert [values[key] for key in KEYS[6:10]] == [None] * 4  # no training text
    assert all(values[key] > 0 for key in KEYS[10:12])
    assert 0 < values["causal_overhead_share"] < 1
    assert values["batch_changes"] == 0
    assert "tokens equal to generate's in 8 rows" in done.stdout
    assert values["token_scan_per_second"] > 0
    assert all(values[key] > 0 for key in ("module_known", "module_state", "module_causal"))
    assert "LMFUZZ_DATA" in done.stdout
    assert "tokens equal" in done.stdout
    assert "all decisions equal to exact ones" in done.stdout


def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ENVIRONMENT:  # the script sets them; this puts them back
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    loader = SourceFileLoader("bench", str(BENCH))
    spec = spec_from_loader("bench", loader)
    assert spec is not None
    script = module_from_spec(spec)
    loader.exec_module(script)
    for arguments, sentence in (
        (["--only", "overhead_shar"], "did you mean 'overhead_share'?"),
        (["--only", "help_seconds,words_walks"], "did you mean 'words_walk'?"),
        (["--only", ","], "--only needs figures"),
        (["--text", "missing.txt"], "there is no file missing.txt"),
        (["--words-budget", "500x"], "is not a time"),
        (["--words-budget", "soon"], "neither a time"),
        (["--trials", "0"], "at least 1"),
        (["--model", "missing"], "no folder with a config.json"),
    ):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        assert script.main() == 2
        out, err = capsys.readouterr()
        assert sentence in err
        assert out == ""


def test_words_are_counted_compared_and_not_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "scripts"), str(ROOT)]))
    log = tmp_path / "trials.jsonl"
    options = Options(True, a_text(tmp_path), log, words_budget="0.5s", trials=1, jobs=2)
    keys = ["words_directed", "words_random"]
    apart = words.apart

    def partly(module: str, record: dict[str, Any], name: str) -> words.Trial:
        search, number = record["search"], record["trial"]
        if search == "directed":
            return apart(module, record, name)
        return words.trial(words.Task(**record["task"]), search, number)  # the same, but faster

    monkeypatch.setattr(words, "apart", partly)
    done = words.measure(keys, options)
    assert {key: one.value for key, one in done.items()} == {"words_directed": 0, "words_random": 0}
    assert "directed against it: A12 0.50, all trials alike" in done["words_random"].lines
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((r["search"], r["trial"]) for r in records) == [("directed", 0), ("random", 0)]
    assert all(r["executions"] > 0 and r["seconds"] >= 0.5 for r in records)
    # What the log says counts now, and nothing is run again.
    better = {"found": 7, "words": {"zounds": 3.0}}
    changed = [r | better if r["search"] == "directed" else r for r in records]
    log.write_text("".join(json.dumps(r) + "\n" for r in changed))
    before = log.read_text()
    again = words.measure(keys, options)
    assert {key: one.value for key, one in again.items()} == {"words_directed": 7, "words_random": 0}
    assert "A12 1.00" in again["words_random"].lines[-1]
    assert any("zounds (3 s)" in line for line in again["words_directed"].lines)
    assert log.read_text() == before


def test_a_trial_hears_the_words_that_the_model_writes() -> None:
    prompts = ["I pray you, sir, what", "My lord, I", "What news from", "O, you"]
    found = words.trial(words.Task(["shall", "qzqzq"], "2000x", "", prompts, 4), "random", 0)
    assert found["found"] == 1
    assert list(found["words"]) == ["shall"]


def test_words_are_rare_in_the_training_part_and_in_no_output(tmp_path: Path) -> None:
    text = a_text(tmp_path).read_text()
    spared = "quxquxqux"  # stands in the last tenth alone
    task, eligible = words.task(text + f"\n{spared} " * 3, Options(quick=True))
    training = words.words_in(text)
    assert eligible >= len(set(task.words)) == words.WORDS
    assert spared not in task.words
    assert all(len(word) >= 4 and training.count(word) in words.RARE for word in task.words)
    assert words.task(text + f"\n{spared} " * 3, Options(quick=True))[0] == task


def test_every_search_meets_every_neighbour() -> None:
    order = words.schedule(words.SEARCHES, 3)
    assert sorted(order) == sorted((search, n) for search in words.SEARCHES for n in range(3))
    assert [number for _, number in order] == [0] * 4 + [1] * 4 + [2] * 4
    beside = {frozenset((order[i][0], order[i + 1][0])) for i in range(0, len(order), 2)}
    assert {frozenset(("directed", other)) for other in words.SEARCHES[1:]} <= beside


def test_a_log_of_another_task_or_cut_short_is_no_answer(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"search": "walk", "trial": 0, "found": 3, "task": {"budget": "5m"}}\n{"search": "wa')
    kept = {"search": "walk", "trial": 0, "found": 3, "task": {"budget": "5m"}}
    assert jobs.logged(log) == [kept]
    assert jobs.logged(tmp_path / "none") == jobs.logged(None) == []
    tasks = [("one", {"budget": "5m"})]
    assert jobs.run_all("no.such.module", tasks, "task", log, 1) == [kept]
    assert jobs.run_all("no.such.module", [("two", {"budget": "4m"})], "task", log, 1) == [None]


def test_comparison() -> None:
    ours, theirs = ([{"found": n} for n in counts] for counts in ((5, 6, 7, 8, 9), (0, 1, 2, 3, 4)))
    assert words.compared(ours, theirs) == "directed against it: A12 1.00, Mann-Whitney p 0.008"
    assert "A12 0.00" in words.compared(theirs, ours)


def test_texts_that_part_are_ties_only_where_noise_is_larger_than_the_gap() -> None:
    logits = torch.tensor([0.0, 1.0, 3.0, 0.5]).repeat(3, 4, 1)  # steps, rows, vocabulary
    others = logits.clone()
    tokens = logits.argmax(dim=2)
    changed = tokens.clone()
    logits[1, 1, 1] = 2.9999  # nearly a tie, and noise turns it around
    others[1, 1] = logits[1, 1] + torch.tensor([0.0, 1e-4, -1e-4, 0.0])
    logits[2, 2, 1] = 2.9  # more apart than noise
    others[2, 2] = logits[2, 2] + 1e-6
    others[0, 3, 1] += 2.5  # as much as there is: this is no noise
    changed[1, 1] = changed[2, 2] = changed[0, 3] = 1
    changed[2, 1] = 3  # behind a parting nothing counts
    parted, noise = ties.partings(tokens, changed, logits, others, torch.float32)
    assert [(one.row, one.step, one.tied) for one in parted] == [(1, 1, True), (2, 2, False), (3, 0, False)]
    assert parted[0].gap == pytest.approx(1e-4, rel=0.01)
    assert noise == 2.5
    assert ties.partings(tokens, tokens, logits, logits, torch.float32) == ([], 0.0)
    ended = tokens.clone()
    ended[1:, 0] = -1  # an end of text, and noise behind it
    others = logits.clone()
    others[2, 0] += 1.0
    assert ties.partings(ended, ended, logits, others, torch.float32) == ([], 0.0)


def test_partings_are_told() -> None:
    some = [ties.Parting(row, 5, 1e-7, 1e-6, 1e-3) for row in range(4)]
    words = batches.told("m", 10, 3, [*some, ties.Parting(9, 0, 0.5, 1e-6, 1e-3)], 1e-6)
    assert "of 10 rows 3 change their text, 5 their tokens" in words
    assert words.count("a tie") == batches.SHOWN
    assert words.endswith("and 2 more, 1 of them ties")


def test_ratios_of_slices() -> None:
    slices = [
        Slice(2.0, 1.9, 0.0, other, 32.0, drawn, 64) for other, drawn in ((4, True), (6, False), (8, True))
    ]
    assert causal.told(slices) == "3.00x (2.00x to 4.00x in 3 slices), 32 against 10.7 prompts/s"
    value, lines = outside(slices)
    assert value == pytest.approx(0.05)
    assert "5.00 % to 5.00 % in 2 slices" in lines[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_a_sentence() -> None:
    with (
        pytest.raises(Wrong, match="there is no CUDA device here"),
        causal_models.subjects(Options(quick=True, device="cuda")),
    ):
        pass
