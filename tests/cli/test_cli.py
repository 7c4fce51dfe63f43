"""The command line as a user meets it: exit codes, sentences, and the last line for machines."""

import errno
import json
import re
import sqlite3
from pathlib import Path

import pytest

import lmfuzz
from helpers.shell import MODEL, Result, Shell, forget_files
from lmfuzz.cli import searching
from lmfuzz.errors import DiskError
from lmfuzz.storage import store as stores
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import Store
from lmfuzz.text import plural


def test_findings_are_shown_and_summed_up(sh: Shell) -> None:
    done = sh.fuzz(
        "--objective",
        "repetition",
        "--objective",
        'phrases:words=["sesame"]',
        "-o",
        "c",
        "--json",
        budget="12000x",
    )
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0] == 'lmfuzz: model model.py:easy, 4 seeds, repetition, phrases:words=["sesame"]; seed 0'
    assert lines[1].startswith("lmfuzz: radius ")
    assert "noise" in lines[1]
    assert "the campaign is in c" in lines
    assert "look at one with: lmfuzz show c 1" in lines
    summary = json.loads(lines[-1])
    assert list(summary) == [
        "executions", "calibration_executions", "seconds", "executions_per_second",
        "time_in_target", "corpus_size", "archive_size",
        "archived_hits", "seeds", "novelty_rate", "stability", "findings", "known",
        "trials", "unwritten", "unscored", "errors",
        "exit_reason", "directory",
    ]  # fmt: skip
    shown = [line for line in lines if line.startswith("lmfuzz: finding ")]
    assert len(shown) == sum(b["kept"] for buckets in summary["findings"].values() for b in buckets.values())
    assert set(summary["findings"]) == {"repetition", "phrases/sesame"}
    assert summary["exit_reason"] == "executions"

    table = sh("show", "c")
    assert table.code == 0
    assert [line for line in table.out.splitlines() if line.startswith("finding ")] == [
        line.removeprefix("lmfuzz: ") for line in shown
    ]
    everything = json.loads(sh("show", "c", "--json").out)
    records = everything.pop("records")
    assert everything == summary
    assert [record["number"] for record in records] == list(range(1, len(shown) + 1))
    assert json.loads(sh("show", "c", "1", "--json").out) == records[0]
    assert {"bucket", "label", "prompt", "output", "evidence", "margin", "row"} < set(records[0])
    one = sh("show", "c", "1")
    assert one.code == 0
    assert one.out.splitlines()[-1] == "replay it with: lmfuzz replay c 1"
    again = sh("replay", "c", "1")
    assert again.code == 1
    assert again.out.startswith("finding 1: still fails, ")
    first = next(line for line in table.out.splitlines() if line.startswith("finding 1, "))
    assert again.out.rstrip("\n").partition(" -> ")[2] == first.partition(" -> ")[2]
    assert ">>>" in first
    verdicts = json.loads(sh("replay", "c", "--json").out)["verdicts"]
    assert [verdict["finding"] for verdict in verdicts] == records
    assert {verdict["verdict"] for verdict in verdicts} == {"still fails"}
    every = sh("replay", "c")
    assert every.out.count("still fails") == len(shown)
    Path("model.py").write_text(MODEL.replace('phrase_key="xyz", loop_key="vk"', ""))
    forget_files()
    fixed = sh("replay", "c")
    assert fixed.code == 0
    assert fixed.out.splitlines()[0] == "lmfuzz: the model differs from the one that these were found on"
    assert fixed.out.count(": fixed, ") == len(shown)


def test_nothing_found_is_0_and_enough_found_ends_it(sh: Shell) -> None:
    none = sh.fuzz("--objective", "own.py:quits", "--search", "random", "-o", "none", budget="1200x")
    assert none.code == 0
    assert "nothing was found" in none.out
    assert sh("replay", "none") == Result(0, "lmfuzz: none has no findings\n", "")
    assert (
        sh("show", "none", "1").err == "lmfuzz: the campaign in none has no finding 1; it has no findings\n"
    )
    enough = sh.fuzz("--stop-after", "1", "-o", "one", "--json", budget="1h")
    assert enough.code == 1
    assert json.loads(enough.out.splitlines()[-1])["exit_reason"] == "findings"
    assert "has reached 1 finding; resume it with a larger stop_after" in sh("resume", "one").err


