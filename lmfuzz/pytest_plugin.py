"""The plug-in for pytest: a fixture that runs a campaign in a test."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lmfuzz.types import Finding

BUDGET = "2000x"  # rows, not seconds, so that a test comes to the same everywhere


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a campaign came to: its findings, in the order they were found, and its directory.

    unjudged: why it says nothing that nothing was found, or ''.
    """

    findings: "list[Finding]"
    directory: Path
    unjudged: str

    def check(self) -> None:
        """Fail the test, with the prompt and the output of every finding, unless nothing was found."""
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
    """Runs a campaign: ``lmfuzz_campaign(model="my.py:model", objectives=["repetition"]).check()``.

    Takes the keys of a campaign.toml, and ``target``: a ready target instead of a ``model``. The budget is
    2 000 rows unless it says another. A wrong key, or a model that cannot be loaded, fails the test.
    """

    def run(target: Any = None, **keys: Any) -> Outcome:
        from lmfuzz import spec as specs
        from lmfuzz.campaign.campaign import Campaign, Silent
        from lmfuzz.errors import TargetError, UsageError, printable
        from lmfuzz.targets.kinds import missing

        directory = tmp_path / f"campaign-{len(list(tmp_path.glob('campaign-*'))) + 1}"
        try:
            if target is not None and (lacks := missing(target)):
                raise UsageError(f"target, a {type(target).__name__}, is none: it lacks {', '.join(lacks)}")
            campaign = Campaign(specs.resolve({"budget": BUDGET, **keys}, {}, "lmfuzz_campaign(...)"), target)
            campaign.calibrate()
            with campaign.create(directory) as store:
                campaign.run(store, Silent())
        except (UsageError, TargetError) as error:
            wrong = printable(str(error))
        else:
            return Outcome(campaign.kept, directory, campaign.unjudged)
        pytest.fail(f"lmfuzz: {wrong}", pytrace=False)

    return run
