"""Exports: every format is read again by a strict parser, with nothing of a hostile model acting in it."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from jsonschema import Draft7Validator
from markdown_it import MarkdownIt

from helpers.shell import Shell, forget_files
from lmfuzz.analysis.recorded import Recorded
from lmfuzz.exports import export_model as dossiers
from lmfuzz.exports.export_model import Dossier, recorded_case
from lmfuzz.exports.formats import FORMATS
from lmfuzz.spec import Spec
from lmfuzz.text import escape, shell_quote, spreadsheet_cell, strict_json
from lmfuzz.types import Evidence, Finding, Reruns

HOSTILE = (
    "<script>alert(1)</script>", "\x1b[2J\x1b]0;owned\x07", "a\u202egnp.exe\u2066\u200f", "nul\x00l",
    "lone \ud800 and \udfff",
    "=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1", "'=1", "``` ` ``````", "![x](http://x.example/y)",
    "[click](javascript:alert(1)) {0} {{", "</failure>]]><!-- & ]]>",
    '"""\n\'\'\'\\', "\n# head\n- item\n\n    code", "| a | b |",
    "\x7f\x85\x9b31m\u2028\ufeff\ufffe\U000e0041", "&lt;b&gt; &#60;", "\\x1b \\", "",
)  # fmt: skip
NAMES = ("jsonl", "csv", "pytest", "junit", "sarif", "markdown")

# What the schema of SARIF 2.1.0 demands of the parts that are used here.
TEXT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
    "additionalProperties": False,
}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
URI = {"type": "string", "pattern": "^[!-~]+$"}
NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}
PLACE = {
    "type": "object", "required": ["artifactLocation", "region"], "additionalProperties": False,
    "properties": {
        "artifactLocation": {"type": "object", "required": ["uri"], "properties": {"uri": URI}},
        "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
    },
}  # fmt: skip
SARIF = {
    "type": "object", "required": ["version", "runs"], "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"},
        "runs": {"type": "array", "minItems": 1, "items": {
            "type": "object", "required": ["tool", "results"], "additionalProperties": False,
            "properties": {
                "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                "properties": {"type": "object"},
                "tool": {"type": "object", "required": ["driver"], "properties": {"driver": {
                    "type": "object", "required": ["name"], "additionalProperties": False, "properties": {
                        "name": {"type": "string"}, "version": {"type": "string"},
                        "rules": {"type": "array", "uniqueItems": True, "items": {
                            "type": "object", "required": ["id"], "additionalProperties": False,
                            "properties": {"id": {"type": "string"}, "shortDescription": TEXT},
                        }},
                    },
                }}},
                "invocations": {"type": "array", "items": {
                    "type": "object", "required": ["executionSuccessful"], "additionalProperties": False,
                    "properties": {
                        "executionSuccessful": {"type": "boolean"},
                        "toolExecutionNotifications": {"type": "array", "items": {
                            "type": "object", "required": ["message"], "additionalProperties": False,
                            "properties": {"message": TEXT, "level": LEVEL},
                        }},
                    },
                }},
                "results": {"type": "array", "items": {
                    "type": "object", "required": ["message"], "additionalProperties": False,
                    "properties": {
                        "ruleId": {"type": "string"}, "ruleIndex": {"type": "integer", "minimum": 0},
                        "kind": {"enum": [
                            "notApplicable", "pass", "fail", "review", "open", "informational",
                        ]},
                        "level": LEVEL, "message": TEXT,
                        "baselineState": {"enum": ["new", "unchanged", "updated", "absent"]},
                        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
                        "properties": {"type": "object"},
                        "locations": {"type": "array", "minItems": 1, "items": {
                            "type": "object", "additionalProperties": False, "properties": {
                                "physicalLocation": PLACE,
                                "logicalLocations": {"type": "array", "items": NAMED},
                            },
                        }},
                    },
                }},
            },
        }},
    },
}  # fmt: skip


