"""The store: states as text, one consistent checkpoint per commit, locks, and a disk that is full."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lmfuzz.errors import DiskError, UsageError
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import TextSpace, describe
from lmfuzz.rng import Streams
from lmfuzz.spec import Spec
from lmfuzz.storage import store as stores
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.serialize import decode, encode
from lmfuzz.storage.store import Sample, Store
from lmfuzz.types import Batch, Evidence, Finding, Step

OPERATORS = ["insert", "splice"]
SPACE = TextSpace(tuple("abcdefghij"), 1, 8)
META = {
    "operators": OPERATORS,
    "targets": ["phrases/zounds"],
    "identity": "toy",
    "seeds": 2,
    "space": json.loads(json.dumps(describe(SPACE))),
    "spec": Spec().model_dump(),
    "calibration": {"radius": 0.5, "stability": 1.0},
    "calibration_executions": 0,
}


def state(executions: int) -> dict[str, Any]:
    """What a campaign commits beside its rows, as far as it is read by others."""
    return {
        "executions": executions, "seconds": 1.0, "time_in_target": 0.5, "reason": "", "corpus_size": 2,
        "archive_size": 2, "visits": None, "trials": None, "tally": Tally.of(2).state(),
        "findings": {"hits": {}, "kept": {}}, "panel": {"noise": {}, "unscored": {}, "errors": {}},
    }  # fmt: skip


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | arrays.arrays(
        st.sampled_from(["<i8", "<f4", "|b1", "<u2"]), arrays.array_shapes(min_dims=0, max_dims=2, min_side=0)
    )
)  # fmt: skip
states = st.dictionaries(
    st.text(),
    st.recursive(
        leaves, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=3), s, max_size=3)
    ),
    max_size=4,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(states)
def test_a_state_reads_back_as_it_was(state: dict[str, Any]) -> None:
    assert same(decode(encode(state)), state)


def test_a_state_holds_numpy_scalars_and_random_streams_and_nothing_stranger() -> None:
    streams = Streams(3)
    streams["a"].random(7)
    again = Streams(3)
    again.restore(decode(encode(streams.state())))
    assert again["a"].random() == streams["a"].random()
    assert decode(encode({"n": np.int64(3), "x": np.float32(0.5), "t": (1, 2)})) == {
        "n": 3,
        "x": 0.5,
        "t": [1, 2],
    }
    with pytest.raises(TypeError, match="not set"):
        encode({"s": {1}})
    with pytest.raises(TypeError, match="not ndarray"):
        encode({"o": np.array([object()])})


def finding(name: str = "zounds", **more: Any) -> Finding:
    fields: dict[str, Any] = {
        "objective": "phrases/zounds", "margin": 1.0, "evidence": Evidence(name, "said it", (1, 3)),
        "row": np.array([1, 2], np.int32), "prompt": "ab", "output": "zounds!", "parent": 0,
        "operator": 1, "execution": 64, "failed": 2, "runs": 3,
    }  # fmt: skip
    return Finding(**{**fields, **more})


def step(executions: int, rows: Batch, novel: list[bool], findings: list[Finding] | None = None) -> Step:
    points = np.arange(2 * len(rows), dtype=np.float32).reshape(-1, 2) + executions
    return Step(
        executions, rows, points, np.zeros((len(rows), 1), np.float32), np.array(novel), findings or []
    )


def rows(*lists: list[int], parent: int = -1, operator: int = -1) -> Batch:
    return Batch.of([np.array(row, np.int32) for row in lists], parent, operator)


@pytest.fixture
def corpus() -> Corpus:
    corpus = Corpus(SPACE)
    corpus.add(rows([1], [2, 3]))
    return corpus


def test_everything_committed_reads_back(tmp_path: Path, corpus: Corpus) -> None:
    made = rows([4, 5, 6], [7], parent=1, operator=0)
    odd = finding("\ud800 \x00 'é", output="\udcff\x1b[31m\x00", parent=-1, operator=-1, margin=np.inf)
    odd_span = finding(evidence=Evidence("zounds", "", None))
    with Store.create(tmp_path / "a" / "c", META) as store:
        store.commit(state(0), corpus, OPERATORS)
        store.add(step(64, corpus[:2], [True, False]), corpus)
        corpus.add(made[:1])
        store.add(step(128, made, [False, True], [finding(), odd]), corpus)
        corpus.add(made[1:])
        store.add(step(192, made, [False, False], [odd_span]), corpus)
        for second in (0.0, 0.5, 1.25):
            store.sample(Sample(int(100 * second), second, second, 4, 2, 3, 0.1))
        numbered = store.commit(state(1), corpus, OPERATORS)
    assert [number for number, _ in numbered] == [1, 2, 3]
    record = CampaignRecord.read(tmp_path / "a" / "c")
    assert same(record.state, state(1))
    assert (record.identity, record.operators, record.spec) == ("toy", OPERATORS, Spec())
    back = record.rows
    for name in ("lengths", "parent", "operator"):
        assert getattr(back, name).tolist() == getattr(corpus[:4], name).tolist()
    assert [back.row(i).tolist() for i in range(4)] == [[1], [2, 3], [4, 5, 6], [7]]
    assert record.states.points.tolist() == [[64, 65], [130, 131]]
    first, second, third = record.findings
    assert (first.bucket, first.label) == ("phrases/zounds: zounds", "flaky 2/3")
    assert (first.row.tolist(), first.evidence.span) == ([1, 2], (1, 3))
    assert (second.parent, second.operator, second.margin) == (-1, -1, np.inf)
    assert (second.evidence.signature, second.output) == ("\\ud800 \x00 'é", "\\udcff\x1b[31m\x00")
    assert third.evidence.span is None
    assert [row.tolist() for row in record.states.rows] == [[1], [7]]
    assert record.states.births.tolist() == [64, 128]
    assert [record.lineage(replace(first, parent=row)) for row in (-1, 0, 2)] == [[], [0], [1, 2]]
    assert [record.operator(int(back.operator[row])) for row in (1, 2)] == ["", "insert"]
    with closing(sqlite3.connect(tmp_path / "a" / "c" / "campaign.db")) as db:
        assert db.execute("SELECT execution FROM rows").fetchall() == [(0,), (0,), (128,), (192,)]
    assert [sample.seconds for sample in record.samples] == [0.0, 1.25]


def test_what_was_not_committed_is_not_there(tmp_path: Path, corpus: Corpus) -> None:
    with Store.create(tmp_path / "c", META) as store:
        store.commit(state(0), corpus, OPERATORS)
        store.add(step(64, corpus[:2], [True, False], [finding()]), corpus)
    with Store.resume(tmp_path / "c") as store:
        assert store.record().findings == []
        assert len(store.record().states.points) == 0
        assert store.commit(state(1), corpus, OPERATORS) == []
        assert len(store.record().rows) == 2  # none twice


def test_a_commit_is_due_when_something_was_found(tmp_path: Path, corpus: Corpus) -> None:
    with Store.create(tmp_path / "c", META) as store:
        store.commit(state(0), corpus, OPERATORS)
        store._took = 0.0
        assert not store.due()
        store.add(step(64, corpus[:2], [True, False], [finding()]), corpus)
        assert store.due()
        store._took = 1.0  # a commit that takes long is put off
        assert not store.due()


def test_a_directory_is_for_one_process(tmp_path: Path, corpus: Corpus) -> None:
    with Store.create(tmp_path / "c", META) as store:
        store.commit(state(0), corpus, OPERATORS)
        with pytest.raises(UsageError, match=rf"in use by another lmfuzz \(process {os.getpid()}\)"):
            Store.resume(tmp_path / "c")
        assert CampaignRecord.read(tmp_path / "c").executions == 0  # looking is always fine
    Store.resume(tmp_path / "c").close()


def test_directories_that_are_no_place_for_a_campaign(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "empty").mkdir()
    Store.create(tmp_path / "empty", META).close()
    for name, sentence in (
        ("file", "is a file"),
        ("full", "not empty and holds no campaign"),
        ("empty", "lmfuzz resume"),
    ):
        with pytest.raises(UsageError, match=sentence):
            Store.create(tmp_path / name, META)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_what_is_not_a_campaign_is_said_to_be_none(tmp_path: Path) -> None:
    for make in (CampaignRecord.read, Store.resume):
        with pytest.raises(UsageError, match="there is no directory"):
            make(tmp_path / "missing")
        with pytest.raises(UsageError, match=r"it has no campaign\.db"):
            make(tmp_path)
    (tmp_path / "campaign.db").write_bytes(b"PK\x03\x04 something else entirely" * 99)
    for make in (CampaignRecord.read, Store.resume):
        with pytest.raises(UsageError, match="is not a campaign of lmfuzz"):
            make(tmp_path)
    (tmp_path / "campaign.db").unlink()
    with Store.create(tmp_path / "begun", META) as store, pytest.raises(UsageError, match="before it began"):
        store.record()
    db = sqlite3.connect(tmp_path / "begun" / "campaign.db")
    db.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    db.commit()
    db.close()
    with pytest.raises(UsageError, match="format 99"):
        CampaignRecord.read(tmp_path / "begun")


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path, corpus: Corpus) -> None:
    with Store.create(tmp_path / "c", META) as store:
        store.commit(state(0), corpus, OPERATORS)
        store.add(step(64, corpus[:2], [True, False], [finding("first")]), corpus)
        store.commit(state(1), corpus, OPERATORS)
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        corpus.add(rows([9], parent=0, operator=0))
        large = finding("second", output="x" * 100_000)
        store.add(step(128, corpus[:2], [True, False], [large]), corpus)
        with pytest.raises(DiskError, match="database or disk is full") as error:
            store.commit(state(2), corpus, OPERATORS)
        assert error.value.findings == [large]
        assert store.record().executions == 1
        store._db.execute(
            "PRAGMA max_page_count = 1000000"
        )  # room again: nothing is missing, nothing is twice
        assert [number for number, _ in store.commit(state(2), corpus, OPERATORS)] == [2]
        assert [f.evidence.signature for f in store.record().findings] == ["first", "second"]
        assert (len(store.record().rows), len(store.record().states.points)) == (3, 2)


def test_no_room_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str) -> sqlite3.Connection:
        db = connect(path, mode)
        db.execute("PRAGMA max_page_count = 2")
        return db

    connect = stores.connect
    monkeypatch.setattr(stores, "connect", full)
    with pytest.raises(DiskError, match="full"):
        Store.create(tmp_path / "c", META)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot create"):
        Store.create(tmp_path / "file" / "c", META)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_reads_a_campaign_with_a_system_prompt(tmp_path: Path) -> None:
    for system, modes in (("", None), ("The word is zounds.", (0o700, 0o600))):
        folder = tmp_path / f"c{len(system)}"
        with Store.create(folder, META, private=bool(system)):
            found = folder.stat().st_mode & 0o777, (folder / stores.DATABASE).stat().st_mode & 0o777
            assert modes in (None, found)
            assert system or found != (0o700, 0o600)
