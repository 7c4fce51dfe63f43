"""What is known already is counted, and only new buckets are reported."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lmfuzz
from helpers.shell import Shell
from lmfuzz.storage.known import buckets_of
from lmfuzz.storage.record import CampaignRecord

OLD = Path(__file__).parents[1] / "campaigns"
SETTINGS = ("--objective", "repetition", "--objective", 'phrases:words=["sesame"]')


def known_of(out: str) -> dict:
    return json.loads(out.splitlines()[-1])["known"]


@pytest.fixture
def found(sh: Shell) -> CampaignRecord:
    """A campaign in c with findings in two buckets, and its baseline in known.json."""
    assert sh.fuzz(*SETTINGS, "-o", "c", budget="12000x").code == 1
    assert sh("export", "c", "--format", "baseline", "-o", "known.json").code == 0
    record = CampaignRecord.read(Path("c"))
    assert len(record.hits) > 1
    return record


@pytest.mark.parametrize("baseline", ["c", "known.json"])
def test_buckets_of_a_baseline_are_counted_and_not_reported(
    sh: Shell, found: CampaignRecord, baseline: str
) -> None:
    done = sh.fuzz(*SETTINGS, "-o", "d", "--baseline", baseline, "--json", budget="12000x")
    assert done.code == 0, done.out
    assert f"lmfuzz: {len(found.hits)} buckets in {baseline}: known, so counted and not reported" in done.out
    again = CampaignRecord.read(Path("d"))
    assert (again.findings, dict(again.hits)) == ([], {})
    hits = sum(again.known.values())
    assert f"{len(again.known)} known buckets were hit again ({hits} hits); 0 new" in done.out
    assert known_of(done.out) == {"buckets": again.known, "new": 0, "unmatched": []}
    shown = sh("show", "d").out
    assert "known (baseline):" in shown
    assert f"({hits} hits); 0 new" in shown
    assert sh("report", "d").code == 0
    assert f"({hits} hits); 0 new" in Path("d/report.html").read_text()
    assert buckets_of(again) == buckets_of(found)  # what is known stays known


def test_known_hits_cost_no_executions(sh: Shell) -> None:
    sh.fuzz("-o", "a", "--confirm", "200", "--keep", "50", "--stop-after", "1", budget="9000x")
    first = CampaignRecord.read(Path("a")).findings[0]
    sh.fuzz("-o", "b", "--confirm", "200", "--keep", "50", "--ignore", "*", budget=f"{first.execution}x")
    assert CampaignRecord.read(Path("b")).executions < first.execution + 200


def test_only_new_buckets_are_reported_and_counted_by_stop_after(sh: Shell, found: CampaignRecord) -> None:
    done = sh.fuzz(*SETTINGS, "-o", "d", "--ignore", "repetition:*", "--stop-after", "1", budget="40000x")
    assert done.code == 1
    again = CampaignRecord.read(Path("d"))
    assert again.reason == "findings"
    assert [finding.objective for finding in again.findings] == ["phrases/sesame"]
    assert all(bucket.startswith("repetition: ") for bucket in again.known)
    assert ";" in done.out
    assert "; 1 new\n" in done.out


def test_patterns_that_match_nothing_are_named(sh: Shell) -> None:
    done = sh.fuzz("-o", "d", "--ignore", "crash: *", "--ignore", "rep*", "--json")
    assert "the pattern crash: * matches no bucket that was hit" in done.out
    assert "pattern rep*" not in done.out
    assert known_of(done.out)["unmatched"] == ["crash: *"]


def test_without_known_buckets_nothing_is_said_of_them(sh: Shell) -> None:
    done = sh.fuzz("-o", "d", "--json", budget="500x")
    assert "known bucket" not in done.out
    assert known_of(done.out) is None


def test_an_empty_baseline_works_and_is_said(sh: Shell) -> None:
    Path("empty.json").write_text('{"baseline": 1, "buckets": {}}')
    done = sh.fuzz("-o", "d", "--baseline", "empty.json")
    assert done.code == 1
    assert "the baseline empty.json is empty, so that every bucket is new" in done.out


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("none.json", "there is no baseline none.json"),
        (
            "model.py",
            "model.py is not a baseline; give a campaign's directory, or a file that `lmfuzz export",
        ),
        (".", ". is not a campaign: it has no campaign.db"),
    ],
)
def test_what_is_not_a_baseline_is_refused_before_the_model_loads(
    sh: Shell, baseline: str, said: str
) -> None:
    assert said in sh.refused("fuzz", "model.py:fails", "--baseline", baseline)


def test_a_resumed_campaign_knows_what_it_knew(sh: Shell, found: CampaignRecord) -> None:
    sh.fuzz(*SETTINGS, "-o", "whole", "--baseline", "known.json", budget="12000x")
    sh.fuzz(*SETTINGS, "-o", "d", "--baseline", "known.json", budget="4000x")
    Path("known.json").unlink()
    assert sh("resume", "d", "--budget", "12000x").code == 0
    resumed = CampaignRecord.read(Path("d"))
    assert resumed.known == CampaignRecord.read(Path("whole")).known
    assert resumed.findings == []


def test_a_resumed_campaign_can_be_told_what_is_known(sh: Shell, found: CampaignRecord) -> None:
    assert sh("resume", "c", "--budget", "12500x", "--baseline", "known.json").code == 0
    Path("known.json").unlink()
    assert sh("resume", "c", "--budget", "13000x").code == 0
    record = CampaignRecord.read(Path("c"))
    assert record.finding_count == found.finding_count
    assert sh("replay", "c").code == 0


def test_a_replay_counts_what_fails_in_known_buckets(sh: Shell, found: CampaignRecord) -> None:
    sesame = {finding.bucket for finding in found.findings if finding.objective == "phrases/sesame"}
    done = sh("replay", "c", "--ignore", "repetition: *", "--junit", "j.xml", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert {verdict["bucket"] for verdict in told["verdicts"]} == sesame
    assert sum(told["known"].values()) + len(told["verdicts"]) == len(found.findings)
    suite = ElementTree.parse("j.xml").getroot()
    assert int(suite.get("skipped", 0)) == len(told["known"])
    assert int(suite.get("failures", 0)) == len(told["verdicts"])
    done = sh("replay", "c", "--baseline", "known.json")
    assert done.code == 0
    assert "finding" not in done.out
    assert "0 new" in done.out
    assert sh("replay", "c").code == 1


def test_an_export_leaves_known_findings_out(sh: Shell, found: CampaignRecord) -> None:
    done = sh("export", "c", "--format", "jsonl", "--ignore", "repetition: *")
    objectives = {json.loads(line)["objective"] for line in done.out.splitlines()}
    assert objectives == {"phrases/sesame"}
    done = sh("export", "c", "--format", "junit", "--baseline", "c")
    suite = ElementTree.fromstring(done.out)
    assert suite.get("failures") == "0"
    assert suite.get("skipped") == suite.get("tests") == str(len(found.hits))
    assert "hits); 0 new" in done.out
    assert "c has no new findings" in done.err


@pytest.mark.parametrize("name", ["lstm", "chat", "image"])
def test_a_campaign_of_an_earlier_version_is_a_baseline(sh: Shell, name: str) -> None:
    old = OLD / "0.3.0" / name
    hits = CampaignRecord.read(old).hits
    assert sh("export", str(old), "--format", "baseline", "-o", "known.json").code == 0
    listed = json.loads(Path("known.json").read_text())["buckets"]
    assert {f"{target}: {name}": n for target, of in listed.items() for name, n in of.items()} == hits
    copy = Path(shutil.copytree(old, "copy"))
    assert sh("replay", str(copy), "--baseline", str(old)).code == 0


def test_an_earlier_campaign_says_what_is_new(sh: Shell) -> None:
    done = sh(
        "fuzz", "--budget", "300x", "--seeds", "text:to be", "-o", "d", "--baseline", str(OLD / "0.3.0/lstm")
    )
    assert done.code in (0, 1)
    assert " new\n" in done.out


def test_python_programs_have_baselines(sh: Shell, found: CampaignRecord) -> None:
    settings = {"seeds": ["seeds.txt"], "objectives": ["repetition"], "budget": "4000x", "progress": False}
    result = lmfuzz.fuzz("model.py:easy", baseline=["known.json"], **settings)
    assert result.findings == []
    assert result.known
    assert result.summary()["known"]["buckets"] == result.known
    assert any("known, so counted" in note for note in result.notes)
