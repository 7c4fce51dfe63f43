"""The result of a campaign, and everything that can be done with it."""

from collections.abc import Sequence
from html import escape as html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmfuzz import files
from lmfuzz.analysis.recorded import Recorded
from lmfuzz.analysis.replay import Replay
from lmfuzz.analysis.shrink import shrink
from lmfuzz.analysis.summary import finding_record, summary, summary_lines
from lmfuzz.analysis.verdict import Verdict
from lmfuzz.api.given import Objects, path
from lmfuzz.api.progress import bar
from lmfuzz.api.running import go_on, silent
from lmfuzz.errors import extra
from lmfuzz.exports import formats
from lmfuzz.exports.export_model import campaign as exported
from lmfuzz.report import page
from lmfuzz.spec import NO_OBJECTS, Own, Spec
from lmfuzz.storage.record import CampaignRecord
from lmfuzz.targets.kinds import lent
from lmfuzz.text import WIDTH, bucket_title, escape, plural, quote_output, shorten
from lmfuzz.types import Alphabet, Finding

if TYPE_CHECKING:
    import pandas

SHOWN = 20  # findings that a notebook shows


class Result:
    """Hold a campaign that was run or opened.

    Attributes:
        directory: the directory of the campaign; a temporary one is deleted with the result.
        notes: lines about the campaign that a person should read.
        unjudged: why it means nothing that nothing was found; '' if that means something.
    """

    def __init__(
        self, directory: Path, own: Own = NO_OBJECTS, notes: Sequence[str] = (), unjudged: str = ""
    ) -> None:
        self.directory, self.notes, self.unjudged = directory, list(notes), unjudged
        self._own, self._record = own, CampaignRecord.read(directory)

    @property
    def spec(self) -> Spec:
        """Every setting of the campaign."""
        return self._record.spec

    @property
    def known(self) -> dict[str, int]:
        """How many inputs fell into each known bucket (see baseline and ignore in ``spec``)."""
        return dict(self._record.known)

    @property
    def findings(self) -> list[Finding]:
        """The findings, in the order in which they were found; finding number n is at index n - 1."""
        return self._record.findings

    @property
    def buckets(self) -> dict[str, list[Finding]]:
        """The findings of each bucket; the buckets are in the order in which they were found."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.bucket, []).append(finding)
        return found

    @property
    def executions(self) -> int:
        """How many inputs the model ran, re-runs and calibration included."""
        return self._record.executions

    @property
    def reason(self) -> str:
        """Why the campaign ended: executions, seconds, findings, done or interrupted; '' if it was killed."""
        return self._record.reason

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the campaign, as ``lmfuzz show --json`` prints them."""
        return summary(self._record)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the findings as a table, one per row, with the columns of ``lmfuzz show --json``.

        Raises:
            UsageError: pandas is not installed.
        """
        with extra("pandas"):
            import pandas
        records = [finding_record(finding, n) for n, finding in enumerate(self.findings, start=1)]
        return pandas.DataFrame(records)

    def report(self, file: str | Path | None = None, *, with_secrets: bool = False) -> Path:
        """Write the campaign as one HTML file that opens offline, and return its path.

        Args:
            file: the file to write; report.html in the campaign's directory if it is None.
            with_secrets: whether it shows the system prompt, and not only its length.

        Raises:
            UsageError: the file cannot be written.
        """
        place = self.directory / "report.html" if file is None else path(file, "file")
        files.check(place, makes_folder=True)
        page.write([self.directory], place, with_secrets)
        return place

    def export(self, format: str, file: str | Path | None = None, *, with_secrets: bool = False) -> str:
        """Return the findings as text for other programs, and also write them to a file if one is given.

        Args:
            format: jsonl, csv, pytest, junit, sarif or markdown.
            file: the file to write.
            with_secrets: whether it shows the system prompt, and not only its length.

        Raises:
            UsageError: there is no such format, or the file cannot be written.
        """
        text = formats.known(format)(exported(self.directory, with_secrets))
        if file is not None:
            files.check(path(file, "file"))
            files.write(text, Path(file))
        return text

    def replay(
        self,
        model: Any = None,
        *,
        seeds: bool = False,
        tokenizer: Any = None,
        alphabet: Alphabet | None = None,
    ) -> list[Verdict]:
        """Run every finding again, alone, and return a verdict on each.

        Args:
            model: another version of the model, as for ``fuzz``; the campaign's own if it is None.
            seeds: whether to run the seeds too, and report those that fail now.
            tokenizer: as for ``fuzz``.
            alphabet: as for ``fuzz``.

        Raises:
            UsageError: no input fits the model, or an objective is missing.
            TargetError: the model cannot be loaded, or raises on every input.
        """
        objects = Objects(tokenizer, alphabet, self._own)
        name = None if model is None else objects.model(model)
        with lent(objects.own):
            again = Replay(Recorded.of(self._record), name, objects.own)
            return [*again, *(again.seeds() if seeds else ())]

    def shrink(self, number: int | None = None) -> "Result":
        """Shrink the findings, or the one with this number, and return this result.

        Afterwards ``finding.minimal`` is the smallest input found that still fails, or None if the finding
        did not fail again.

        Raises:
            UsageError: there is no such finding, or the model is a different one now.
            DiskError: the disk is full.
        """
        with lent(self._own):
            for _ in shrink(self.directory, number, self._own):
                pass
        self._record = CampaignRecord.read(self.directory)
        return self

    def resume(
        self, budget: str | None = None, *, stop_after: int | None = None, progress: bool = True
    ) -> "Result":
        """Resume the search, with a larger budget if one is given, and return this result.

        Args:
            budget: the new budget, which includes what was spent; None for the old one.
            stop_after: the new number of findings after which to stop; None for the old one.
            progress: as for ``fuzz``.

        Raises:
            UsageError: nothing is left to spend, or the model or an objective is a different one now.
            TargetError: the model cannot be loaded.
            DiskError: the disk is full.
        """
        with lent(self._own):
            view = bar if progress else silent
            given = {"budget": budget, "stop_after": stop_after}
            campaign = go_on(self.directory, given, self._own, str, view)
        self.unjudged, self._record = campaign.unjudged, CampaignRecord.read(self.directory)
        return self

    def __repr__(self) -> str:
        found = [f"{plural(len(self.findings), 'finding')} in {plural(len(self.buckets), 'bucket')}"]
        buckets = [
            f"  {len(of)}  {bucket_title(bucket)}: {shorten(of[0].prompt)} -> {quote_output(of[0], WIDTH)}"
            for bucket, of in self.buckets.items()
        ]
        more = [f"  and {len(buckets) - SHOWN} more buckets"] if len(buckets) > SHOWN else []
        head = next(iter(summary_lines(self.summary())))
        notes = [self.unjudged] if self.unjudged else []
        return "\n".join([f"lmfuzz: {head}", *found, *buckets[:SHOWN], *more, *map(escape, notes)])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the summary, and a table of the first findings."""
        rows = [
            (str(n), bucket_title(one.bucket), one.label, shorten(one.prompt), quote_output(one, WIDTH))
            for n, one in enumerate(self.findings[:SHOWN], start=1)
        ]
        cells = ["".join(f"<td>{html(cell)}</td>" for cell in row) for row in rows]
        heads = "".join(f"<th>{head}</th>" for head in ("", "bucket", "label", "prompt", "output"))
        table = f"<table><tr>{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
        head = html(next(iter(summary_lines(self.summary()))))
        return f"<p>{head}</p><p>{html(repr(self).splitlines()[1])}</p>{table if rows else ''}"
