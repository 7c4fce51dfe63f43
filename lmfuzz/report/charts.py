"""The charts of a report as plain data; the page gives them their looks.

Texts that plotly shows are escaped: it takes some tags, and links, in them for its own.
"""

import html
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from lmfuzz.report.campaign_view import Account
from lmfuzz.report.findings_view import Entry, brief
from lmfuzz.types import FloatArray

STEPS, POINTS = 400, 3000  # samples of a curve; states on the maps of all campaigns together
Chart = dict[str, Any]  # kind: how page.js draws it; data: traces of plotly
_html = partial(html.escape, quote=False)  # plotly would show &quot; as it is


def growth(account: Account) -> Chart:
    """Return the sizes of corpus and archive, and below them findings and buckets, over executions."""
    samples = account.samples(STEPS)
    at, end = [sample.executions for sample in samples], samples[-1].executions
    found = [finding.execution for finding in account.findings]
    return _stacked(
        "inputs, states",
        "found",
        _line("inputs in the corpus", at, [sample.corpus for sample in samples], 0),
        _line("states in the archive", at, [sample.archive for sample in samples], 2),
        _stairs("findings", found, end, 1),
        _stairs("buckets", [bucket.first for bucket in account.buckets], end, 3),
    )


def comparison(accounts: Sequence[Account]) -> Chart:
    """Return the states in the archives, and below them the buckets found, of several campaigns."""
    traces = []
    for i, account in enumerate(accounts):
        samples, name = account.samples(STEPS), _html(account.name)
        at = [sample.executions for sample in samples]
        found = _stairs(name, [bucket.first for bucket in account.buckets], at[-1], i)
        traces += [
            {**_line(name, at, [sample.archive for sample in samples], i), "legendgroup": str(i)},
            {**found, "legendgroup": str(i), "showlegend": False},
        ]
    return _stacked("states", "buckets", *traces)


def yields(account: Account) -> Chart | None:
    """Return how many of 1,000 inputs that an operator made were a new state or a hit; None without any."""
    if not (known := account.operators[::-1]):
        return None
    names, _, _, rates = zip(*known, strict=True)
    bars = {"x": [round(rate, 2) for rate in rates], "y": [_html(name) for name in names]}
    return {"kind": "bars", "data": [{**bars, "text": [f"{rate:.1f}" for rate in rates]}]}


def states(account: Account) -> Chart | None:
    """Return the visited states with the executions at which each was new, and findings; None if too few."""
    known = account.map(POINTS // account.campaigns)
    if known is None:
        return None
    born = known.born.tolist()
    texts = [f"new at execution {at:,}<br>{_html(text)}" for at, text in zip(born, known.texts, strict=True)]
    traces = [{**_points("states", known.places, texts), "born": born}]
    if known.findings:
        words = {one.number: _words(b.title, one) for b in account.shown for one in b.entries}
        texts = [words.get(n, f"finding {n}") for n in known.findings]
        traces.append(_points("findings", known.findings.values(), texts))
    return {"kind": "map", "data": traces}


def stars(chart: Chart | None) -> int:
    """Return how many findings a map shows."""
    return sum(len(trace["x"]) for trace in chart["data"] if trace["name"] == "findings") if chart else 0


def _words(title: str, entry: Entry) -> str:
    prompt, output = brief(entry.finding)
    before, bad, after = map(_html, output)
    bad = f"<b>{bad}</b>" if bad else ""
    return f"finding {entry.number}: {_html(title)}<br>{_html(prompt)}<br>{before}{bad}{after}"


def _stacked(upper: str, lower: str, *traces: dict[str, Any]) -> Chart:
    """Two charts one above the other, over executions."""
    return {"kind": "curves", "titles": [upper, lower], "data": traces}


def _line(name: str, x: Sequence[int], y: Sequence[int], colour: int) -> dict[str, Any]:
    return {"name": name, "x": list(x), "y": list(y), "colour": colour}


def _stairs(name: str, executions: Iterable[int], end: int, colour: int) -> dict[str, Any]:
    """How many were found by then, from 0 to the end, on the lower chart."""
    at = sorted(executions)
    return {**_line(name, [0, *at, end], [*range(len(at) + 1), len(at)], colour), "yaxis": "y2"}


def _points(name: str, places: Iterable[FloatArray], texts: list[str]) -> dict[str, Any]:
    x, y = ([float(f"{value:.4g}") for value in values] for values in zip(*places, strict=True))
    return {"name": name, "x": x, "y": y, "text": texts}