def finding(text: str, **more: Any) -> Finding:
    fields: dict[str, Any] = {
        "objective": f"regex/{text}", "margin": float("inf"), "evidence": Evidence(text, text, (0, 3)),
        "row": np.array([0, 1], np.int32), "prompt": text, "output": text, "parent": -1, "operator": -1,
        "execution": 1, "failed": 2, "runs": 3, "unscored": 1,
    }  # fmt: skip
    return Finding(**{**fields, **more})


def hostile(*texts: str) -> Dossier:
    found = {n: finding(text) for n, text in enumerate(texts, start=1)}
    said = {n: one.prompt for n, one in found.items()}
    recorded = Recorded(Spec(model="<b>\x1b"), "\u202e=1", "same", {}, found, said, [])
    cases = [recorded_case(n, f) for n, f in found.items()]
    cases[4::5] = [replace(case, again=Reruns(0, 0, 3), recorded=False) for case in cases[4::5]]  # not judged
    return Dossier(Path("runs/<i>`[x](y)"), recorded, "<b>\x1b", "\u202e=1", cases, ["fine"] if texts else [])


def harmless(text: str) -> None:
    """Nothing that a terminal obeys, and nothing that is not UTF-8."""
    text.encode("utf-8")
    odd = {c for c in text if not c.isprintable()} - {"\n", "\r"}
    assert not odd, odd
    assert "\r" not in text.replace("\r\n", "")


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_hostile_text_reaches_a_terminal(name: str) -> None:
    for dossier in (hostile(*HOSTILE), hostile()):
        harmless(FORMATS[name](dossier))


def test_escaped_leaves_no_control_or_format_character_of_unicode() -> None:
    shown = set(escape("".join(map(chr, range(0x110000)))))
    kinds = {unicodedata.category(c) for c in shown}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(c) for c in shown} & bidirectional
    assert not set("\u200e\u200f\u061c\u200b\ufeff") & shown


def test_json_lines_are_strict_json() -> None:
    lines = FORMATS["jsonl"](hostile(*HOSTILE)).splitlines()
    assert len(lines) == len(HOSTILE)
    for line, text in zip(lines, HOSTILE, strict=True):
        record = strictly(line)
        assert record["prompt"] == text.encode("utf-8", "backslashreplace").decode()
        assert record["margin"] is None, "infinity is no JSON"
        str(record).encode()  # no lone surrogate: those that are left are halves of pairs
    assert FORMATS["jsonl"](hostile()) == ""
    assert (
        strict_json({"a": (1, float("nan")), "\x7f": {"b": [-0.5, True, None]}})
        == '{"a": [1, null], "\\u007f": {"b": [-0.5, true, null]}}'
    )


def test_a_spreadsheet_runs_nothing_and_nothing_is_lost() -> None:
    text = FORMATS["csv"](hostile(*HOSTILE))
    head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert len(rows) == len(HOSTILE)
    for row, wanted in zip(rows, HOSTILE, strict=True):
        assert len(row) == len(head)
        for value in row:
            assert (
                not value.lstrip(" ").startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20"))
                or float(value) < 0
            )
        prompt = dict(zip(head, row, strict=True))["prompt"]
        assert prompt.removeprefix("'").encode("ascii", "backslashreplace").decode("unicode_escape") == wanted
    assert list(csv.reader(io.StringIO(FORMATS["csv"](hostile())), strict=True)) == [head]
    assert spreadsheet_cell(-1) == -1


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_no_cell_begins_with_a_formula_whatever_is_between_cells(between: str) -> None:
    signs = "=+-@\uff1d\uff0b\uff0d\uff20\t\r"
    texts = [
        f'hi{before}{gap}{sign}HYPERLINK("http://x.example";"x"){before}'
        for before in ";,\t\n" for gap in ("", " ", '"', ' " "', "'") for sign in signs
    ]  # fmt: skip
    text = FORMATS["csv"](hostile(*texts))
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=between):
        for value in row:
            number = re.fullmatch(r"-[0-9.]+", value)
            assert number or not value.lstrip(" ").startswith(tuple(signs)), value
    negative = FORMATS["csv"](replace(hostile("x"), cases=[recorded_case(1, finding("x", margin=-2.5))]))
    assert '"-2.5"' in negative
    assert spreadsheet_cell("a;=1, b;c, -d; e") == "a;'=1, b;c,' -d; e"


