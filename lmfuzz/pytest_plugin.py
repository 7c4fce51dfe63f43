"""The pytest plug-in: a fixture that runs a campaign in a test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lmfuzz.types import Finding

BUDGET = "2000x"  # executions, not seconds, so that a test has the same result everywhere


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a campaign found.

    Attributes:
        findings: the findings, in the order in which they were found.
        directory: the directory of the campaign.
        unjudged: why it means nothing that nothing was found; '' if that means something.
        known: how many inputs fell into each known bucket; these do not fail the test.
    """

    findings: "list[Finding]"
    directory: Path
    unjudged: str
    known: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Fail the test if something was found, with the prompt and the output of every finding."""
        from lmfuzz.errors import printable
        from lmfuzz.text import finding_line, plural, replay_command

        if self.unjudged:
            pytest.fail(f"lmfuzz: {printable(self.unjudged)}", pytrace=False)
        if self.findings:
            lines = [finding_line(n, finding) for n, finding in enumerate(self.findings, start=1)]
            again = f"run one again with: {printable(replay_command(self.directory, 1))}"
            head = f"lmfuzz: {plural(len(lines), 'finding')}"
            pytest.fail("\n".join([head, *lines, again]), pytrace=False)


@pytest.fixture
def lmfuzz_campaign(tmp_path: Path) -> Callable[..., Outcome]:
    """Run a campaign: ``lmfuzz_campaign(model="my.py:model", objectives=["repetition"]).check()``.

    The arguments are those of ``lmfuzz.fuzz``; ``target`` is a synonym of ``model``. Known buckets do
    not fail the test: ``baseline=["known.json"]``, ``ignore=["crash: *"]``. The budget is 2000
    executions unless another is given. A wrong setting, or a model that cannot be loaded, fails the test.
    """

    def run(target: Any = None, **given: Any) -> Outcome:
        from lmfuzz.api.entry import fuzz
        from lmfuzz.errors import TargetError, UsageError, printable

        directory = tmp_path / f"campaign-{len(list(tmp_path.glob('campaign-*'))) + 1}"
        model = {} if target is None else {"model": target}
        given = {"budget": BUDGET, "output": directory, "progress": False, **given, **model}
        try:
            result = fuzz(**given)
        except (UsageError, TargetError) as error:
            pytest.fail(f"lmfuzz: {printable(str(error))}", pytrace=False)
        return Outcome(result.findings, result.directory, result.unjudged, result.known)

    return run
