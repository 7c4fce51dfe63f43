"""Seeds from files and folders, checked against the space in which they must be legal."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmfuzz.errors import UsageError, explaining
from lmfuzz.inputs.bundled import PREFIX, resource
from lmfuzz.inputs.prompts import prompts
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import Batch, FloatArray

BUNDLED = f"{PREFIX}seeds"
MODEL = "model:"  # what follows is how many prompts the model itself is to write
SAMPLES = 64  # random rows to start from
Unknown = Literal["error", "drop"]


@dataclass(frozen=True, slots=True)
class Seeds:
    """Hold the seed rows, and count what was not taken over.

    Attributes:
        batch: the rows.
        dropped: characters outside the alphabet.
        left_out: rows that were too short without these characters, or bundled ones that do not fit.
        repeated: rows that were there already.
        parts: conversations of which only the last turn of the user is a row.
        written: why the model wrote the rows though nobody asked it to; '' if it did not.
        lacking: how many of those left out have characters outside the alphabet.
    """

    batch: Batch
    dropped: int = 0
    left_out: int = 0
    repeated: int = 0
    parts: int = 0
    written: str = ""
    lacking: int = 0

    @property
    def notes(self) -> list[str]:
        """Lines for a person about what was not taken over."""
        remedy = f" ({self.lacking} for characters that it lacks, which --unknown drop drops)"
        remedy = remedy if self.lacking else ""
        told = {
            "characters outside the model's alphabet, dropped from the seeds": self.dropped,
            f"seeds left out because they do not fit the model{remedy}": self.left_out,
            "conversations of which only the last turn of the user is used": self.parts,
        }
        first = f"seeds: {len(self.batch)} written by the model, because {self.written}"
        return [first] * bool(self.written) + [f"{what}: {count}" for what, count in told.items() if count]


def read(
    sources: Sequence[str],
    space: TextSpace,
    unknown: Unknown = "error",
    bundled: str = BUNDLED,
    field: str = "",
    count: int | None = None,
) -> Seeds:
    r"""Return the distinct prompts in files and folders, in order.

    A text file has one prompt per line, exactly as it is (``\n`` is a backslash and an n); blank lines are
    skipped. See ``lmfuzz.inputs.prompts`` for the other formats.

    Args:
        sources: what to read.
        space: what the prompts must fit.
        unknown: whether characters outside the alphabet are an error, or dropped; rows that are too
            short without them are left out.
        bundled: what to read if there are no ``sources``; their characters are folded to those that the
            alphabet has (case, marks, quotes, dashes), and prompts that do not fit even so are left out.
        field: the field or column of the prompts; '' for a usual one.
        count: the number of prompts after which to stop reading ``sources``; None for all.

    Raises:
        UsageError: for anything that cannot be a seed, with file and line.
    """
    rows: dict[str, None] = {}
    dropped = left_out = repeated = parts = lacking = 0
    for place, text, part in prompts(sources or [bundled], field):
        if not (sources or space.knows(text)):
            text = "".join(_folded(character, space) for character in text)
        drops = unknown == "drop" and not space.knows(text)
        kept = "".join(c for c in text if space.knows(c)) if drops else text
        wrong = complaint(kept, space)
        if wrong and sources and not (kept != text and len(kept) < space.min_length):
            raise UsageError(f"{place}: {wrong}")
        dropped += len(text) - len(kept)
        left_out += bool(wrong)
        lacking += bool(wrong) and not space.knows(kept)
        repeated += not wrong and kept in rows
        parts += part
        if not wrong:
            rows[kept] = None
        if sources and len(rows) == count:
            break
    if not rows:
        unit = "characters of the model's alphabet" if space.tokens is None else "of the model's tokens"
        where, size = ", ".join(sources) or bundled, f"{space.min_length} to {space.max_length} {unit}"
        raise UsageError(f"no prompt in {where} has {size}; give others with --seeds")
    batch = Batch.of([space.encode(row) for row in rows])
    return Seeds(batch, dropped, left_out, repeated, parts, lacking=lacking)


def _folded(character: str, space: TextSpace) -> str:
    """A character as an alphabet has it: of another case, without marks, or as a typewriter writes it."""
    if space.knows(character):
        return character
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if (kind := unicodedata.category(character)) == "Pd":
        plain = "-"
    elif kind in ("Pi", "Pf"):
        plain = "'" if "SINGLE" in unicodedata.name(character) else '"'
    others = (plain, character.lower(), plain.lower(), character.upper(), plain.upper())
    return next((one for one in others if one and space.knows(one)), character)


def suit(bundled: str, space: TextSpace, unknown: Unknown = "error") -> bool:
    """Return whether the alphabet has at least half of the prompts, or, if others are dropped, characters."""
    texts = [prompt.text for prompt in prompts([bundled])]
    units = "".join(texts) if unknown == "drop" else texts
    return 2 * sum(map(space.knows, units)) >= len(units)


def read_box(paths: Sequence[str], space: BoxSpace, count: int | None, seed: int) -> Seeds:
    """Return images as seeds, or rows of numbers from .npy files.

    Args:
        paths: what to read. Without it, images are ``digits``, and other rows are drawn at random,
            except that the first is the middle of the box.
        space: what the rows must fit.
        count: how many rows to return at most, or to draw (64 if None).
        seed: of the random rows.

    Raises:
        UsageError: for anything that does not fit the space.
    """
    if space.image:
        from lmfuzz.inputs.images import fitted, read_images  # findings need Pillow, too, so fail now

    if paths and all(path.endswith(".npy") for path in paths):
        return Seeds(space.batch(space.settle(np.concatenate([_rows(path, space) for path in paths]))))
    if space.image:
        images = fitted(read_images(paths, count), (space.shape[0], space.shape[1], space.shape[2]))
        values = space.low + (space.high - space.low) * (images.values / np.float32(255))
        return Seeds(space.batch(space.settle(values)))
    if paths:
        raise UsageError(f"{paths[0]} is not a .npy file of an array of shape {('N', *space.shape)}")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = rng.uniform(space.low, space.high, size=(count or SAMPLES, *space.shape))
    drawn[0] = (space.low + space.high) / 2
    return Seeds(space.batch(space.settle(drawn)))


def _rows(path: str, space: BoxSpace) -> FloatArray:
    file = resource(path)
    if not file.exists():
        raise UsageError(f"there is no file {path}")
    with explaining(f"{path} is not an array that numpy.save wrote", UsageError):
        rows = np.lib.format.open_memmap(file, mode="r")  # which compares the header with the file's size
    if rows.shape[1:] != space.shape or not len(rows) or rows.dtype.kind not in "fiu":
        found, right = f"{rows.dtype} {rows.shape}", f"numbers {('N', *space.shape)}"
        raise UsageError(f"{path} holds {found}; seeds must be {right}")
    if not np.isfinite(rows).all():
        raise UsageError(f"{path} holds NaN or infinity; seeds must be finite numbers")
    if not space.legal(space.batch(rows)).all() and not space.step:
        raise UsageError(f"{path} has values that are not from {space.low:g} to {space.high:g}")
    return np.asarray(rows, np.float32)


def complaint(text: str, space: TextSpace) -> str:
    """Return why ``text`` is not legal in the space, or ''."""
    if not space.knows(text):
        odd = sorted({c for c in text if not space.knows(c)})
        shown = ", ".join(map(repr, odd[:5])) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
        some = f"characters {shown} are" if len(odd) > 1 else f"character {shown} is"
        return f"{some} not in the model's alphabet; --unknown drop drops such characters"
    try:
        length = len(space.encode(text))
    except UsageError as error:
        return str(error)
    unit = ("character" if space.tokens is None else "token") + "s" * (length != 1)
    if length > space.max_length:
        return f"the prompt has {length} {unit}, more than --max-length allows ({space.max_length})"
    if length < space.min_length:
        return f"the prompt has {length} {unit}, fewer than --min-length asks for ({space.min_length})"
    return ""
