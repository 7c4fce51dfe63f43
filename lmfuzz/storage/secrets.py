"""The system prompt, which may be a secret, in what is shown or handed on: only its length stands there.

What an objective looks for, such as the secret of ``echo``, is shown: a finding is about it.
"""

import re
from dataclasses import replace

from lmfuzz.text import plural
from lmfuzz.types import Evidence, Finding

_LEAST = 8  # characters of a system prompt that is looked for in other texts; a shorter one may be any word
_STAND_IN = re.compile(r"\[system prompt, (\d+) characters?\]")


def stand_in(secret: str) -> str:
    """Return ``[system prompt, N characters]``."""
    return f"[system prompt, {plural(len(secret), 'character')}]" if secret else ""


def stands_for(text: str) -> int:
    """Return how many characters the system prompt has that ``text`` stands for; 0 if it stands for none."""
    found = _STAND_IN.fullmatch(text)
    return int(found[1]) if found else 0


def conceal(text: str, secret: str) -> str:
    """Return a text with the stand-in wherever it holds the whole system prompt."""
    whole = secret.strip()  # as chat templates write it
    return text.replace(whole, stand_in(secret)) if len(whole) >= _LEAST else text


def concealed(finding: Finding, secret: str) -> Finding:
    """Return a finding as it may be shown; an output that held the system prompt has no marked place."""
    if finding.minimal is not None:
        small, output = finding.minimal, conceal(finding.minimal.output, secret)
        span = small.span if output == small.output else None
        small = replace(small, prompt=conceal(small.prompt, secret), output=output, span=span)
        finding = replace(finding, minimal=small)
    old, output = finding.evidence, conceal(finding.output, secret)
    span = old.span if output == finding.output else None
    signature, words, variant = (conceal(text, secret) for text in (old.signature, old.words, old.variant))
    evidence = Evidence(signature, words, span, variant)
    return replace(finding, prompt=conceal(finding.prompt, secret), output=output, evidence=evidence)
