"""How long a campaign may go on: executions, seconds, findings, whichever is set and spent first."""

import re
import time
from dataclasses import dataclass, field

from lmfuzz.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Budget:
    """``executions`` limits rows that search and confirmations run; ``seconds`` is wall time.

    ``spent_executions`` counts all rows, those of ``calibration`` included, which the limit does not.
    What a campaign spent before it was resumed is passed as ``spent_executions`` and ``seconds_before``.
    """

    executions: int | None = None
    seconds: float | None = None
    findings: int | None = None
    seconds_before: float = 0.0
    spent_executions: int = 0
    calibration: int = 0  # executions
    spent_findings: int = 0
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """``90s``, ``5m``, ``1.5h`` or ``200000x`` (executions); UsageError otherwise."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])|(\d+)\s*x", text.strip())
        if match is None:
            raise UsageError(f"budget {text!r} is neither a time (90s, 5m, 1.5h) nor executions (200000x)")
        amount, unit, executions = match.groups()
        budget = (
            cls(executions=int(executions)) if executions else cls(seconds=float(amount) * _SECONDS[unit])
        )
        if not (budget.executions or budget.seconds):
            raise UsageError(f"budget {text!r} is nothing at all; give at least one execution or some time")
        return budget

    def elapsed(self) -> float:
        """Wall seconds spent, those before a resume included."""
        return self.seconds_before + time.perf_counter() - self.started

    def reason(self) -> str:
        """Why the budget is spent: ``executions``, ``seconds``, ``findings``, or '' when it is not."""
        if self.findings is not None and self.spent_findings >= self.findings:
            return "findings"
        if self.executions is not None and self.spent_executions - self.calibration >= self.executions:
            return "executions"
        if self.seconds is not None and self.elapsed() >= self.seconds:
            return "seconds"
        return ""

    def spent(self) -> bool:
        """Whether the campaign must stop."""
        return bool(self.reason())

    def share(self) -> float:
        """How much of it is spent, 0 to 1."""
        shares = [0.0]
        if self.executions:
            shares.append((self.spent_executions - self.calibration) / self.executions)
        if self.seconds:
            shares.append(self.elapsed() / self.seconds)
        return min(1.0, max(shares))
