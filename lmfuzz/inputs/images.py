"""The images that campaigns start from: data sets, files and folders, checked while they are read."""

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmfuzz.errors import UsageError, extra, nearest, one_line
from lmfuzz.inputs import datasets
from lmfuzz.inputs.bundled import resource
from lmfuzz.types import IntArray

with extra("image"):
    from PIL import Image

Bytes = npt.NDArray[np.uint8]

PICTURES = (".png", ".jpg", ".jpeg")
LARGEST = 4096 * 4096  # pixels of an image that is read, as many as a classifier takes
RECORD = 1 + 3 * 32 * 32  # bytes of a CIFAR-10 image with its label


@dataclass(frozen=True, slots=True)
class Images:
    """Hold N images of one size, at least one.

    Attributes:
        values: uint8 (N, H, W, C) with C = 1 (grey) or 3 (red, green, blue).
        labels: int64 (N,) classes, or None if some are not known.
        name: what was read.
    """

    values: Bytes
    labels: IntArray | None
    name: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> str:
        """Height and width, as ``28x28``."""
        return "{}x{}".format(*self.values.shape[1:3])

    def first(self, count: int | None) -> "Images":
        """Return the first ``count`` images, or all if there are fewer or it is None."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, values=self.values[:count], labels=labels)


def read_images(sources: Sequence[str], count: int | None = None) -> Images:
    """Return the images of the sources, joined in order.

    A source is ``digits`` (bundled, 8x8), ``mnist``, ``mnist:train``, ``cifar10``, ``cifar10:train`` (below
    the folder LMFUZZ_DATA), or a path: an IDX file of images (labels are found beside it), a CIFAR-10
    ``.bin`` file, a PNG or JPEG file, or a folder of these. If a folder has them in subfolders, then the
    subfolders are the classes, and one image of each comes in turn. Its label is the subfolder's name if
    all are numbers, otherwise its place in the order of names.

    Args:
        sources: what to read; ``digits`` if there is none.
        count: how many images to return at most.

    Raises:
        UsageError: for what cannot be read, for images of several sizes, and for a count below 1.
    """
    if count is not None and count < 1:
        raise UsageError(f"{count} images are too few to start from; ask for at least 1")
    parts = [_read(source, count) for source in sources or ["digits"]]
    return _join(parts, ", ".join(dict.fromkeys(part.name for part in parts))).first(count)


def fitted(images: Images, shape: tuple[int, int, int]) -> Images:
    """Return the images as a model takes them: of ``shape`` (H, W, C), grey or in colour.

    Only ``digits`` is resized, as MNIST's digits are: to 20 of 28 pixels, with the centre of mass in the
    middle. Raises UsageError for other images of another size, and if C is not 1 or 3.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise UsageError(f"the model takes {channels} channels; images have 1 (grey) or 3 (RGB)")
    values = images.values
    if values.shape[1:3] != (height, width):
        if images.name != "digits":
            wrong = f"the images of {images.name} are {images.size}, but the model takes {height}x{width}"
            raise UsageError(f"{wrong}; resize them (only digits is resized automatically)")
        values = _framed(values[..., 0], height, width)
    return replace(images, values=_coloured(values, channels))


def _read(source: str, count: int | None) -> Images:
    """Return the images of one source, at most ``count``."""
    try:
        if source in datasets.FILES:
            images = _join([_file(path, count) for path in datasets.locate(source)], source)
        else:
            images = _file(resource(source), count)
    except OSError as error:
        raise UsageError(f"cannot read the images in {source}: {error.strerror or error}") from None
    return replace(images, name=source).first(count)


def _file(path: Path, count: int | None) -> Images:
    if path.is_dir():
        return _folder(path, count)
    if not path.exists():
        known = f"{nearest(str(path), datasets.FILES)}; known by name are {', '.join(datasets.FILES)}"
        raise UsageError(f"there is no file or folder of images {path}{known}")
    suffix = path.suffix.lower()
    return _cifar(path) if suffix == ".bin" else _picture(path) if suffix in PICTURES else _idx(path)


def _idx(path: Path) -> Images:
    """Return the images of an IDX file, with the labels beside it if there are any."""
    values = _array(path, 3, "images")
    beside = re.sub(r"images([.-])idx3", r"labels\1idx1", path.name)
    names = {beside, f"{beside}.gz", beside.removesuffix(".gz")} if beside != path.name else set()
    file = next((path.with_name(name) for name in sorted(names) if path.with_name(name).exists()), None)
    labels = None if file is None else _array(file, 1, "labels").astype(np.int64)
    if labels is not None and len(labels) != len(values):
        raise UsageError(f"{file} has {len(labels)} labels, but {path} has {len(values)} images")
    return Images(values[..., None], labels, str(path))


