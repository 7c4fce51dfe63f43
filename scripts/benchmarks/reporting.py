"""How long does a report take, and how large is it, for a thousand findings and a million executions?"""

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.campaigns import Eye
from benchmarks.figures import Measured, Options, Wrong, noted
from lmfuzz.campaign.build import build
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.coverage.archive import MANY
from lmfuzz.spec import Spec
from lmfuzz.storage.serialize import decode, encode

FINDINGS, EXECUTIONS, TURNS = 1000, 1_000_000, 3
SHORT, KEPT = "8000x", 3  # the campaign that is made longer; findings that a bucket keeps
COPIES = 100  # of its rows and states: more than a million executions of the bundled model bring
TEXTS = {  # what stands in every prompt, output, title and evidence, also of minimal rows
    "ordinary": "the quick brown fox's den lies under an old oak, " * 28,
    "hostile": "<'\"&" * 1250,
}


def measure(keys: list[str], options: Options) -> dict[str, Measured]:
    """``report_seconds``, the whole command, and ``report_mb``, the largest of that and of long texts."""
    findings, copies = (20, 2) if options.quick else (FINDINGS, COPIES)
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        directory, file = Path(folder) / "campaign", Path(folder) / "report.html"
        _campaign(directory, options.quick)
        rows, states = _lengthen(directory, findings, copies)
        seconds = [_report(directory, file) for _ in range(1 if options.quick else TURNS)]
        sizes = {"as found": file.stat().st_size / 1e6}
        for kind, text in TEXTS.items():
            _reword(directory, text)
            _report(directory, file)
            sizes[kind] = file.stat().st_size / 1e6
    what = f"{findings} findings, {rows} rows of the corpus, {states} states"
    line = noted(f"{what}: {', '.join(f'{s:.1f}' for s in seconds)} s")
    texts = noted(f"texts: {', '.join(f'{kind} {size:.2f} MB' for kind, size in sizes.items())}")
    return {
        "report_seconds": Measured(statistics.median(seconds), (line,)),
        "report_mb": Measured(max(sizes.values()), (texts,)),
    }  # fmt: skip


def _report(directory: Path, file: Path) -> float:
    """The seconds that the command takes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "lmfuzz", "report", str(directory), "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def _campaign(directory: Path, quick: bool) -> None:
    brief = {"budget": "600x", "max_new": 20, "count": 16, "objectives": ["regex:pattern=the"]}
    campaign = Campaign.begin(build(Spec(**(brief if quick else {"budget": SHORT, "max_new": 200}))))  # type: ignore[arg-type]
    with campaign.create(directory) as store:
        campaign.run(store, Eye(lambda _: None))
    if not campaign.kept:
        raise Wrong("the campaign that is reported found nothing")


def _lengthen(directory: Path, findings: int, copies: int) -> tuple[int, int]:
    """Make a short campaign as long as a million executions; how many rows and states it has then.

    Every copy of its corpus descends from the one before, and every copy of its states lies elsewhere.
    """
    rng = np.random.default_rng(0)
    with sqlite3.connect(directory / "campaign.db") as db:
        rows = db.execute("SELECT * FROM rows ORDER BY id").fetchall()
        states = db.execute("SELECT execution, row, point FROM states ORDER BY n").fetchall()
        ((last,),) = db.execute("SELECT max(execution) FROM rows")
        span = EXECUTIONS // copies
        for k in range(1, copies):
            before = rng.integers(len(rows), size=len(rows)) + (k - 1) * len(rows)
            places = "?, ?, ?, ?, ?, ?"
            db.executemany(f"INSERT INTO rows VALUES ({places})", [
                (i + k * len(rows), parent + k * len(rows) if parent >= 0 else int(older), how or "havoc",
                 origin, at * span // (last + 1) + k * span, row)
                for (i, parent, how, origin, at, row), older in zip(rows, before, strict=True)
            ])  # fmt: skip
            db.executemany("INSERT INTO states VALUES (NULL, ?, ?, ?)", [
                (at * span // (last + 1) + k * span, row, _moved(point, rng)) for at, row, point in states
            ])  # fmt: skip
        _multiply(db, findings, copies * len(rows))
        db.execute("DELETE FROM steps")
        ends = np.array([EXECUTIONS, 900, 850, copies * len(rows), copies * len(states), findings])
        steps = np.outer(np.linspace(0.01, 1, 900), ends).astype(int).tolist()  # one a second
        db.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, 0.1)", steps)
        _restate(db, copies * len(rows), copies * len(states), rng)
    db.close()
    return copies * len(rows), copies * len(states)


def _moved(point: bytes, rng: np.random.Generator) -> bytes:
    values = np.frombuffer(point, "<f4")
    return (values + rng.standard_normal(len(values))).astype("<f4").tobytes()


def _multiply(db: sqlite3.Connection, many: int, rows: int) -> None:
    """As many findings, KEPT in a bucket, at places and with parents spread over the whole campaign."""
    found = db.execute("SELECT * FROM findings ORDER BY id").fetchall()
    names = [name for _, name, *_ in db.execute("PRAGMA table_info(findings)")]
    db.execute("DELETE FROM findings")
    for n in range(1, many + 1):
        one: dict[str, Any] = dict(zip(names, found[n % len(found)], strict=True))
        signature = f"{one['signature']} {n // KEPT}"
        one |= {
            "id": n, "signature": signature, "bucket": f"{one['objective']}: {signature}",
            "execution": n * EXECUTIONS // many, "parent": n * rows // many - 1,
        }  # fmt: skip
        db.execute(f"INSERT INTO findings VALUES ({', '.join('?' * len(names))})", list(one.values()))


def _restate(db: sqlite3.Connection, rows: int, states: int, rng: np.random.Generator) -> None:
    state = decode(db.execute("SELECT value FROM state").fetchone()[0])
    state |= {"executions": EXECUTIONS, "seconds": 900.0, "time_in_target": 850.0, "corpus_size": rows}
    state |= {"archive_size": states, "visits": rng.integers(1, MANY + 1, states).astype(np.uint8)}
    state["tally"]["rows"] = EXECUTIONS
    state["findings"]["hits"] = dict(db.execute("SELECT bucket, count(*) FROM findings GROUP BY bucket"))
    db.execute("UPDATE state SET value = ?", (encode(state),))


def _reword(directory: Path, text: str) -> None:
    """Let every finding be shrunk, in a bucket of its own, with ``text`` wherever it has a text."""
    with sqlite3.connect(directory / "campaign.db") as db:
        words = "prompt = ?1, output = ?1, words = ?1, span = '[400, 440]'"
        db.execute(f"UPDATE findings SET {words}, signature = id || ?1", [text])
        db.execute("UPDATE findings SET bucket = objective || ': ' || signature")
        db.execute("DELETE FROM minimals")
        db.execute(
            "INSERT INTO minimals SELECT id, row, ?1, ?1, span, 9, 99, 3, 100, NULL FROM findings", [text]
        )
    db.close()