def counts(node: ElementTree.Element) -> dict[str, int]:
    return {key: int(node.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}


def checked_junit(text: str) -> ElementTree.Element:
    """What CI systems read: counts that are those of the tests, each with a name, a class name and a time."""
    whole = ElementTree.fromstring(text.encode())
    assert whole.tag == "testsuites"
    total = dict.fromkeys(counts(whole), 0)
    for suite in whole:
        assert suite.tag == "testsuite"
        assert suite.attrib["name"]
        assert {node.tag for node in suite} <= {"properties", "testcase", "system-out"}
        tests = suite.findall("testcase")
        found = {
            "tests": len(tests),
            "failures": len(suite.findall("*/failure")),
            "errors": len(suite.findall("*/error")),
            "skipped": 0,
        }
        assert counts(suite) == found
        total = {key: total[key] + found[key] for key in total}
        names = [(test.attrib["classname"], test.attrib["name"]) for test in tests]
        assert len(set(names)) == len(names) > 0
        assert all(float(test.attrib["time"]) >= 0 and len(test) <= 1 for test in tests)
    assert counts(whole) == total
    return whole


def test_junit_is_what_ci_systems_read() -> None:
    whole = checked_junit(FORMATS["junit"](hostile(*HOSTILE)))
    texts = [node.attrib["message"] for node in whole.iter() if node.tag in ("failure", "error")]
    for text, wanted in zip(texts, HOSTILE, strict=True):
        assert f'"{escape(wanted)}" -> ' in text
    none = checked_junit(FORMATS["junit"](hostile()))
    assert counts(none) == {"tests": 1, "failures": 0, "errors": 0, "skipped": 0}
    assert none[0].find("testcase").attrib["name"] == "nothing was found"  # type: ignore[union-attr]


def checked_sarif(text: str) -> dict[str, Any]:
    log: dict[str, Any] = strictly(text)
    Draft7Validator(SARIF).validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert (result["kind"] == "fail") == (result["level"] != "none"), (
            "3.27.10: only what fails has a level"
        )
        for bracket in re.findall(r"(\\*)[\[\]]", result["message"]["text"]):
            assert len(bracket) % 2, "3.11.6: a bracket that is not escaped begins a link"
        assert not re.search(r"(?<!\{)\{(\{\{)*(?!\{)", result["message"]["text"]), "3.11.5: no placeholders"
    return run  # type: ignore[no-any-return]


def test_sarif_has_the_structure_of_the_standard() -> None:
    run = checked_sarif(FORMATS["sarif"](hostile(*HOSTILE)))
    assert len(run["results"]) == len(HOSTILE)
    assert len({result["partialFingerprints"]["bucketAndPrompt/v1"] for result in run["results"]}) == len(
        HOSTILE
    )
    assert {result["kind"] for result in run["results"]} == {"fail", "open"}
    assert run["invocations"][0]["executionSuccessful"]
    none = checked_sarif(FORMATS["sarif"](hostile()))
    assert none["results"] == []
    assert "has no findings" in none["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_sarif_of_a_directory_whose_name_is_no_text(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1000x")
    name = os.fsdecode(b"bad\xff d")
    Path("c").rename(name)
    done = sh("export", name, "--format", "sarif")
    assert (done.code, done.err) == (0, "")
    (result, *_) = checked_sarif(done.out)["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "bad%FF%20d/campaign.toml"


def test_markdown_shows_texts_and_does_nothing_else() -> None:
    text = FORMATS["markdown"](hostile(*HOSTILE))
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {token.type for token in tokens} | {
        child.type for token in tokens for child in token.children or ()
    }
    assert kinds <= {
        "heading_open",
        "heading_close",
        "inline",
        "paragraph_open",
        "paragraph_close",
        "text",
        "code_inline",
        "fence",
    }
    assert sum(token.type == "heading_open" for token in tokens) == 1 + len(HOSTILE)
    blocks = [token.content for token in tokens if token.type == "fence"][1:]
    for block, wanted in zip(blocks, HOSTILE, strict=True):
        assert f'"{escape(wanted)}"' in block
    assert "Nothing was found." in FORMATS["markdown"](hostile())


def test_a_file_of_tests_holds_data_and_no_other_code() -> None:
    for texts in (HOSTILE, ()):
        source = FORMATS["pytest"](hostile(*texts))
        assert source.isascii()
        scope: dict[str, Any] = {"__name__": "written"}
        exec(compile(source, "written.py", "exec"), scope)
        assert len(scope["FINDINGS"]) == len(texts)
        assert {name for name in scope if name.startswith("test_")} == {
            "test_finding" if texts else "test_nothing_was_found"
        }
        recorded = Recorded.unpack(scope["CAMPAIGN"], scope["FINDINGS"])
        assert [f.prompt for f in recorded.findings.values()] == [
            t.encode("utf-8", "backslashreplace").decode() for t in texts
        ]


def test_images_are_packed_into_tests_bit_for_bit() -> None:
    row = np.random.Generator(np.random.PCG64(0)).random((4, 4, 1), np.float32)
    found, seeds = {7: finding("x", margin=1.0, row=row)}, [(row, "seed 0"), (row / 2, "seed 1")]
    recorded = Recorded(Spec(), "i", "same", {"disagreement": 0.1}, found, {7: "x"}, seeds)
    again = Recorded.unpack(*strictly(strict_json(recorded.pack())))
    assert np.array_equal(again.findings[7].row, row)
    assert [np.array_equal(a, b) for (a, _), b in zip(again.seeds, (row, row / 2), strict=True)] == [
        True,
        True,
    ]
    assert (again.spec, again.noise, again.spelling) == (recorded.spec, recorded.noise, recorded.spelling)


WICKED = """
import numpy as np
from lmfuzz.targets.toy import Toy

TEXTS = {texts!r}

class Wicked(Toy):
    def run(self, batch, wants):
        trace = dict(super().run(batch, wants))
        if "text" in trace:
            texts = [TEXTS[int(n) % len(TEXTS)] for n in batch.data.sum(axis=1)]
            trace["text"] = np.array(texts, dtype=object)
        return trace

def wicked():
    return Wicked()
"""
SAYS = "def says(batch, trace):\n    return [len(text) for text in trace['text']]\n"


def test_a_hostile_model_from_end_to_end(sh: Shell) -> None:
    Path("wicked.py").write_text(WICKED.format(texts=HOSTILE))
    Path("says.py").write_text(SAYS)
    done = sh(
        "fuzz",
        "wicked.py:wicked",
        "--seeds",
        "seeds.txt",
        "--objective",
        "says.py:says",
        "--keep",
        "40",
        "--budget",
        "300x",
        "-o",
        "c",
    )
    assert done.code == 1
    harmless(done.out)
    for name in NAMES:
        shown = sh("export", "c", "--format", name)
        assert shown.code == 0, shown
        harmless(shown.out)
        assert (
            sh("export", "c", "--format", name, "-o", f"out.{name}").out
            == f"lmfuzz: 40 findings of c: out.{name}\n"
        )
        assert Path(f"out.{name}").read_bytes().decode() == shown.out
    assert len(checked_sarif(Path("out.sarif").read_text())["results"]) == 40
    checked_junit(Path("out.junit").read_text())
    assert sh(
        "fuzz", "model.py:easy", "--seeds", "out.jsonl", "--budget", "200x", "--objective", "repetition"
    ).code in (0, 1)


def test_zero_findings_are_valid_and_said(sh: Shell) -> None:
    sh.fuzz("--objective", "own.py:quits", "--search", "random", "-o", "none", budget="300x")
    for name in NAMES:
        done = sh("export", "none", "--format", name)
        assert (done.code, done.err) == (0, "lmfuzz: none has no findings\n")
    assert (
        sh("replay", "none", "--model", "model.py:other", "--junit", "r.xml", "--sarif", "r.sarif").code == 0
    )
    checked_junit(Path("r.xml").read_text())
    assert checked_sarif(Path("r.sarif").read_text())["results"] == []


def test_wrong_formats_and_places_are_refused(sh: Shell) -> None:
    sh.fuzz("-o", "c", budget="1000x")
    assert sh.refused("export", "c", "--format", "jsn") == "there is no format 'jsn'; did you mean 'jsonl'?"
    assert sh.refused("export", "c", "--format", "?").endswith(
        "there are jsonl, csv, pytest, junit, sarif, markdown, baseline"
    )
    assert "Missing option '--format'" in sh.refused("export", "c")
    assert sh.refused("export", "c", "--format", "csv", "-o", "absent/x").startswith(
        "there is no folder absent to write x to"
    )
    assert "there is no directory absent" in sh.refused("export", "absent", "--format", "csv")


def pytested(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with the plug-in as if it were installed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "lmfuzz.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-rA",
        *arguments,
    ]
    known = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=known)


def test_the_file_of_tests_runs_by_itself(sh: Shell) -> None:
    sh.fuzz("-o", "c", "--keep", "2")
    many = len(sh("export", "c", "--format", "jsonl").out.splitlines())
    assert sh("export", "c", "--format", "pytest", "-o", "test_found.py").code == 0
    for file in Path("c").iterdir():
        file.unlink()  # it needs no campaign
    failed = pytested("test_found.py")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert f"{many} failed" in failed.stdout
    assert "finding 1: still fails, repetition: " in failed.stdout
    assert pytested("test_found.py", LMFUZZ_MODEL="model.py:other").stdout.count("PASSED") == many
    for name, why in (("absent", "there is no"), ("model.py:fails", "model.py:fails raised ValueError: no")):
        broken = pytested("test_found.py", LMFUZZ_MODEL=name)
        assert broken.returncode == 1, "a gate is not green because a model cannot be loaded"
        assert f"{many} errors" in broken.stdout
        assert f"the findings cannot be run again: {why}" in broken.stdout


def test_the_fixture_runs_campaigns_in_tests(sh: Shell) -> None:
    Path("test_own.py").write_text("""
import pytest
from model import easy, other

SEEDS = {"seeds": ["seeds.txt"], "objectives": ["repetition"]}

def test_finds(lmfuzz_campaign):
    lmfuzz_campaign(model="model.py:easy", **SEEDS).check()

def test_passes(lmfuzz_campaign):
    outcome = lmfuzz_campaign(target=other(), search="random", budget="500x", **SEEDS)
    assert outcome.findings == []
    outcome.check()
    found = lmfuzz_campaign(target=easy(), stop_after=1, **SEEDS)
    assert [finding.objective for finding in found.findings] == ["repetition"]
    assert (found.directory / "campaign.db").is_file()
    assert found.directory != outcome.directory

def test_known(lmfuzz_campaign):
    outcome = lmfuzz_campaign(target=easy(), ignore=["rep*"], **SEEDS)
    assert outcome.known and set(map(type, outcome.known.values())) == {int}
    outcome.check()

def test_typo(lmfuzz_campaign):
    lmfuzz_campaign(modle="model.py:easy")

def test_wrong(lmfuzz_campaign):
    lmfuzz_campaign(target=5)

def test_absent(lmfuzz_campaign):
    lmfuzz_campaign(model="absent")

def test_blind(lmfuzz_campaign):
    blind = {**SEEDS, "objectives": ["test_own.py:raises"], "budget": "100x"}
    lmfuzz_campaign(target=other(), **blind).check()

def raises(batch, trace):
    raise ValueError("no luck\\33[31m")
""")  # fmt: skip
    done = pytested("test_own.py")
    for words in (
        "PASSED test_own.py::test_passes", "findings\nfinding 1, repetition: ",
        "run one again with: lmfuzz replay ",
        "lmfuzz: unknown key 'modle' in the arguments; did you mean 'model'?",
        "there is no checkpoint folder absent",
        "lmfuzz: int is not a model: an object of type int is neither a torch module",
        "the objective raises raises on every input: ValueError: no luck\\x1b[31m (", "5 failed, 2 passed",
    ):  # fmt: skip
        assert words in done.stdout, done.stdout + done.stderr


def test_the_plug_in_is_installed_and_light(tmp_path: Path) -> None:
    code = """
import sys
from importlib import metadata
(point,) = metadata.entry_points(group="pytest11", name="lmfuzz")
point.load()
print(point.value, *sys.modules.keys() & {"numpy", "torch", "click", "pydantic"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["lmfuzz.pytest_plugin"], done.stderr


def test_a_case_says_what_it_is_about(sh: Shell) -> None:
    sh.fuzz("-o", "c", "--stop-after", "1")
    dossier = dossiers.campaign(Path("c"))
    (case,) = dossier.cases
    assert case.title.startswith("finding 1: repetition: loop")
    assert replace(case, seed=True, finding=finding("x", objective="")).title == "seed 1"
    assert "replay    lmfuzz replay c 1" in dossier.details(case)
    forget_files()


@pytest.mark.parametrize("name", ["campaign.db", "campaign.db-wal", "campaign.toml", "lock"])
def test_nothing_is_written_over_a_campaign(sh: Shell, name: str) -> None:
    sh.fuzz("-o", "c")
    before = {path: path.read_bytes() for path in Path("c").iterdir() if path.is_file()}
    Path("link").symlink_to(f"c/{name}")
    for file in (f"c/{name}", "link"):
        for words in (
            ("export", "c", "--format", "csv", "-o", file), ("report", "c", "-o", file),
            ("replay", "c", "--junit", file), ("replay", "c", "--sarif", file),
        ):  # fmt: skip
            assert sh.refused(*words).startswith(f"{file} is part of the campaign in ")
    assert {path: path.read_bytes() for path in Path("c").iterdir() if path.is_file()} == before


def test_a_file_is_written_where_a_link_leads_and_a_device_stays_one(sh: Shell) -> None:
    sh.fuzz("-o", "c")
    whole = sh("export", "c", "--format", "csv").out
    Path("folder").mkdir()
    Path("link.csv").symlink_to("folder/real.csv")
    assert sh("export", "c", "--format", "csv", "-o", "link.csv").code == 0
    assert Path("link.csv").is_symlink()
    assert Path("folder/real.csv").read_bytes().decode() == whole
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        assert sh("export", "c", "--format", "csv", "-o", "pipe").code == 0
        assert reader.stdout is not None
        assert reader.stdout.read().decode() == whole
    assert Path("pipe").is_fifo()
    for file in (".", "", "folder"):
        said = sh.refused("export", "c", "--format", "csv", "-o", file)
        assert said == f"{file or '.'} is a folder; give a file"
    said = sh.refused("export", "c", "--format", "csv", "-o", "absent/x.csv")
    assert said == "there is no folder absent to write x.csv to"


@pytest.mark.parametrize(
    "name", ["a b", "$(touch pwn)", "q'uo\"te", "-top", "new\nline", "esc\x1b[31m'\\", "by\udcffe", "ü"]
)
def test_a_shell_reads_back_what_is_to_be_typed(tmp_path: Path, name: str) -> None:
    said = subprocess.run(
        ["bash", "-c", f"printf %s {shell_quote(Path(name))}"], capture_output=True, cwd=tmp_path
    )
    assert said.stdout.removeprefix(b"./") == os.fsencode(name)
    assert shell_quote(Path(name)).isprintable()
    assert not list(tmp_path.iterdir())
