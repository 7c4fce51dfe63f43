"""Seeds from files and folders, checked against the space they must be legal in."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lmfuzz.errors import UsageError
from lmfuzz.inputs.bundled import PREFIX, resource
from lmfuzz.inputs.reading import read_text
from lmfuzz.inputs.spaces import BoxSpace, TextSpace
from lmfuzz.types import Batch, FloatArray

BUNDLED = f"{PREFIX}seeds"
TEXT = "text:"  # begins a seed that is a prompt itself, not a file
SAMPLES = 64  # random rows that a function of numbers is started from
Unknown = Literal["error", "drop"]


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seed rows, and what was not taken over on the way."""

    batch: Batch
    dropped: int = 0  # characters outside the alphabet
    left_out: int = 0  # rows that were too short without them, or bundled ones that do not fit
    repeated: int = 0  # rows that were there already

    @property
    def notes(self) -> list[str]:
        """Lines for a person about what was not taken over."""
        told = {
            "characters outside the model's alphabet, dropped from the seeds": self.dropped,
            "seeds left out because they do not fit the model": self.left_out,
        }
        return [f"{what}: {count}" for what, count in told.items() if count]


def read(paths: Sequence[str], space: TextSpace, unknown: Unknown = "error", bundled: str = BUNDLED) -> Seeds:
    r"""The distinct prompts in files and folders, in order; the ``bundled`` ones where ``paths`` is empty.

    A file holds one prompt per line, exactly as it stands (``\n`` is a backslash and an n); blank
    lines are skipped. In a .jsonl file every line is an object whose ``prompt`` is the text, which
    may then hold newlines. Of a folder its .txt and .jsonl files are read, in the order of names.
    ``text:Who goes`` is the prompt itself.

    Characters outside the alphabet are an error, or dropped where ``unknown`` is "drop"; a row that
    is too short without them is left out. Bundled rows which do not fit the space are left out.
    Raises UsageError with file and line for whatever else cannot be a seed.
    """
    rows: dict[str, None] = {}
    dropped = left_out = repeated = 0
    for place, text in _prompts(paths or [bundled]):
        drops = unknown == "drop" and not space.knows(text)
        kept = "".join(c for c in text if space.knows(c)) if drops else text
        wrong = _wrong(kept, space)
        if wrong and paths and not (kept != text and len(kept) < space.min_length):
            raise UsageError(f"{place}: {wrong}")
        dropped += len(text) - len(kept)
        left_out += bool(wrong)
        repeated += not wrong and kept in rows
        if not wrong:
            rows[kept] = None
    if not rows:
        raise UsageError(
            f"none of the prompts in {', '.join(paths) or bundled} fits {space.min_length} to "
            f"{space.max_length} {_unit(space)}; give others with --seeds"
        )
    return Seeds(Batch.of([space.encode(row) for row in rows]), dropped, left_out, repeated)


def read_box(paths: Sequence[str], space: BoxSpace, count: int | None, seed: int) -> Seeds:
    """Images (``digits`` where ``paths`` is empty), or rows of numbers from .npy files.

    Where a space that is no image has no files: ``count`` (64) random rows, drawn with ``seed``, the
    middle of the box the first. UsageError for whatever does not fit the space.
    """
    if space.image:
        from lmfuzz.inputs.images import fitted, read_images  # findings need Pillow, too: know it at once

    if paths and all(path.endswith(".npy") for path in paths):
        return Seeds(space.batch(space.settle(np.concatenate([_rows(path, space) for path in paths]))))
    if space.image:
        images = fitted(read_images(paths, count), (space.shape[0], space.shape[1], space.shape[2]))
        values = space.low + (space.high - space.low) * (images.values / np.float32(255))
        return Seeds(space.batch(space.settle(values)))
    if paths:
        raise UsageError(f"{paths[0]} is no .npy file; seeds of a function are arrays (N, *{space.shape})")
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = rng.uniform(space.low, space.high, size=(count or SAMPLES, *space.shape))
    drawn[0] = (space.low + space.high) / 2
    return Seeds(space.batch(space.settle(drawn)))


def _rows(path: str, space: BoxSpace) -> FloatArray:
    try:
        rows = np.load(resource(path), allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not an array as numpy.save writes it: {error}") from None
    if rows.shape[1:] != space.shape or not len(rows) or rows.dtype.kind not in "fiu":
        raise UsageError(f"{path} holds {rows.dtype} {rows.shape}; seeds are numbers {('N', *space.shape)}")
    if not space.legal(space.batch(rows)).all() and not space.step:
        raise UsageError(f"{path} holds values outside {space.low:g} to {space.high:g}, or not finite")
    found: FloatArray = rows.astype(np.float32)
    return found


def _wrong(text: str, space: TextSpace) -> str:
    """Why ``text`` is not legal in the space, or ''."""
    if not space.knows(text):
        odd = sorted({c for c in text if not space.knows(c)})
        shown = ", ".join(map(repr, odd[:5])) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
        some = f"characters {shown} are" if len(odd) > 1 else f"character {shown} is"
        return f"{some} not in the model's alphabet; --unknown drop drops such characters"
    try:
        length = len(space.encode(text))
    except UsageError as error:
        return str(error)
    unit = "characters" if space.tokens is None else "tokens"
    if length > space.max_length:
        return f"the prompt has {length} {unit}, the limit is {space.max_length} (--max-length)"
    if length < space.min_length:
        return f"the prompt has {length} {unit}, at least {space.min_length} are needed (--min-length)"
    return ""


def _unit(space: TextSpace) -> str:
    return "characters of the model's alphabet" if space.tokens is None else "of the model's tokens"


def _prompts(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every prompt with the place it stands at, ``file, line N``."""
    for text in paths:
        if text.startswith(TEXT):
            yield f"the seed {text.removeprefix(TEXT)!r}", text.removeprefix(TEXT)
            continue
        for file in _files(resource(text)):
            empty = True
            for number, line in enumerate(_lines(file), start=1):
                if line.strip():
                    place = f"{file}, line {number}"
                    yield place, _prompt(place, line) if file.suffix == ".jsonl" else line
                    empty = False
            if empty:
                raise UsageError(f"{file} holds no prompts; one per line is right")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [p for p in path.iterdir() if p.suffix in (".txt", ".jsonl") and p.name[0] != "."]
    if not files:
        raise UsageError(f"the folder {path} holds no .txt or .jsonl files to take seeds from")
    return sorted(files)


def _lines(file: Path) -> list[str]:
    """The lines of a file without their ends, which are LF or CRLF and nothing else."""
    return [line.removesuffix("\r") for line in read_text(file, "seed file or folder").split("\n")]


def _prompt(place: str, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        raise UsageError(f'{place}: not a JSON object with a text "prompt", such as {{"prompt": "Who goes"}}')
    return prompt