RAISES = """
calls = []

def raises(batch, trace):
    calls.append(len(batch))
    if len(calls) > 2:  # the campaign tries it twice before it begins
        raise ValueError('no luck')
    return [float("nan")] * len(batch)
"""


def test_a_detector_that_never_scored_a_row_is_2(sh: Shell) -> None:
    Path("raises.py").write_text(RAISES)
    result = sh.fuzz("--objective", "raises.py:raises", "-o", "c", budget="100x")
    assert result.code == 2
    assert result.err == (
        "lmfuzz: nothing was found, but raises never scored a row (ValueError: no luck):"
        " fix it and run again\n"
    )
    assert Path("c").is_dir()


def test_a_finding_that_cannot_be_judged_is_not_fixed(sh: Shell) -> None:
    good = "def mine(batch, trace):\n    return [1.0] * len(batch)\n"
    Path("mine.py").write_text(good)
    assert sh.fuzz("--objective", "mine.py:mine", "-o", "c", budget="100x").code == 1
    Path("mine.py").write_text(good.replace("1.0", "float('nan')"))
    forget_files()
    result = sh("replay", "c", "1")
    assert result.code == 1
    assert "finding 1: could not be judged (NaN)" in result.out


OLD = """
from lmfuzz.search.random import Random

def wordy(text, least=3):
    'Many words.'
    return len(text.split()) - least

def same(rows, context):
    return rows

class Search:
    focus, needs, each = (), frozenset({"tokens"}), 3

    def __init__(self, context):
        self._inner = Random(context)

    def ask(self, size): return self._inner.ask(size)
    def tell(self, batch, trace, margins, novel): assert "tokens" in trace
    def state(self): return self._inner.state()
    def restore(self, state): self._inner.restore(state)
"""


def test_plug_ins_of_0_3_0_and_functions_of_a_text_are_taken_from_a_file(sh: Shell) -> None:
    Path("old.py").write_text(OLD)
    own = ("--search", "old.py:Search", "--operator", "old.py:same", "--operator", "insert")
    found = sh.fuzz("--objective", "old.py:wordy:least=2", *own, "-o", "c", budget="600x")
    assert found.code == 1, found
    assert "wordy" in sh("show", "c").out
    assert "Many words." in sh("show", "c", "1").out