def _array(path: Path, axes: int, what: str) -> Bytes:
    """Return the bytes of an IDX file with so many axes; unpack no more than its header promises."""
    magic, length = bytes([0, 0, 8, axes]), 4 + 4 * axes
    header = _start(path, length)
    if header[:4] != magic or len(header) < length:
        wrong, right = header.hex() or "empty", f"{length} bytes from {magic.hex()} on"
        raise UsageError(f"{path} is not an IDX file of {what}: its header is {wrong}, not {right}")
    shape = [int(n) for n in np.frombuffer(header, ">u4", offset=4)]
    promised = math.prod(shape)
    if not 0 < promised <= datasets.LARGEST:
        raise UsageError(f"{path} promises {promised} bytes of {what}; it must be 1 to {datasets.LARGEST}")
    body = _start(path, length + promised + 1)[length:]
    if len(body) != promised:
        found = "more" if len(body) > promised else f"only {len(body)}"
        raise UsageError(f"{path} promises {promised} bytes of {what} but has {found}; get it again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file, unpacked if it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(length)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is a broken gzip file; get it again: {one_line(error)}") from None


def _cifar(path: Path) -> Images:
    """Return the images of CIFAR-10's binary format: a label, then all red, green and blue values."""
    values = np.fromfile(path, np.uint8, datasets.LARGEST)
    if not len(values) or len(values) % RECORD or values[::RECORD].max() > 9:
        right = f"{RECORD} bytes per image, of which the first is its label, 0 to 9"
        raise UsageError(f"{path} is not a CIFAR-10 file, which has {right}")
    records = values.reshape(-1, RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return Images(planes.transpose(0, 2, 3, 1), records[:, 0].astype(np.int64), str(path))


def _folder(path: Path, count: int | None) -> Images:
    files: list[tuple[int, int | None, Path]] = [(0, None, file) for file in _pictures(path)]
    if not files:
        classes = sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
        numbers = all(re.fullmatch("[0-9]{1,9}", p.name) for p in classes)
        files = sorted(
            (turn, int(p.name) if numbers else i, file)
            for i, p in enumerate(classes)
            for turn, file in enumerate(_pictures(p))
        )
    if not files:
        raise UsageError(f"the folder {path} has no PNG or JPEG files, nor subfolders with some")
    return _join([_picture(file, label) for _, label, file in files[:count]], str(path))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != ".")


def _picture(path: Path, label: int | None = None) -> Images:
    """Return one PNG or JPEG file; an alpha channel is allowed if nothing shows through."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:  # reads no more than the header
            if image.width * image.height > LARGEST:
                right = f"an image has at most {LARGEST} pixels; make it smaller"
                raise UsageError(f"{path} is {image.height}x{image.width}: {right}")
            clear = image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
            mode = image.mode
            if mode.startswith("I"):  # 16 bits, which Pillow would clip
                values = np.rint(np.asarray(image) / 257).astype(np.uint8)
            else:
                values = np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    except UsageError:
        raise
    except Exception as error:  # a broken file can make Pillow raise anything
        raise UsageError(f"{path} cannot be read as a PNG or JPEG file: {one_line(error)}") from None
    if clear:
        raise UsageError(f"{path} has transparent pixels; save it without an alpha channel")
    if mode == "CMYK":
        raise UsageError(f"{path} is in CMYK; save it in grey or RGB")
    labels = None if label is None else np.array([label], np.int64)
    return Images(values.reshape(1, *values.shape[:2], -1), labels, str(path))


def _join(parts: Sequence[Images], name: str) -> Images:
    """Return all images of the parts, in colour if one part is, with labels if all parts have them."""
    for part in parts:
        if part.size != parts[0].size:
            wrong = f"the images of {part.name} are {part.size}, those of {parts[0].name} {parts[0].size}"
            raise UsageError(f"{wrong}; give images of one size")
    channels = max(part.values.shape[3] for part in parts)
    values = np.concatenate([_coloured(part.values, channels) for part in parts])
    known = [part.labels for part in parts if part.labels is not None]
    return Images(values, np.concatenate(known) if len(known) == len(parts) else None, name)


def _coloured(values: Bytes, channels: int) -> Bytes:
    """Return (N, H, W, 1) as (N, H, W, 3), or the other way round."""
    if channels == values.shape[3]:
        return values
    if channels == 3:
        return np.repeat(values, 3, axis=3)
    column = Image.fromarray(values.reshape(-1, *values.shape[2:]))  # all in one call
    return np.array(column.convert("L")).reshape(*values.shape[:3], 1)


def _framed(values: Bytes, height: int, width: int) -> Bytes:
    """Return (N, 8, 8) as (N, height, width, 1): digits on black, with the centre of mass in the middle."""
    side = max(1, round(min(height, width) * 20 / 28))
    size, smooth = (side, side), Image.Resampling.BILINEAR
    scaled = np.stack([np.asarray(Image.fromarray(image).resize(size, smooth)) for image in values])
    mass, steps = np.maximum(scaled.sum((1, 2)), 1), np.arange(side)
    top, left = (
        np.clip(np.rint(whole / 2 - scaled.sum(axis) @ steps / mass), 0, whole - side).astype(int)
        for whole, axis in ((height, 2), (width, 1))
    )
    framed = np.zeros((len(values), height, width, 1), np.uint8)
    rows, columns = (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None, :]
    framed[np.arange(len(values))[:, None, None], rows, columns, 0] = scaled
    return framed
