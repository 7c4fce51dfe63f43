"""The page: everything a report says, in one HTML file that loads nothing and runs only its own scripts.

Two defences, each enough by itself: Jinja escapes every text, and the page's policy allows the two scripts
whose hashes it names, pictures inside the page, and no request to anywhere.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import lmfuzz
from lmfuzz import files
from lmfuzz.report import charts, comparison
from lmfuzz.report.campaign_view import Account
from lmfuzz.report.findings_view import FILTERS, MOST
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.text import plural

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent


def write(directories: Sequence[Path], file: Path, with_secrets: bool = False) -> None:
    """Write the report of ``directories``; UsageError if one is not a campaign, or it cannot be written."""
    files.write(render(directories, with_secrets), file)


def render(directories: Sequence[Path], with_secrets: bool = False) -> str:
    """Return the report of ``directories`` as HTML; UsageError if one of them is not a campaign."""
    names = comparison.names(directories) if len(directories) > 1 else [""]
    records = [CampaignRecord.read(directory, with_secrets) for directory in directories]
    pairs = zip(records, names, strict=True)
    return _page([Account(record, len(directories), name) for record, name in pairs])


def template(name: str) -> "jinja2.Template":
    """Return the template of this name; it escapes every text that it is given."""
    import jinja2  # only when it is used

    loader, strict = jinja2.FileSystemLoader(FOLDER), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, undefined=strict, autoescape=True)
    environment.trim_blocks = environment.lstrip_blocks = True
    json = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = json
    environment.filters |= {"percent": _percent, "hash": _hash, "counted": plural, **FILTERS}
    return environment.get_template(name)


def _page(accounts: Sequence[Account]) -> str:
    scripts = [_source("plotly-basic.min.js"), _source("page.js")]
    kinds = {"growth": charts.growth, "yield": charts.yields, "map": charts.states}
    drawn: dict[str, charts.Chart | None] = {
        f"{name}-{i}": chart(one) for i, one in enumerate(accounts, start=1) for name, chart in kinds.items()
    }
    if len(accounts) > 1:
        drawn["comparison"] = charts.comparison(accounts)
    return template("page.html").render(
        accounts=accounts,
        charts={name: chart for name, chart in drawn.items() if chart is not None},
        stars=[charts.stars(drawn[f"map-{i}"]) for i in range(1, len(accounts) + 1)],
        scripts=scripts,
        style=_source("page.css"),
        version=lmfuzz.__version__,
        hits=comparison.hits(accounts),
        most=MOST,
        differences=comparison.differences(accounts),
    )


def _percent(share: float) -> str:
    """A probability, however small, as a percentage with two digits."""
    return np.format_float_positional(float(f"{100 * share:.2g}"), trim="-") + " %"


def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The name of a script in the page's policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
