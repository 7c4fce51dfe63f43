"""``lmfuzz.fuzz``, ``diff`` and ``open``: what they take, what they return, and what they refuse."""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lmfuzz
from lmfuzz.inputs.bundled import resource
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.toy import Toy

PUBLIC = {
    "fuzz", "diff", "open", "Result", "Finding", "Evidence", "Batch", "Target", "TextSpace", "BoxSpace", "on",
    "UsageError", "TargetError", "DiskError",
}  # fmt: skip
SEEDS = ["the quick brown fox", "once upon a time", "a door in the wall"]


class Letters(nn.Module):
    """A small recurrent model of five letters, which tends to repeat one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(5, 8), nn.Linear(8, 5)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, symbols: Tensor) -> Tensor:
        logits: Tensor = self.head(self.gru(self.embedding(symbols))[0])
        return logits


def easy() -> Toy:
    return Toy(phrase_key="xyz", loop_key="vk")


def fuzz(model: Any = None, **given: Any) -> lmfuzz.Result:
    """A short campaign on a toy."""
    settings: dict[str, Any] = {
        "objectives": ["repetition"], "seeds": SEEDS, "budget": "3000x", "progress": False,
    }  # fmt: skip
    return lmfuzz.fuzz(easy() if model is None else model, **{**settings, **given})


def letters(**given: Any) -> lmfuzz.Result:
    return fuzz(
        Letters(), **{"alphabet": "abcde", "seeds": ["abc"], "budget": "300x", "max_new": 20, **given}
    )


def test_the_public_names_are_those_that_are_documented() -> None:
    assert set(lmfuzz.__all__) == PUBLIC
    assert all(getattr(lmfuzz, name) is not None for name in PUBLIC)
    assert set(dir(lmfuzz)) == PUBLIC | {"__version__"}
    stub = (Path(lmfuzz.__file__).parent / "__init__.pyi").read_text()
    assert all(f" as {name}\n" in stub for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'fuz'"):
        _ = lmfuzz.fuz  # type: ignore[attr-defined]


def test_to_import_lmfuzz_loads_next_to_nothing() -> None:
    code = "import sys; before = {*sys.modules}; import lmfuzz; print(len({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert int(done.stdout) < 10


def test_a_result_has_what_was_found_and_all_that_can_be_done_with_it(tmp_path: Path) -> None:
    result = fuzz(shrink=False)
    assert result.findings
    first = result.findings[0]
    assert first.objective == "repetition"
    assert first.prompt
    assert sum(map(len, result.buckets.values())) == len(result.findings)
    assert result.buckets[first.bucket][0] is first
    assert result.reason == "executions"
    assert result.executions >= 3000
    assert result.spec.budget == "3000x"
    assert result.summary()["executions"] == result.executions
    assert {verdict.words for verdict in result.replay()} == {"still fails"}
    assert len(result.replay(seeds=True)) == len(result.findings)
    assert first.minimal is None
    assert result.shrink(1) is result
    small = result.findings[0].minimal
    assert small is not None
    assert small.size <= small.before
    assert result.findings[-1].minimal is None or len(result.findings) == 1
    assert all(finding.minimal for finding in result.shrink().findings)
    report = result.report(tmp_path / "made" / "out.html")
    assert report == tmp_path / "made" / "out.html"
    assert "<html" in report.read_text()
    lines = result.export("jsonl", tmp_path / "out.jsonl").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == [f.prompt for f in result.findings]
    assert (tmp_path / "out.jsonl").read_text().splitlines() == lines


def test_a_result_goes_on(tmp_path: Path) -> None:
    result = fuzz(budget="600x")
    assert 600 <= result.executions < 1200
    assert result.resume("1200x", progress=False) is result
    assert result.executions >= 1200
    with pytest.raises(lmfuzz.UsageError, match="has spent 1200x or more"):
        result.resume(progress=False)


def test_without_an_output_the_campaign_goes_with_its_result(tmp_path: Path) -> None:
    result = fuzz(budget="300x")
    directory = result.directory
    assert (directory / "campaign.db").exists()
    del result
    gc.collect()
    assert not directory.exists()
    kept = fuzz(budget="300x", output=tmp_path / "kept")
    assert kept.directory == tmp_path / "kept"
    del kept
    gc.collect()
    assert (tmp_path / "kept" / "campaign.db").exists()


def test_the_same_seed_finds_the_same_as_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from lmfuzz.targets.toy import Toy\n\ndef easy():\n    return Toy(phrase_key='xyz', loop_key='vk')\n"
    )
    by_name = fuzz(f"{tmp_path}/model.py:easy", seed=3)
    by_object = fuzz(seed=3)
    assert [f.prompt for f in by_name.findings] == [f.prompt for f in by_object.findings]


def test_functions_of_the_output_are_detectors() -> None:
    def starts(text: str) -> float:
        """How far it is from a beginning with e."""
        return 1.0 if text.startswith("e") else -1.0

    class Whole:
        def __call__(self, batch: lmfuzz.Batch, trace: Any) -> Any:
            return [len(text) > 0 for text in trace["text"]]

    result = letters(objectives=[lambda text: "a" in text, lambda text: "ee" in text, starts, Whole()])
    assert {finding.objective for finding in result.findings} <= {"lambda", "lambda_2", "starts", "Whole"}
    assert "Whole" in {finding.objective for finding in result.findings}
    assert letters(objectives=lambda text: bool(text)).findings


def test_a_module_is_left_as_it_was() -> None:
    model = Letters().train()
    model.gru.weight_hh_l0.requires_grad_(False)
    threads = torch.get_num_threads()
    result = fuzz(model, alphabet="abcde", seeds=["abc"], budget="100x", max_new=8)
    assert result.executions >= 100
    assert all(part.training for part in model.modules())
    assert [w.requires_grad for w in model.parameters()].count(False) == 1
    assert torch.get_num_threads() == threads


def test_a_module_is_compared_with_its_twin() -> None:
    base, twin = Letters(), Letters()
    with torch.no_grad():
        twin.head.bias += torch.tensor([0.0, 0.3, 0.0, 0.0, 0.0])
    given: dict[str, Any] = {
        "objectives": ["regression(repetition)"], "alphabet": "abcde", "seeds": ["abc"], "budget": "200x",
        "max_new": 20, "progress": False,
    }  # fmt: skip
    assert lmfuzz.diff(base, twin, **given).spec.twin == "python:Letters_2"
    assert lmfuzz.diff(base, "int8", **given).spec.twin == "int8"


@pytest.fixture(scope="module")
def chat() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resource("models:chat")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(
        folder
    )


def test_a_hugging_face_model_comes_with_its_tokenizer(chat: tuple[Any, Any]) -> None:
    model, tokenizer = chat
    given: dict[str, Any] = {"seeds": ["Who are you?"], "budget": "60x", "max_new": 12, "batch": 16}
    by_object = fuzz(model, tokenizer=tokenizer, **given)
    by_name = fuzz("models:chat", **given)
    assert [f.output for f in by_object.findings] == [f.output for f in by_name.findings]
    rows = [result._record.rows.data.tolist() for result in (by_object, by_name)]
    assert rows[0] == rows[1]
    with pytest.raises(lmfuzz.TargetError, match="pass its tokenizer, too"):
        fuzz(model)
    with pytest.raises(lmfuzz.UsageError, match="is already loaded; leave out device"):
        fuzz(model, tokenizer=tokenizer, device="cuda")


def test_a_function_of_numbers_is_a_model() -> None:
    @lmfuzz.on(lmfuzz.BoxSpace((2,), -4.0, 4.0))
    def root(x: Tensor) -> dict[str, Tensor]:
        return {"root": torch.sqrt(x[:, 0] - 3)}

    result = lmfuzz.fuzz(root, objectives=["nonfinite"], budget="300x", progress=False, seeds=None)
    assert result.findings


def test_a_campaign_of_objects_is_opened_with_them(tmp_path: Path) -> None:
    def rude(text: str) -> bool:
        return "b" in text

    model = Letters()
    given: dict[str, Any] = {"alphabet": "abcde", "seeds": ["abc"], "budget": "200x", "max_new": 20}
    made = fuzz(model, objectives=["repetition", rude], output=tmp_path / "c", **given)
    opened = lmfuzz.open(tmp_path / "c")
    assert [f.prompt for f in opened.findings] == [f.prompt for f in made.findings]
    assert opened.report().exists()
    for call in (opened.replay, opened.shrink, lambda: opened.resume("300x", progress=False)):
        with pytest.raises(lmfuzz.UsageError, match=r"is an object .* pass it again"):
            call()
    whole = lmfuzz.open(str(tmp_path / "c"), model=model, objectives=rude, alphabet="abcde")
    assert {verdict.words for verdict in whole.replay()} == {"still fails"}
    assert whole.resume("300x", progress=False).executions >= 300
    other = Letters()
    with torch.no_grad():
        other.head.weight.zero_()
    assert [verdict.number for verdict in whole.replay(other, alphabet="abcde")] == [
        number for number, _ in enumerate(whole.findings, start=1)
    ]
    for wrong in (
        {"twin": model, "alphabet": "abcde"},
        {"model": "models:chat"},
        {"objectives": [rude, rude]},
    ):
        with pytest.raises(lmfuzz.UsageError, match="when it began: Letters, rude"):
            lmfuzz.open(tmp_path / "c", **wrong)


def test_a_campaign_of_names_needs_no_objects(tmp_path: Path) -> None:
    fuzz("lmfuzz.targets.toy:toy", budget="300x", output=tmp_path / "c")
    assert lmfuzz.open(tmp_path / "c").replay() == []
    with pytest.raises(lmfuzz.UsageError, match="when it began: none"):
        lmfuzz.open(tmp_path / "c", model=Letters(), alphabet="abcde")


def test_an_interruption_stops_the_search_and_keeps_what_was_found() -> None:
    def interrupt() -> None:
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    result = fuzz(budget="10m")
    thread.join()
    assert result.reason == "interrupted"
    assert result.executions > 0
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_campaign_runs_outside_the_main_thread() -> None:
    found: list[lmfuzz.Result] = []
    thread = threading.Thread(target=lambda: found.append(fuzz(budget="300x")))
    thread.start()
    thread.join()
    assert found[0].executions >= 300


def test_a_bar_is_shown_in_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz(budget="300x", progress=True)
    assert capsys.readouterr() == ("", "")


def test_results_are_shown_readably_and_nothing_in_them_is_code() -> None:
    def writes(text: str) -> bool:
        """<b>bold</b>"""
        return True

    class Html(Toy):
        def run(self, batch: Any, wants: Any) -> Any:
            trace = dict(super().run(batch, wants))
            if "text" in trace:
                trace["text"] = np.array(["<script>alert(1)</script>\x1b[31m"] * len(batch), object)
            return trace

    result = fuzz(Html(), objectives=[writes], seeds=["a", "b"], budget="100x")
    shown = repr(result)
    assert shown.splitlines()[0].startswith("lmfuzz: ")
    assert "3 findings in 1 bucket" in shown
    assert "\x1b" not in shown
    html = result._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr>") == 4


def test_findings_become_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    result = fuzz()
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = result.to_pandas()
    assert len(table) == len(result.findings)
    assert list(table["prompt"]) == [f.prompt for f in result.findings]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(lmfuzz.UsageError, match=r"needs pandas.*lmfuzz\[pandas\]"):
        result.to_pandas()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budgett": "3x"}, "unknown key 'budgett' in the arguments; did you mean 'budget'?"),
        ({"budget": 3}, "budget in the arguments must be text, not 3"),
        ({"objectives": 3}, "3 is not an objective: give a text, a function, or an object to call"),
        ({"objectives": Toy}, "Toy is not an objective: give a text, a function, or an object to call"),
        ({"objectives": ["repetitoin"]}, "unknown objective 'repetitoin'; did you mean 'repetition'?"),
        ({"seeds": []}, "seeds is empty; leave it out for the bundled seeds"),
        ({"seeds": 3}, "seeds are prompts, or paths of files and folders, not int"),
        ({"seeds": [3]}, "a seed is a prompt or a path, not 3"),
        ({"seeds": ["a.txt"]}, "there is no file a.txt; if it is a prompt, write text:a.txt"),
        ({"model": Toy}, "the model is the class Toy; give an instance of it"),
        ({"model": "models:chat", "alphabet": "ab"}, "are for a model that is an object, not for a name"),
        ({"output": Path(__file__)}, "is a file"),
        ({"output": 5}, "output must be a path, not 5"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(lmfuzz.UsageError) as error:
        fuzz(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Letters(), "has no alphabet; set .alphabet, or pass alphabet='abc'"),
        (
            len,
            "is neither a torch module, nor a function with a box of legal values (lmfuzz.on), nor a target",
        ),
        ("nope", "there is no checkpoint folder nope"),
        (5, "int is not a model"),
    ],
)
def test_what_is_no_model_is_said_in_a_sentence(model: Any, said: str) -> None:
    with pytest.raises(lmfuzz.TargetError) as error:
        fuzz(model)
    assert said in str(error.value)


@pytest.mark.parametrize("given", [{"model": 5, "alphabet": "ab"}, {"alphabet": 5}, {"tokenizer": 5}])
def test_an_alphabet_is_for_a_module(given: dict[str, Any]) -> None:
    with pytest.raises(lmfuzz.TargetError, match=r"alphabet= is for a torch module|alphabet must be a text"):
        fuzz(**{"model": Letters(), "alphabet": "abcde", **given})


def test_directories_and_files_are_paths() -> None:
    with pytest.raises(lmfuzz.UsageError, match="the directory of a campaign must be a path, not 5"):
        lmfuzz.open(5)  # type: ignore[arg-type]
    with pytest.raises(lmfuzz.UsageError, match="file must be a path, not 5"):
        fuzz(budget="100x").report(5)  # type: ignore[arg-type]


EXAMPLES = Path(__file__).parents[2] / "corpora" / "examples"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("audit_a_model.py", "report: report.html"),
        ("compare_with_a_twin.py", "shrinks to"),
        ("write_a_detector.py", "talks_of_the_sea"),
    ],
)
def test_the_examples_run(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out, err = capsys.readouterr()
    assert said in out
    assert err == ""


def test_seeds_come_from_files_of_all_formats_and_from_the_model(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ask,prompt\nfirst,no\nsecond,no\n")
    given = {"objectives": "repetition", "budget": "200x", "progress": False}

    def seeds(found: lmfuzz.Result) -> list[str]:
        record = CampaignRecord.read(found.directory)
        return record.space.texts(record.seeds)

    assert seeds(lmfuzz.fuzz(Toy(), seeds=tmp_path / "a.csv", seed_field="ask", **given)) == [
        "first",
        "second",
    ]
    assert seeds(lmfuzz.fuzz(Toy(), seeds=[f"{tmp_path}/a.csv", "who, me"], **given)) == ["no", "who, me"]
    assert len(seeds(lmfuzz.fuzz(seeds="model:3", **given))) == 3
    with pytest.raises(lmfuzz.UsageError, match=r"there is no file b\.JSONL; if it is a prompt, write text"):
        lmfuzz.fuzz(Toy(), seeds="b.JSONL", **given)
