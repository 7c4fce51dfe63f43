"""Chat templates: what a prompt becomes, at a time that stands still."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from lmfuzz.errors import TargetError, UsageError, explaining
from lmfuzz.inputs.tokenizer import Tokens, common
from lmfuzz.targets.hf.options import HFOptions
from lmfuzz.targets.limited import Limited

_MARKS = ("lmfuzz's place", "a prompt")  # that begin and end differently, in whatever case
_BLANK = "  a  prompt  "
_TWICE = 8  # times that the same prompts must become the same
_LONGEST = 1_000_000  # characters that a template may write


class Template:
    """Render prompts as the chat template of a tokenizer does, as if all were written at one time.

    Templates are programs that come with a model: they run in a process of limited time and memory.

    Args:
        tokenizer: The tokenizer of transformers that has the template.
        how: The system prompt, and the time; if that is '', it is now.

    Attributes:
        clock: The time that the template is told, such as 2024-07-26T12:00:00; '' if it does not ask for it.
    """

    def __init__(self, tokenizer: Any, how: HFOptions) -> None:
        self._tokenizer, self._time = tokenizer, datetime.now().replace(microsecond=0)
        if how.clock:
            self._time = datetime.fromisoformat(how.clock)
        self.clock = self._time.isoformat() if "strftime_now" in str(tokenizer.chat_template) else ""
        self._turns = [{"role": "system", "content": how.system}] if how.system else []
        self._limited = Limited(self._rendered)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return the whole text that each prompt becomes.

        Raises:
            Exception: The template raises, does not end, or fills the memory; the message says what and why.
        """
        return self._limited(prompts)

    def _rendered(self, prompt: str) -> str:
        chat = [*self._turns, {"role": "user", "content": prompt}]
        with _at(self._time):
            found = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        if len(found) > _LONGEST:
            raise ValueError(f"it writes {len(found)} characters; at most {_LONGEST} are taken")
        return str(found)


@contextmanager
def _at(time: datetime) -> Iterator[None]:
    """Let the clock of all chat templates stand still: transformers takes no other from its callers."""
    module: Any = import_module("transformers.utils.chat_template_utils")
    clock, module.datetime = module.datetime, SimpleNamespace(now=lambda: time)
    try:
        yield
    finally:
        module.datetime = clock


def in_template(json: str, tokenizer: Any, name: str, how: HFOptions) -> Tokens:
    """Return a tokenizer with the chat template that each prompt is put into.

    Args:
        json: The tokenizer as its library writes it.
        tokenizer: The tokenizer of transformers.
        name: What errors call the model.
        how: The settings.

    Raises:
        UsageError: There is no template.
        TargetError: It cannot be used.
    """
    if not tokenizer.chat_template:
        raise UsageError(f"the tokenizer of {name} has no chat template; use --template raw")
    template = Template(tokenizer, how)
    remedy = f"{'leave out --system' if how.system else 'correct it'}, or use --template raw"
    with explaining(f"the chat template of {name} cannot be used ({remedy})"):
        several = [template([*_MARKS, _BLANK]) for _ in range(_TWICE)]
    *whole, spaced = several[0]
    if any(again != several[0] for again in several):
        raise TargetError(f"the chat template of {name} gives another text each time; use --template raw")
    before = "".join(common(whole))
    behind = "".join(common([text[len(before) :][::-1] for text in whole]))[::-1]
    if whole[0] == whole[1] or (how.system and how.system.strip() not in before + behind):
        lost = "prompt" if whole[0] == whole[1] else "system prompt"
        raise TargetError(f"the chat template of {name} leaves out the {lost}; use --template raw")
    strips = spaced == f"{before}{_BLANK.strip()}{behind}"
    return Tokens(json, before, behind, special=False, strips=strips, template=template)
