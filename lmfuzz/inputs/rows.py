"""Which part of a row of data is the prompt: the row itself if it is a text, or one of its fields."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from lmfuzz.errors import UsageError, nearest

CONVERSATION = "messages"
FIELDS = ("prompt", "text", "question", "goal", CONVERSATION)  # looked for in this order, in any case
EXAMPLE = '{"prompt": "Who goes"}'
_TURN = '{"role": "user", "content": "Who goes"}'


class Prompt(NamedTuple):
    """Hold a prompt, the place where it was found, and whether it is a part of a conversation."""

    place: str
    text: str
    part: bool = False


def find_field(names: Sequence[str], place: str, field: str = "") -> str:
    """Return the field that holds the prompt, among ``names`` that a row or a table has.

    Args:
        names: the fields that there are.
        place: where, for error messages.
        field: the name that the user gave; ``a.b`` is the field b of the field a. '' for one of FIELDS.

    Raises:
        UsageError: there is no such field.
    """
    known = {name.lower(): name for name in reversed(names)}
    found = [known[name] for name in FIELDS if name in known]
    if field and (field in names or field.partition(".")[0] in names):
        return field
    if found and not field:
        return found[0]
    wanted = repr(field) if field else f"{', '.join(FIELDS[:-1])} or {FIELDS[-1]}"
    there = f"the fields are {', '.join(map(repr, names)):.200}" if names else "there are none"
    so = nearest(field, names) if field else "; name the right one with --seed-field"
    raise UsageError(f"{place}: no field is named {wanted} ({there}){so}")


def prompt_of(row: Any, place: str, field: str = "") -> Prompt:
    """Return the prompt in a row: a text, an object with a field that holds it, or a conversation.

    Of a conversation, a list of turns with ``role`` and ``content``, the last turn of the user is the prompt.

    Args:
        row: plain data, as JSON has it.
        place: where the row was found.
        field: as of ``find_field``.

    Raises:
        UsageError: there is no text in the row, or no such field.
    """
    name, value = "", row
    if isinstance(row, Mapping):
        name = find_field([key for key, held in row.items() if held is not None], place, field)
        value = row[name] if name in row else reduce(_inside, name.split("."), value)
    elif not isinstance(row, str | list):
        raise UsageError(f"{place}: {row!r} is not a prompt; give a text, or an object such as {EXAMPLE}")
    if isinstance(value, str) and name.lower() != CONVERSATION:
        return Prompt(place, value)
    turns = value if isinstance(value, list) else []
    asked = [turn for turn in turns if isinstance(turn, Mapping) and turn.get("role") == "user"]
    text = _content(asked[-1].get("content")) if asked else None
    if text is None:
        said = f"{name} is" if name else "it is"
        raise UsageError(f"{place}: {said} neither a text nor a list of turns such as {_TURN}")
    return Prompt(place, text, len(turns) > 1)


def is_conversation(value: Any) -> bool:
    """Return whether ``value`` is a list of turns."""
    return isinstance(value, list) and any(isinstance(turn, Mapping) and "role" in turn for turn in value)


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _content(content: Any) -> str | None:
    """The text of a turn, which some formats write in parts; None if not all of it is text."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [_inside(part, "text") for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None
