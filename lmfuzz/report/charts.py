"""The charts of a report, as plotly's traces and layouts: plain data; the page adds what theme it is in.

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
COLOURS = ("#4a78d9", "#d9772e", "#1d9a8a", "#c2528b", "#8a6bd1", "#7f8c2d")  # seen on light and dark
TIME = [[0, "#4a6fdc"], [0.5, "#1d9a8a"], [1, "#d9a22e"]]
FOUND = "#d6336c"
Chart = dict[str, Any]
_html = partial(html.escape, quote=False)  # plotly would show &quot; as it is


def growth(account: Account) -> Chart:
    """Corpus and archive, and below them findings and buckets, over executions."""
    samples = account.samples(STEPS)
    at, end = [sample.executions for sample in samples], samples[-1].executions
    return _stacked("rows, states", "found", [
        _line("rows of the corpus", at, [sample.corpus for sample in samples], 0),
        _line("states in the archive", at, [sample.archive for sample in samples], 2),
        {**_stairs("findings", [finding.execution for finding in account.findings], end, 1), "yaxis": "y2"},
        {**_stairs("buckets", [bucket.first for bucket in account.buckets], end, 3), "yaxis": "y2"},
    ])  # fmt: skip


def comparison(accounts: Sequence[Account]) -> Chart:
    """States in the archives, and below them buckets found, of several campaigns over executions."""
    traces = []
    for i, account in enumerate(accounts):
        samples, name = account.samples(STEPS), _html(account.name)
        at = [sample.executions for sample in samples]
        found = _stairs(name, [bucket.first for bucket in account.buckets], at[-1], i)
        traces += [
            {**_line(name, at, [sample.archive for sample in samples], i), "legendgroup": str(i)},
            {**found, "yaxis": "y2", "legendgroup": str(i), "showlegend": False},
        ]
    return _stacked("states", "buckets", traces)


def yields(account: Account) -> Chart | None:
    """Per operator, how many of a thousand of its rows were a new state or a hit; None without operators."""
    if not (known := account.operators[::-1]):
        return None
    names, _, _, rates = zip(*known, strict=True)
    bars = {
        "type": "bar", "orientation": "h", "x": [round(rate, 2) for rate in rates],
        "y": [_html(name) for name in names], "text": [f"{rate:.1f}" for rate in rates],
        "textposition": "auto", "hoverinfo": "none", "marker": {"color": COLOURS[0]}, "textangle": 0,
    }  # fmt: skip
    axes = {"xaxis": {"title": {"text": "fruitful rows in 1 000"}}, "yaxis": {"type": "category"}}
    return {"data": [bars], "layout": {"height": 110 + 24 * len(known), **axes}}


def states(account: Account) -> Chart | None:
    """Visited states coloured by when they were new, with findings; None where there are too few."""
    known = account.map(POINTS // account.campaigns)
    if known is None:
        return None
    born = known.born.tolist()
    colours = {
        "color": born, "colorscale": TIME, "size": 5, "opacity": 0.75,
        "colorbar": {"title": {"text": "execution"}, "thickness": 10, "len": 0.8, "tickformat": "~s"},
    }  # fmt: skip
    texts = [f"new at execution {at:,}<br>{_html(text)}" for at, text in zip(born, known.texts, strict=True)]
    traces = [_points("states", known.places, texts, colours)]
    if known.findings:
        mark = {"symbol": "star", "size": 13, "color": FOUND, "line": {"width": 1, "color": "#ffffff"}}
        words = {one.number: _words(b.title, one) for b in account.shown for one in b.entries}
        texts = [words.get(n, f"finding {n}") for n in known.findings]
        traces.append(_points("findings", known.findings.values(), texts, mark))
    first, second = ({"title": {"text": f"{name} principal axis"}} for name in ("first", "second"))
    layout = {"height": 520, "hovermode": "closest", "xaxis": first, "yaxis": second}
    return {"data": traces, "layout": layout}


def stars(chart: Chart | None) -> int:
    """How many findings a map shows."""
    return sum(len(trace["x"]) for trace in chart["data"] if trace["name"] == "findings") if chart else 0


def _words(title: str, entry: Entry) -> str:
    prompt, output = brief(entry.finding)
    before, bad, after = map(_html, output)
    bad = f"<b>{bad}</b>" if bad else ""
    return f"finding {entry.number}: {_html(title)}<br>{_html(prompt)}<br>{before}{bad}{after}"


def _stacked(upper: str, lower: str, traces: list[dict[str, Any]]) -> Chart:
    """Two charts one above the other, over executions."""
    return {"data": traces, "layout": {
        "height": 460, "hovermode": "x unified",
        "xaxis": {"title": {"text": "executions"}, "anchor": "y2", "rangemode": "tozero"},
        "yaxis": {"title": {"text": upper}, "domain": [0.46, 1], "rangemode": "tozero"},
        "yaxis2": {"title": {"text": lower}, "domain": [0, 0.38], "rangemode": "tozero"},
    }}  # fmt: skip


def _line(name: str, x: Sequence[int], y: Sequence[int], colour: int) -> dict[str, Any]:
    line = {"color": COLOURS[colour % 6], "dash": ("solid", "dash", "dot", "dashdot")[colour // 6 % 4]}
    return {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y), "line": line}


def _stairs(name: str, executions: Iterable[int], end: int, colour: int) -> dict[str, Any]:
    """How many were found by then, from 0 to the end."""
    at = sorted(executions)
    trace = _line(name, [0, *at, end], [*range(len(at) + 1), len(at)], colour)
    return {**trace, "line": {**trace["line"], "shape": "hv"}}


def _points(
    name: str, places: Iterable[FloatArray], texts: list[str], marker: dict[str, Any]
) -> dict[str, Any]:
    x, y = ([float(f"{value:.4g}") for value in values] for values in zip(*places, strict=True))
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "text": texts,
        "hoverinfo": "text", "marker": marker,
    }  # fmt: skip
