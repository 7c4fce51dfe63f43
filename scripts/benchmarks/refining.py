"""How small findings become, with how many executions, and how fast an archive is distilled."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.campaigns import Eye
from benchmarks.figures import Measured, Options, Wrong, noted, percent
from lmfuzz.analysis.distil import distil
from lmfuzz.campaign.build import build, shrinker
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.campaign.shrink import Shrinker
from lmfuzz.inputs.corpus import Corpus
from lmfuzz.inputs.spaces import TextSpace, describe
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.storage.store import Store
from lmfuzz.types import Finding, IntArray, Minimal, Step

SEEDS = (0, 1)  # of the campaigns whose findings are shrunk
COARSE = 1.5  # times the campaign's radius: where rows cover several states
LONG = 16  # symbols of a row of the archive that is distilled


def measure_shrink(keys: list[str], options: Options) -> dict[str, Measured]:
    """``shrink_ratio``, ``shrink_executions`` and ``shrink_minimal`` of findings of the bundled model."""
    shrunk: list[tuple[Finding, Minimal]] = []
    minimal, lost, seconds = 0, 0, 0.0
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        for seed in SEEDS[:1] if options.quick else SEEDS:
            directory = Path(folder) / str(seed)
            _campaign(directory, seed, options.quick)
            record = CampaignRecord.read(directory)
            shrinks = shrinker(record)
            for finding in record.findings:
                started = time.perf_counter()
                small = shrinks(finding)
                seconds += time.perf_counter() - started
                if small is None:
                    lost += 1
                    continue
                shrunk.append((finding, small))
                minimal += _is_minimal(shrinks, finding, small.row)
    if not shrunk:
        raise Wrong("nothing was found that could be shrunk")
    ratios = [len(small.row) / len(finding.row) for finding, small in shrunk]
    spent = [small.executions for _, small in shrunk]
    buckets = len({finding.bucket for finding, _ in shrunk})
    about = noted(
        f"{len(shrunk)} findings in {buckets} buckets, {lost} that did not fail again; after / before "
        f"{min(ratios):.2f} to {max(ratios):.2f}; executions {min(spent)} to {max(spent)}, median "
        f"{np.median(spent):.0f}; {seconds / len(shrunk):.2f} s each"
    )
    share = minimal / (len(shrunk) + lost)
    found = {
        "shrink_ratio": Measured(float(np.median(ratios)), (about,)),
        "shrink_executions": Measured(float(max(spent))),
        "shrink_minimal": Measured(share, (f"{percent(share)} of {len(shrunk) + lost} findings",)),
    }
    return {key: found[key] for key in keys}


def _campaign(directory: Path, seed: int, quick: bool) -> None:
    more = {"objectives": ["regex:pattern=the"], "count": 16} if quick else {}
    spec = Spec(budget="800x" if quick else "60000x", seed=seed, **more)  # type: ignore[arg-type]
    campaign = Campaign.begin(build(spec))
    with campaign.create(directory) as store:
        campaign.run(store, Eye(lambda step: None))


def _is_minimal(shrinker: Shrinker, finding: Finding, row: IntArray) -> bool:
    """Whether a row fails alone in the finding's bucket, and without any one symbol does not."""
    rests = [np.delete(row, i) for i in range(len(row))] if len(row) > 1 else []
    return _fails(shrinker, finding, row) and not any(_fails(shrinker, finding, rest) for rest in rests)


def _fails(shrinker: Shrinker, finding: Finding, row: IntArray) -> bool:
    objective, one = shrinker.evaluator.objectives, shrinker.space.batch([row])
    column = objective.targets.index(finding.objective)
    trace = shrinker.evaluator.run(one)
    if not objective(one, trace)[0, column] > 0:
        return False
    why = objective.evidence(one, trace, 0, column)
    return f"{finding.objective}: {why.signature}" == finding.bucket


def measure_distil(keys: list[str], options: Options) -> dict[str, Measured]:
    """``distil_seconds``: from a directory to a file, at the campaign's radius or a coarser one."""
    rows, dimensions = (400, 8) if options.quick else (20_000, 64)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((rows, dimensions)).astype(np.float32)
    radius = np.sqrt(dimensions) * 0.75
    seconds: list[float] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lmfuzz-bench-") as folder:
        _archive(Path(folder) / "campaign", points, float(radius), rng)
        for wanted in (radius, COARSE * radius):
            started, before = time.perf_counter(), time.process_time()
            done = distil(Path(folder) / "campaign", Path(folder) / "seeds.jsonl", float(wanted))
            took, seconds = time.perf_counter() - started, [*seconds, time.process_time() - before]
            cost = f"{seconds[-1]:.2f} s of the processor, {took:.2f} s by the clock"
            lines.append(f"within {wanted:.1f}: {done.rows} of {rows} rows, {cost}")
    return {key: Measured(max(seconds), tuple(map(noted, lines))) for key in keys}


def _archive(directory: Path, points: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """A campaign that has these points (N, D), of random rows, in its archive; there is no model of it."""
    space = TextSpace(tuple("abcdefghijklmnopqrstuvwxyz"))
    batch = space.batch(list(rng.integers(26, size=(len(points), LONG), dtype=np.int32)))
    new = np.ones(len(points), np.bool_)
    meta = {
        "space": describe(space), "spec": Spec().model_dump(), "identity": "none", "operators": [],
        "targets": [], "seeds": 1, "calibration": {"radius": radius, "stability": 0.0},
        "calibration_executions": 0,
    }  # fmt: skip
    state = {
        "executions": len(points), "seconds": 1.0, "time_in_target": 1.0, "reason": "", "trials": None,
        "corpus_size": len(points), "archive_size": len(points), "tally": Tally.of(0).state(),
        "findings": {"hits": {}, "kept": {}}, "panel": {"noise": {}, "unscored": {}, "errors": {}},
    }  # fmt: skip
    with Store.create(directory, meta) as store:
        corpus = Corpus(space)
        corpus.add(batch)
        margins = np.full((len(points), 1), -1, np.float32)
        store.add(Step(len(points), batch, points, margins, new, []), corpus)
        store.commit(state, corpus, [])
