"""Findings as JUnit's XML, as CI systems read it: a test per finding, and per seed, that fails or passes."""

from collections import Counter
from xml.etree import ElementTree

from lmfuzz.analysis.verdict import FAILS, OPEN, Verdict
from lmfuzz.exports.export_model import Dossier
from lmfuzz.text import bucket_title, escape, plural


def junit(dossier: Dossier) -> str:
    """Return one suite of findings, and one of seeds if these were run."""
    whole = ElementTree.Element("testsuites", name="lmfuzz")
    _suite(whole, dossier, "findings", [case for case in dossier.cases if not case.seed])
    if seeds := [case for case in dossier.cases if case.seed]:
        _suite(whole, dossier, "seeds", seeds)
    for key in ("tests", "failures", "errors", "skipped"):
        whole.set(key, str(sum(int(suite.get(key, 0)) for suite in whole)))
    ElementTree.indent(whole)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(whole, encoding="unicode")}\n'


def _suite(whole: ElementTree.Element, dossier: Dossier, name: str, cases: list[Verdict]) -> None:
    states = Counter(case.state for case in cases)
    known = dossier.known if name == "findings" else {}
    tests, skipped = len(cases) + len(known), len(known)
    counts = {"tests": tests or 1, "failures": states[FAILS], "errors": states[OPEN], "skipped": skipped}
    numbers = {key: str(count) for key, count in counts.items()}
    suite = ElementTree.SubElement(whole, "testsuite", {"name": f"lmfuzz {name}", **numbers, "time": "0"})
    about = ElementTree.SubElement(suite, "properties")
    for key, value in (("model", dossier.model), ("identity", dossier.identity)):
        ElementTree.SubElement(about, "property", name=key, value=escape(value))
    for case in cases:
        test = _test(suite, name, case.title)
        if case.state == FAILS:
            kind = escape(case.finding.objective)
            failure = ElementTree.SubElement(test, "failure", type=kind, message=case.line())
            failure.text = "\n".join(dossier.details(case))
        elif case.state == OPEN:
            ElementTree.SubElement(test, "error", type="unjudged", message=case.line())
    for bucket, hits in known.items():
        test = _test(suite, name, f"known: {bucket_title(bucket)}")
        ElementTree.SubElement(test, "skipped", message=f"known, and hit again: {plural(hits, 'hit')}")
    if not tests:  # some CI systems take a report without any test for a mistake
        _test(suite, name, "nothing was found")
    if dossier.about and name == "findings":
        ElementTree.SubElement(suite, "system-out").text = "\n".join(dossier.about)


def _test(suite: ElementTree.Element, kind: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=f"lmfuzz.{kind}", name=name, time="0")
