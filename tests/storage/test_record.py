"""The record of a campaign: what is read at once, what only when asked for, and what is left to spend."""

import sqlite3
from contextlib import closing
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from helpers.shell import Shell
from lmfuzz.errors import UsageError
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import Store


@pytest.fixture
def record(sh: Shell) -> CampaignRecord:
    assert sh.fuzz("-o", "c", budget="2000x").code == 1
    return CampaignRecord.read(Path("c"))


def test_what_is_large_is_read_when_it_is_asked_for(record: CampaignRecord) -> None:
    tables = ("rows", "states", "findings", "minimals", "steps")
    whole = len(record.rows), len(record.states.rows), len(record.findings), len(record.samples)
    with closing(sqlite3.connect("c/campaign.db")) as db, db:
        for table in tables:
            db.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    again = CampaignRecord.read(Path("c"))
    assert again.executions == record.executions
    assert again.budget.share() == 1
    assert again.at_end
    for name in ("rows", "states", "findings", "samples"):
        with pytest.raises(UsageError, match="is damaged, or is not a campaign of lmfuzz: no such table"):
            getattr(again, name)
    assert whole == (len(record.rows), len(record.states.rows), len(record.findings), len(record.samples))


def test_counts_are_those_of_what_is_stored(record: CampaignRecord) -> None:
    assert record.finding_count == len(record.findings) > 0
    assert record.kept == {bucket: len(found) for bucket, found in by_bucket(record).items()}
    assert record.corpus_size == len(record.rows)
    assert record.archive_size == len(record.states.rows) == len(record.states.births)
    assert len(record.seeds) == record.seed_count == 4
    assert record.seeds.parent.tolist() == [-1] * 4


def by_bucket(record: CampaignRecord) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, finding in enumerate(record.findings, start=1):
        found.setdefault(finding.bucket, []).append(number)
    return found


@pytest.mark.parametrize(
    ("budget", "stop_after", "reason"),
    [("2000x", None, "executions"), ("4000x", None, ""), ("1h", 1, "findings"), ("1h", 99, ""),
     ("1s", None, "seconds")],
)  # fmt: skip
def test_the_budget_knows_what_was_spent(
    record: CampaignRecord, budget: str, stop_after: int | None, reason: str
) -> None:
    spec = record.spec.model_copy(update={"budget": budget, "stop_after": stop_after})
    one = replace(record, spec=spec, seconds=1.5, reason="")
    assert one.budget.reason() == reason
    assert one.budget.spent() == one.at_end == bool(reason)
    assert replace(one, reason="done").at_end
    assert replace(one, reason="interrupted").at_end == bool(reason)
    searched = record.executions - record.calibration_executions
    shares = {"4000x": searched / 4000, "1h": 1.5 / 3600}
    assert one.budget.share() == pytest.approx(shares.get(budget, 1), abs=1e-3)


def test_a_record_does_not_change(record: CampaignRecord) -> None:
    with pytest.raises(FrozenInstanceError):
        record.executions = 0  # type: ignore[misc]


def test_a_campaign_is_read_while_another_writes_it(record: CampaignRecord) -> None:
    with Store.resume(Path("c")) as store:
        assert store.record().executions == record.executions
        assert [one.prompt for one in store.record().findings] == [one.prompt for one in record.findings]


def test_a_finding_that_there_is_not_is_named(record: CampaignRecord) -> None:
    with pytest.raises(UsageError, match=f"no finding 99; its findings are 1 to {record.finding_count}"):
        record.finding(99)