def test_a_campaign_is_resumed_to_a_larger_budget_only(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1500x")
    assert re.fullmatch(
        r"the campaign in c has spent 1500x or more; resume it with a larger budget: "
        r"lmfuzz resume c --budget \d{4}x",
        sh.refused("resume", "c"),
    )
    assert "1200x" in sh.refused("resume", "c", "--budget", "1200x")
    more = sh("resume", "c", "--budget", "3000x", "--json")
    assert more.code in (0, 1)
    assert more.out.startswith("lmfuzz: going on with c after 16"), "of which calibration took some 100"
    assert json.loads(more.out.splitlines()[-1])["executions"] >= 3000
    whole = sh.fuzz("-o", "whole", budget="3000x")
    assert whole.code == more.code


def test_a_config_file_says_the_same_and_the_command_line_wins(sh: Shell) -> None:
    first = sh.fuzz("-o", "c", "--seed", "3", budget="1500x")
    again = sh("fuzz", "--config", "c/campaign.toml", "-o", "d")
    assert again.code == first.code
    c, d = map(CampaignRecord.read, (Path("c"), Path("d")))
    assert c.states.points.tobytes() == d.states.points.tobytes()
    other = sh("fuzz", "--config", "c/campaign.toml", "--seed", "4", "-o", "e")
    assert "; seed 4" in other.out
    assert "seed = 4" in Path("e/campaign.toml").read_text()


def test_without_a_directory_runs_gets_one(sh: Shell) -> None:
    done = sh.fuzz(budget="1000x")
    (directory,) = Path("runs").iterdir()
    assert f"the campaign is in {directory}" in done.out
    assert (directory / "campaign.db").is_file()


def test_wrong_usage_is_one_sentence_and_writes_nothing(sh: Shell) -> None:
    base = ("fuzz", "model.py:easy", "--seeds", "seeds.txt", "-o", "new")
    for more, sentence in {
        ("--objective", "repetitoin"): "unknown objective 'repetitoin'; did you mean 'repetition'?",
        ("--objective", "repetition:tines=3"): "did you mean 'times'?",
        ("--objective", "repetition:times=many"): 'repetition: times must be a whole number, not "many"',
        (
            "--objective",
            "entropy",
        ): "target does not show; it shows hidden_last, phrase_gap/, text, tokens",
        ("--objective", "own.py:flat"): "objective 'flat' returned shape (1,)",
        ("--objective", "own.py:absent"): "own.py has no 'absent'",
        ("--objective", "entropy", "--objective", "entropy"): "--objective must not name entropy twice",
        ("--search", "guided"): "unknown search 'guided'",
        ("--operator", "inser"): "did you mean 'insert'?",
        ("--feature", "hidden"): "unknown feature 'hidden'",
        (
            "--feature",
            "trajectory:clusters=100000",
        ): "clusters must be less than or equal to 1024, not 100000",
        ("--budget", "soon"): "budget 'soon' is neither a time",
        ("--seed", "x"): "'x' is not a valid integer",
        ("--batch", "0"): "--batch must be greater than or equal to 1, not 0",
        ("--unknown", "keep"): "--unknown must be 'error' or 'drop', not \"keep\"",
        ("--sed", "3"): "No such option",
        ("--dict", "absent.dict"): "absent.dict",
        ("--config", "absent.toml"): "there is no TOML file absent.toml",
        ("--min-length", "9", "--max-length", "8"): "min_length (9) is larger than max_length (8)",
    }.items():
        assert sentence in sh.refused(*base, *more)
    for words in ((), ("image",)):
        assert sh(*words) == sh(*words, "--help")
    assert sh.refused("fuz") == "there is no command fuz; did you mean 'fuzz'?"
    assert "did you mean 'operators'?" in sh.refused("list", "operator")


def test_bad_seeds_and_configs_are_named_with_their_line(sh: Shell) -> None:
    base = ("fuzz", "model.py:easy", "-o", "new")
    Path("bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    Path("long.txt").write_text("x" * 33 + "\n")
    Path("odd.txt").write_text("Caps\n")
    Path("empty.txt").touch()
    Path("bad.toml").write_text("seeed = 3\n")
    for more, sentence in {
        ("--seeds", "absent.txt"): "there is no seed file or folder absent.txt",
        ("--seeds", "empty.txt"): "empty.txt is empty; give it one prompt per line",
        ("--seeds", "bad.txt"): "bad.txt, line 2: byte 0xff is not UTF-8",
        ("--seeds", "long.txt"): "the prompt has 33 characters, more than --max-length allows (32)",
        ("--seeds", "odd.txt"): "character 'C' is not in the model's alphabet",
        ("--config", "bad.toml"): "unknown key 'seeed' in bad.toml; did you mean 'seed'?",
    }.items():
        assert sentence in sh.refused(*base, *more)
    dropped = sh("fuzz", *base[1:], "--seeds", "odd.txt", "--unknown", "drop", "--budget", "600x")
    assert "lmfuzz: characters outside the model's alphabet, dropped from the seeds: 1\n" in dropped.out


def test_a_model_that_cannot_be_loaded_is_3(sh: Shell, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").touch()
    for model, sentence in {
        "absent": "there is no checkpoint folder absent",
        "model.py": "name the function that makes the model: model.py:make",
        "model.py:fails": "raised ValueError: no weights here",
        "model.py:dead": "the target raises on every row, first with RuntimeError: dead",
        "weights.pt": "neither TorchScript",
        "absent.py:x": "there is no file absent.py",
    }.items():
        assert sentence in sh.refused("fuzz", model, "--seeds", "seeds.txt", "-o", "new", code=3)


def test_directories_are_looked_after(sh: Shell, tmp_path: Path) -> None:
    sh.fuzz("-o", "c", budget="1000x")
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    base = ("fuzz", "model.py:easy", "--seeds", "seeds.txt", "-o")
    assert "resume it with lmfuzz resume c, or begin in another directory" in sh.refused(*base, "c")
    assert "full is not empty and holds no campaign" in sh.refused(*base, "full")
    assert "seeds.txt is a file" in sh.refused(*base, "seeds.txt")
    for command in ("resume", "show", "replay"):
        assert "there is no directory absent" in sh.refused(command, "absent")
        assert "full is not a campaign" in sh.refused(command, "full")
    with Store.resume(Path("c")):
        assert "c is in use by another lmfuzz (process " in sh.refused("resume", "c", "--budget", "2000x")
    text = Path("model.py").read_text()
    Path("model.py").write_text(text.replace('loop_key="vk"', 'loop_key="vkj"'))
    forget_files()
    assert "was begun with another model" in sh.refused("resume", "c", "--budget", "2000x")


def test_a_full_disk_is_4_and_the_findings_are_on_stderr(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: Path, mode: str) -> object:
        db = connect(path, mode)
        db.execute("PRAGMA max_page_count = 40")
        return db

    connect = stores.connect
    monkeypatch.setattr(stores, "connect", small)
    done = sh.fuzz("--keep", "1000", "-o", "c", "--json", budget="1h")
    assert done.code == 4
    *rows, sentence = done.err.splitlines()
    assert sentence.startswith("lmfuzz: cannot write c: database or disk is full")
    assert f"; {plural(len(rows), 'finding')} could not be written" in sentence or not rows
    for row in map(json.loads, rows):
        assert row["bucket"].startswith("repetition: ")
        assert row["evidence"]["signature"]
    summary = json.loads(done.out.splitlines()[-1])
    assert (summary["exit_reason"], summary["unwritten"]) == ("disk full", len(rows))
    kept = [bucket["kept"] for buckets in summary["findings"].values() for bucket in buckets.values()]
    assert sum(kept) == done.out.count("lmfuzz: finding ") + len(rows)
    assert "free some space, then go on with: lmfuzz resume c" in done.out
    monkeypatch.setattr(stores, "connect", connect)
    record = CampaignRecord.read(Path("c"))
    shown = [line for line in done.out.splitlines() if line.startswith("lmfuzz: finding ")]
    assert len(record.findings) == len(shown)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            4,
            "cannot read or write: No space left on device",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            2,
            "cannot read or write x: Permission denied",
        ),
        (MemoryError(), 2, "there is not enough memory; a smaller model, --batch or --max-new needs less"),
    ],
)
def test_no_error_of_the_machine_says_that_something_was_found(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, sentence: str
) -> None:
    def broken(kind: str) -> None:
        raise error

    monkeypatch.setattr("lmfuzz.plugins.registry.Kind.describe", broken)
    assert sh.refused("list", code=code) == sentence


