"""Hits, each confirmed alone, sorted into buckets, and kept with everything that a replay needs.

A bucket is a behaviour: what one objective found under one signature. Its findings may be variants of it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isqrt

import numpy as np

from lmfuzz.campaign.evaluator import Evaluator
from lmfuzz.storage.known import Known
from lmfuzz.types import SEED, Batch, BoolArray, Evidence, Finding, FloatArray, Minimal, State, Trace, alike

VARIANTS = 10  # kept of a bucket, each with as many findings as ``keep``
COUNTED = 1000  # variants that are counted apart
OTHERS = "others"  # stands for the variants after these


@dataclass(eq=False)
class Findings:
    """Confirm hits and keep at most ``keep`` findings per variant of a bucket; every hit is counted.

    Args:
        evaluator: what runs and judges rows.
        seeds: the rows that all others descend from.
        runs: how often a hit is run again to confirm it.
        keep: the maximum number of findings per variant; a bucket keeps VARIANTS times as many.
        per_seed: whether each seed has buckets of its own.
        shrink: what shrinks a finding when it is kept.
        known: the behaviour that is known already, whose hits are only counted.
        covering: whether rows that hit may count as coverage.

    Attributes:
        hits: bucket -> rows that fell into it, confirmed or not.
        known_hits: bucket that is known -> the same.
        variants: bucket -> variant -> the same.
        unmutated: bucket -> those of them that are seeds.
        kept: bucket -> findings.
        rare: which rows (B,) of the last batch hit, but nothing that is common by now.
    """

    evaluator: Evaluator
    seeds: Batch
    runs: int = 3
    keep: int = 3
    per_seed: bool = False
    shrink: Callable[[Finding], Minimal | None] | None = None
    known: Known = field(default_factory=lambda: Known({}, ()))
    covering: bool = True

    def __post_init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.known_hits: Counter[str] = Counter()
        self.variants: dict[str, Counter[str]] = {}
        self.unmutated: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.rare: BoolArray = np.zeros(0, np.bool_)
        self._filled: Counter[tuple[str, int]] = Counter()  # bucket and seed (or SEED for all) -> findings
        self._varied: Counter[tuple[str, int, str]] = Counter()  # the same, with the variant
        self._rows: set[tuple[str, int, bytes]] = set()

    def consider(self, batch: Batch, trace: Trace, margins: FloatArray, execution: int) -> list[Finding]:
        """Return the hits in a batch whose bucket is not full yet, each confirmed, as findings."""
        found, objectives = [], self.evaluator.objectives
        common = np.zeros(len(batch), np.bool_)
        for row, column in np.argwhere(margins > 0).tolist():
            evidence = objectives.evidence(batch, trace, row, column)
            bucket = f"{objectives.targets[column]}: {evidence.signature}"
            if self.known.covers(bucket, evidence.variant):
                self.known_hits[bucket if bucket in self.known else f"{bucket}/{evidence.variant}"] += 1
                common[row] = True
                continue
            variant, times = self._count(bucket, evidence.variant, bool(batch.parent[row] < 0))
            common[row] |= not _counts(times)
            place = bucket, int(batch.origin[row]) if self.per_seed else SEED
            key = *place, batch.row(row).tobytes()
            full = self._filled[place] >= VARIANTS * self.keep or self._varied[*place, variant] >= self.keep
            if full or key in self._rows:
                continue
            finding = self._finding(batch[row : row + 1], column, float(margins[row, column]), evidence)
            finding = replace(finding, output=str(trace["text"][row]), execution=execution)
            found.append(replace(finding, minimal=self.shrink(finding)) if self.shrink else finding)
            self._rows.add(key)
            self._filled[place] += 1
            self._varied[*place, variant] += 1
            self.kept[bucket] += 1
        self.rare = (margins > 0).any(axis=1) & ~common & self.covering
        return found

    def _count(self, bucket: str, variant: str, seed: bool) -> tuple[str, int]:
        """Count a row, and return the variant that it is counted as, and how often that was seen."""
        self.hits[bucket] += 1
        self.unmutated[bucket] += seed
        variants = self.variants.setdefault(bucket, Counter())
        if variant not in variants and len(variants) >= COUNTED:
            variant = OTHERS
        variants[variant] += 1
        return variant, variants[variant]

    def _finding(self, one: Batch, column: int, margin: float, evidence: Evidence) -> Finding:
        """The only row of a batch as a finding, confirmed; its output and execution are still missing."""
        again = self.evaluator.confirm(one, column, self.runs)
        by_text = self.evaluator.fails_by_text(one, column)
        objective, space = self.evaluator.objectives.targets[column], self.evaluator.target.space
        row, origin = one.row(0).copy(), int(one.origin[0])
        parent, operator = int(one.parent[0]), int(one.operator[0])
        distance = space.distance(row, self.seeds.row(origin))
        prompt = space.name(row, origin, distance)
        found = Finding(
            objective, margin, evidence, row, prompt, "", parent, operator, 0, again.failed, self.runs
        )
        return replace(found, unscored=again.unscored, origin=origin, distance=distance, by_text=by_text)

    def state(self) -> State:
        """Return the counts and the rows that were kept, for resume."""
        rows = [[bucket, seed, row.hex()] for bucket, seed, row in sorted(self._rows)]
        filled = [[bucket, seed, count] for (bucket, seed), count in self._filled.items()]
        varied = [[*place, count] for place, count in self._varied.items()]
        variants = {bucket: dict(counts) for bucket, counts in self.variants.items()}
        return {
            "hits": dict(self.hits), "kept": dict(self.kept), "known": dict(self.known_hits),
            "filled": filled, "rows": rows,
            "unmutated": dict(self.unmutated), "variants": variants, "varied": varied,
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Go on from ``state``."""
        self.hits, self.kept = Counter(state["hits"]), Counter(state["kept"])
        self.known_hits = Counter(state.get("known", {}))
        self._filled = Counter({(bucket, seed): count for bucket, seed, count in state["filled"]})
        self._rows = {(bucket, seed, bytes.fromhex(row)) for bucket, seed, row in state["rows"]}
        places = [*state["filled"], *((bucket, seed, 0) for bucket, seed, _ in self._rows)]
        places += [[bucket + variant, seed, n] for bucket, seed, variant, n in state.get("varied", [])]
        for bucket, seed, count in places:
            alike({"bucket": "", "seed": 0, "count": 0}, {"bucket": bucket, "seed": seed, "count": count})
        if "varied" in state:  # older campaigns knew no variants
            self.unmutated = Counter(state["unmutated"])
            self.variants = {bucket: Counter(counts) for bucket, counts in state["variants"].items()}
            self._varied = Counter({tuple(place): count for *place, count in state["varied"]})
        else:
            self._varied = Counter({(*place, ""): count for place, count in self._filled.items()})


def _counts(times: int) -> bool:
    """Whether the n-th hit of a variant may count as coverage: of n hits about 4 sqrt(n) do."""
    return isqrt(16 * times) > isqrt(16 * (times - 1))
