"""The live view: nothing is cut without saying so, in terminals of any width, with and without colours."""

import re
from collections import Counter
from functools import partial
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from lmfuzz.budget import Budget
from lmfuzz.campaign.campaign import Campaign
from lmfuzz.cli.progress import CampaignView, progress_of
from lmfuzz.coverage.calibrate import Calibration
from lmfuzz.spec import Spec
from lmfuzz.storage.counters import Tally
from lmfuzz.types import Evidence, Finding, Step

OPERATORS = ["insert", "havoc", "splice", "duplicate_a_piece"]


def finding(output: str, span: tuple[int, int] | None, bucket: str = "regex/zounds") -> Finding:
    known = {
        "objective": bucket, "margin": 1.0, "evidence": Evidence("zounds", "says zounds", span),
        "row": np.zeros(3, np.int32), "prompt": "p" * 90, "output": output, "label": "confirmed",
        "bucket": f"{bucket}: zounds",
    }  # fmt: skip
    return cast("Finding", SimpleNamespace(**known))


def campaign() -> Campaign:
    count = len(OPERATORS)
    tally = Tally(640, 64, np.full(count, 160), np.arange(count))
    return cast("Campaign", SimpleNamespace(
        executor=SimpleNamespace(executions=123456, seconds=1.0), tally=tally, corpus=[1], archive=[1],
        kept=[1], budget=Budget.parse("200000x"), operators=OPERATORS, spec=Spec(budget="200000x"),
        calibration=Calibration(0.0, 1.0, 1.0, 1.0, 1.0),
        findings=SimpleNamespace(hits=Counter({"regex/zounds: zounds": 3, "b" * 80: 1}), kept=Counter(a=1)),
    ))  # fmt: skip


def shown(width: int, what: Any, **options: Any) -> str:
    """What is printed in a terminal of this width."""
    out = StringIO()
    console = Console(file=out, width=width, height=40, force_terminal=True, highlight=False, **options)
    what(CampaignView(partial(progress_of, campaign()), console), console)
    return (
        out.getvalue() if "color_system" in options else re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    )


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_cut_output_says_so_and_keeps_its_bad_part(width: int) -> None:
    text = "a" * 70 + "zounds" + "b" * 70
    line = shown(width, lambda s, _: s.found(7, finding(text, (70, 76))), no_color=True)
    assert len(line.rstrip("\n")) <= width
    assert "\u2026" not in line, "rich cut what lmfuzz should have"
    assert '-> "...aaa' in line
    assert "a>>>zounds<<<b" in line
    assert line.endswith('bbb..."\n')
    assert "regex/zounds  " in line, "objective and signature say the same"


def test_a_short_output_is_whole_and_in_colours_it_has_no_marks() -> None:
    short = finding("ab zounds", (3, 9))
    assert '"ab >>>zounds<<<"' in shown(100, lambda s, _: s.found(1, short), no_color=True)
    coloured = shown(100, lambda s, _: s.found(1, short), color_system="standard", no_color=False)
    assert "\x1b[1;31mzounds\x1b[0m" in coloured
    assert ">>>" not in coloured


def test_an_output_without_a_bad_part_is_cut_in_its_middle() -> None:
    line = shown(80, lambda s, _: s.found(1, finding("x" * 99 + "end", None)), no_color=True)
    assert 'end"\n' in line
    assert "x...x" in line


@pytest.mark.parametrize("width", [40, 80, 90, 100, 200])
def test_the_picture_cuts_no_word(width: int) -> None:
    text = shown(width, lambda s, console: console.print(s.picture()), no_color=True)
    assert "\u2026" not in text
    for word in ("executions/s", "last new state", "1 in 1 bucket", "of 200000x"):
        assert word in text
    assert ("yield per 1 000" in text) == ("zounds" in text) == (width >= 90)


def test_a_step_draws() -> None:
    assert "123456" in shown(
        80, lambda s, _: (s.__enter__(), s.step(cast("Step", None)), s.__exit__(None, None, None))
    )


def test_findings_are_counted_after_they_are_shown() -> None:
    made, out = campaign(), StringIO()
    view = CampaignView(partial(progress_of, made), Console(file=out, width=100))
    view._every = 0.0
    made.findings.kept.update(b=1)
    view.step()
    assert "1 finding in 1 bucket" in out.getvalue()
    view.found(2, finding("zounds", None))
    view.step()
    assert "2 findings in 2 buckets" in out.getvalue()


def test_what_is_drawn_below_a_finding_counts_it() -> None:
    out = StringIO()
    drawn = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    made = campaign()
    with CampaignView(partial(progress_of, made), drawn) as view:
        view.found(7, finding("zounds", None))
        after = out.getvalue().rpartition("zounds")[2]
    assert "7 in " in after
    assert "1 in 1 bucket" not in after
