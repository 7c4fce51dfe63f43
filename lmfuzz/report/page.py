"""The page: everything a report says, in one HTML file that loads nothing and runs nothing of a stranger's.

Two fences, each enough by itself: Jinja escapes every text that it is given, and the page's policy allows
the two scripts whose hashes it names, pictures that stand in it, and no request to anywhere.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lmfuzz
from lmfuzz import files
from lmfuzz.errors import UsageError
from lmfuzz.report import charts, comparison
from lmfuzz.report.campaign_view import Account
from lmfuzz.report.findings_view import FILTERS, MOST
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import plural

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent


def write(directories: Sequence[Path], file: Path) -> None:
    """Write the report of the campaigns in ``directories``; UsageError where one is none, or it cannot."""
    text = render(directories)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(text, file)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


def render(directories: Sequence[Path]) -> str:
    """The report of the campaigns in ``directories`` as HTML; UsageError where one is no campaign."""
    names = comparison.names(directories) if len(directories) > 1 else [""]
    pairs = zip(map(CampaignRecord.read, directories), names, strict=True)
    return _page([Account(record, len(directories), name) for record, name in pairs])


def template(name: str) -> "jinja2.Template":
    """Read a template beside this file; it escapes every text that it is given."""
    import jinja2  # only where it is used

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    strict = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = strict
    environment.filters |= {"percent": _percent, **FILTERS}
    return environment.get_template(name)


def _page(accounts: Sequence[Account]) -> str:
    scripts = [_source("plotly-basic.min.js"), _source("page.js")]
    drawn: dict[str, Any] = {}
    for i, account in enumerate(accounts, start=1):
        for name, chart in (("growth", charts.growth), ("yield", charts.yields), ("map", charts.states)):
            drawn[f"{name}-{i}"] = chart(account)
    if len(accounts) > 1:
        drawn["comparison"] = charts.comparison(accounts)
    hits = comparison.hits(accounts)
    return template("page.html").render(
        accounts=accounts, charts={name: chart for name, chart in drawn.items() if chart is not None},
        scripts=scripts, hashes=[_hash(script) for script in scripts], style=_source("page.css"),
        version=lmfuzz.__version__, buckets=hits[:MOST], more=len(hits) - MOST, counted=plural,
        differences=comparison.differences(accounts),
        stars=[charts.stars(drawn[f"map-{i}"]) for i in range(1, len(accounts) + 1)],
    )  # fmt: skip


def _percent(share: float) -> str:
    """A probability, however small, in two digits."""
    return np.format_float_positional(float(f"{100 * share:.2g}"), trim="-") + " %"


def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
