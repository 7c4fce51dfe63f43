"""What exported tests import: recorded findings, run again one by one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay
from lmfuzz.analysis.verdict import verdict_line
from lmfuzz.errors import TargetError, UsageError, printable
from lmfuzz.spec import Spec
from lmfuzz.storage.secrets import stands_for

MODEL = "LMFUZZ_MODEL"  # the variable that names another version of the model
SYSTEM = "LMFUZZ_SYSTEM"  # the variable that holds the system prompt, if the file does not


class RecordedFindings:
    """Run findings of a campaign again, on its model or on the one that LMFUZZ_MODEL names.

    Args:
        campaign: what ``lmfuzz export --format pytest`` recorded of the campaign.
        findings: what it recorded of each finding.

    Raises:
        Failed: pytest's failure, in one sentence, when the model or an objective cannot be loaded.
    """

    def __init__(self, campaign: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> None:
        try:
            recorded = Recorded.unpack(campaign, findings)
            recorded = replace(recorded, spec=_told(recorded.spec))
            self._replay = Replay(recorded, os.environ.get(MODEL) or None)
        except (TargetError, UsageError) as error:
            pytest.fail(f"the findings cannot be run again: {printable(str(error))}", pytrace=False)

    def check(self, number: int) -> None:
        """Fail the test, with the prompt and the output, unless finding ``number`` is fixed."""
        verdict = self._replay.judge(number)
        if not verdict.fixed:
            pytest.fail(verdict_line(verdict), pytrace=False)


def _told(spec: Spec) -> Spec:
    """The spec with the system prompt that LMFUZZ_SYSTEM holds, if only its length was exported."""
    if not (length := stands_for(spec.system)):
        return spec
    system = os.environ.get(SYSTEM, "")
    if len(system) != length:
        has = f"has {len(system)} characters" if system else "is not set"
        raise UsageError(f"{SYSTEM} {has}; it must hold the campaign's system prompt of {length} characters")
    return spec.model_copy(update={"system": system})
