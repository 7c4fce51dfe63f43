"""How long a campaign may run: executions, seconds or findings, whichever limit is reached first."""

import re
import time
from dataclasses import dataclass, field

from lmfuzz.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Budget:
    """Count what a campaign spends, and say when a limit is reached.

    Attributes:
        executions: limit on the rows that search and confirmations run; None for no limit.
        seconds: limit on wall time.
        findings: limit on findings.
        seconds_before: wall time spent before the campaign was resumed.
        spent_executions: all rows run, those of calibration included.
        calibration: rows run by calibration, which the limit does not count.
        spent_findings: findings so far.
        started: ``time.perf_counter()`` at the start.
    """

    executions: int | None = None
    seconds: float | None = None
    findings: int | None = None
    seconds_before: float = 0.0
    spent_executions: int = 0
    calibration: int = 0
    spent_findings: int = 0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read ``90s``, ``5m``, ``1.5h`` or ``200000x`` (executions).

        Raises UsageError for anything else, and for a budget of nothing.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])|(\d+)\s*x", text.strip())
        if match is None:
            raise UsageError(f"budget {text!r} is neither a time (90s, 5m, 1.5h) nor executions (200000x)")
        amount, unit, executions = match.groups()
        limit = int(executions) if executions else float(amount) * _SECONDS[unit]
        if not limit:
            raise UsageError(f"budget {text!r} is zero; give at least 1x, or some time such as 90s")
        return cls(executions=int(limit)) if executions else cls(seconds=limit)

    def elapsed(self) -> float:
        """Return the wall seconds spent, those before a resume included."""
        return self.seconds_before + time.perf_counter() - self.started

    def _shares(self) -> dict[str, float]:
        """Return the share of each limit that is spent, the first to be named as the reason first."""
        executions = self.spent_executions - self.calibration
        spent = {"findings": self.spent_findings, "executions": executions, "seconds": self.elapsed()}
        return {name: amount / limit for name, amount in spent.items() if (limit := getattr(self, name))}

    def reason(self) -> str:
        """Return the limit that is reached: ``executions``, ``seconds`` or ``findings``; '' if none is."""
        return next((name for name, share in self._shares().items() if share >= 1), "")

    def spent(self) -> bool:
        """Return whether the campaign must stop."""
        return bool(self.reason())

    def share(self) -> float:
        """Return how much of the executions or the time is spent, from 0 to 1."""
        return min(1.0, max([0.0, *(s for name, s in self._shares().items() if name != "findings")]))