def test_a_file_that_ends_too_early_is_no_interruption(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kind: str) -> None:
        raise EOFError("no more")

    monkeypatch.setattr("lmfuzz.plugins.registry.Kind.describe", broken)
    done = sh("list")
    assert done.code == 70
    assert "EOFError: no more" in done.err


def test_a_bug_is_70_with_its_traceback(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmfuzz.plugins.registry.Kind.describe", lambda kind: 1 // 0)
    done = sh("list")
    assert done.code == 70
    assert done.err.startswith("Traceback ")
    assert done.err.endswith("\nlmfuzz: this is a bug in lmfuzz; the campaign on disk is kept\n")


def test_no_name_and_no_error_reaches_the_terminal_raw(sh: Shell) -> None:
    Path("odd.py").write_text("def odd():\n    raise ValueError('x\\x1b[31mY\\x07')\n")
    assert "raised ValueError: x\\x1b[31mY\\x07" in sh.refused("fuzz", "odd.py:odd", code=3)
    c = "c\x1b[31m\x07\\"
    said = [sh.fuzz("-o", c, "--operator", "insert", budget="1500x"), sh("resume", c, "--budget", "1600x")]
    said += [sh("resume", c), sh("show", c, "1"), sh("replay", c, "1"), sh("show", "absent\x1b")]
    said += [sh("export", c, "--format", "csv", "-o", "f\x1b.csv")]
    said += [sh("distil", c, "-o", "s\x1b.jsonl"), sh("report", c), sh("shrink", c, "1")]
    assert [done.code for done in said[:5]] == [1, 1, 2, 0, 1]
    for done in said:
        odd = {letter for letter in done.out + done.err if not letter.isprintable()} - {"\n"}
        assert not odd, done
    assert "the campaign is in c\\x1b[31m\\x07\\\n" in said[0].out, "a backslash stays as it is"
    assert "finding 1 of c\\x1b[31m\\x07\\\n" in said[3].out
    assert said[6].out.endswith(": f\\x1b.csv\n")


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_what_machines_read_is_strict_json(sh: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text("def endless(batch, trace):\n    return [float('inf')] * len(batch)\n")
    done = sh.fuzz("--objective", "own.py:endless", "--keep", "1", "-o", "c", "--json", budget="100x")
    json.loads(done.out.splitlines()[-1], parse_constant=refuse)
    (record,) = json.loads(sh("shrink", "c", "--json").out, parse_constant=refuse)["findings"]
    assert record["margin"] is None
    record = CampaignRecord.read(Path("c"))
    full = DiskError(Path("c"), "disk full", record.findings)
    with pytest.raises(SystemExit):
        searching._report(full)
    (line, _) = capsys.readouterr().err.splitlines()
    assert json.loads(line, parse_constant=refuse)["margin"] is None


@pytest.mark.parametrize(
    "reason", [("SQLITE_FULL", "database or disk is full"), ("SQLITE_IOERR_WRITE", "disk I/O error")]
)
def test_resume_on_a_full_disk_is_4(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, reason: tuple[str, str]
) -> None:
    def full(*_: object) -> None:
        error = sqlite3.OperationalError(reason[1])
        error.sqlite_errorname = reason[0]
        raise error

    sh.fuzz("-o", "c", budget="1000x")
    monkeypatch.setattr(stores.Store, "resume", full)
    said = sh.refused("resume", "c", "--budget", "2000x", code=4)
    assert said == f"cannot write the campaign: {reason[1]}"


def test_interrupted_before_the_first_step_says_how_to_go_on(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lmfuzz.cli.progress.watch", interrupted)
        done = sh.fuzz("-o", "c")
    assert (done.code, done.err) == (130, "lmfuzz: interrupted; go on with: lmfuzz resume c\n")
    assert sh("resume", "c").code in (0, 1)


def test_lists_name_everything_with_parameters(sh: Shell) -> None:
    done = sh("list")
    assert done.code == 0
    for word in ("repetition", "times (whole number, default 4)", "havoc", "tensorfuzz", "hidden_last"):
        assert word in done.out
    for kind in ("objectives", "operators", "searches", "features", "targets", "recipes"):
        assert sh("list", kind).out.splitlines()[0] == kind
    assert "hidden_last" not in sh("list", "objectives").out


def test_version_and_help(sh: Shell) -> None:
    assert sh("--version") == Result(0, f"lmfuzz {lmfuzz.__version__}\n", "")
    assert "130  interrupted" in sh("--help").out
    text = sh("fuzz", "-h").out
    for name in (
        "--objective", "--dict", "--allow-pickle", "--decode-seed", "--json", "--radius", "--config",
        "repetition", "corpora:words/blacklist.txt", "default: directed", "including re-runs",
    ):  # fmt: skip
        assert name in " ".join(text.split())
    for words in ([], ["image"], ["-v", "image"]):
        bare = sh(*words)
        assert (bare.code, bare.err) == (0, "")
        assert "Commands:\n" in bare.out
