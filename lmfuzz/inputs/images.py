"""The images that campaigns start from: known data sets, files and folders, checked as they are read."""

import gzip
import hashlib
import math
import os
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt
from PIL import Image

from lmfuzz.errors import UsageError, nearest, one_line
from lmfuzz.inputs.bundled import resource
from lmfuzz.types import IntArray

Bytes = npt.NDArray[np.uint8]

DATA = "LMFUZZ_DATA"  # the environment variable that names the folder of the data sets
LARGEST = 1 << 30  # bytes of a file: what promises or sends more is no file of images
PICTURES = (".png", ".jpg", ".jpeg")
RECORD = 1 + 3 * 32 * 32  # bytes of a CIFAR-10 image with its label
MNIST = {"mnist": "t10k", "mnist:train": "train"}
CIFAR = {"cifar10": ["test_batch.bin"], "cifar10:train": [f"data_batch_{i}.bin" for i in range(1, 6)]}
BATCHES = "cifar-10-batches-bin"
KNOWN = ("digits", *MNIST, *CIFAR)

HOSTS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "cifar10": "https://www.cs.toronto.edu/~kriz",
}
ARCHIVE = "cifar-10-binary.tar.gz"
SUMS = {  # sha256
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "cifar10": {ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
}


@dataclass(frozen=True, slots=True)
class Images:
    """N images of one size, at least one.

    values: uint8 (N, H, W, C), C 1 (grey) or 3 (red, green, blue).
    labels: int64 (N,) classes, or None where they are not known of all images.
    name: what was read.
    """

    values: Bytes
    labels: IntArray | None
    name: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> str:
        """Height and width, ``28x28``."""
        return "{}x{}".format(*self.values.shape[1:3])

    def first(self, count: int | None) -> "Images":
        """The first ``count`` images, or all where there are fewer or it is None."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, values=self.values[:count], labels=labels)


def read_images(sources: Sequence[str], count: int | None = None) -> Images:
    """The first ``count`` images of the sources, joined in order; ``digits`` where there are no sources.

    A source is ``digits`` (scikit-learn's, 8x8), ``mnist``, ``mnist:train``, ``cifar10``, ``cifar10:train``
    (below the folder LMFUZZ_DATA), or a path: an IDX file of images (its labels are found beside it),
    a CIFAR-10 ``.bin`` file, a PNG or JPEG file, or a folder of these. Where a folder has them in
    subfolders, the subfolders are the classes and one image of each comes in turn; its label is the
    subfolder's name where all are numbers, else its place in the order of names.

    Raises UsageError for what cannot be read, for images of several sizes, for a count below 1.
    """
    if count is not None and count < 1:
        raise UsageError(f"{count} images are none to start from; at least 1 is right")
    parts = [_read(source, count) for source in sources or ["digits"]]
    return _join(parts, ", ".join(dict.fromkeys(part.name for part in parts))).first(count)


def fitted(images: Images, shape: tuple[int, int, int]) -> Images:
    """The images as a model takes them: of ``shape`` (H, W, C), grey or in colour.

    Only ``digits`` is resized, as MNIST's digits are: 20 of 28 pixels high, the centre of mass in the
    middle. Raises UsageError for other images of another size, and when C is not 1 or 3.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise UsageError(f"the model takes {channels} channels; images have 1 (grey) or 3 (RGB)")
    values = images.values
    if values.shape[1:3] != (height, width):
        if images.name != "digits":
            raise UsageError(
                f"the images of {images.name} are {images.size}, the model takes {height}x{width};"
                " give it images of its size (only digits is resized without being asked)"
            )
        values = _framed(values[..., 0], height, width)
    return replace(images, values=_coloured(values, channels))


def download(name: str, folder: Path, base: str | None = None) -> Path:
    """The folder below ``folder`` that has MNIST's or CIFAR-10's files, fetched where they are not there.

    ``name`` is a source, such as ``mnist:train``; ``base`` the address of the folder to fetch from, in
    place of the data set's public host. What is fetched has the published sha256 sum, or it is not kept.
    Raises UsageError for another name, without a network, for a wrong sum and when writing fails.
    """
    name = name.partition(":")[0]
    if name not in SUMS:
        raise UsageError(f"{name} cannot be downloaded; {' and '.join(SUMS)} can")
    base = (base or HOSTS[name]).rstrip("/")
    place = folder / ("mnist" if name == "mnist" else BATCHES)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if name == "mnist":
            for file, right in SUMS[name].items():
                _fetch(f"{base}/{file}", place / file, right)
        elif not all((place / file).exists() for files in CIFAR.values() for file in files):
            archive = folder / ARCHIVE
            _fetch(f"{base}/{ARCHIVE}", archive, SUMS[name][ARCHIVE])
            _unpack(archive, place)
            archive.unlink()
    except (OSError, HTTPException, ValueError, tarfile.TarError, EOFError, zlib.error) as error:
        raise UsageError(
            f"cannot download {name} from {base} to {folder}: {one_line(error)};"
            f" put its files into {place} yourself, or take digits"
        ) from None
    return place


def _read(source: str, count: int | None) -> Images:
    """The images of one source, at most ``count``."""
    if source == "digits":
        return _digits().first(count)
    try:
        if source in MNIST:
            file = f"mnist/{MNIST[source]}-images-idx3-ubyte"
            images = _idx(_known(source, f"{file}.gz", file))
        elif source in CIFAR:
            files = [_known(source, f"{BATCHES}/{file}", f"cifar10/{file}") for file in CIFAR[source]]
            images = _join([_cifar(file) for file in files], source)
        else:
            images = _file(resource(source), count)
    except OSError as error:
        raise UsageError(f"cannot read the images in {source}: {error.strerror or error}") from None
    return replace(images, name=source).first(count)


def _known(source: str, *places: str) -> Path:
    """The first of the ``places`` below the folder LMFUZZ_DATA that is there."""
    root = os.environ.get(DATA)
    found = [path for place in places if root and (path := Path(root, place).expanduser()).exists()]
    if not found:
        why = f"{root} has no {places[0]}" if root else f"{DATA} is not set"
        raise UsageError(
            f"{source} is not there, {why}: set {DATA} to the folder that has {places[0]}, fetch it with"
            " --download, or take digits, which needs no files"
        )
    return found[0]


def _file(path: Path, count: int | None) -> Images:
    if path.is_dir():
        return _folder(path, count)
    if not path.exists():
        raise UsageError(
            f"there is no file or folder of images {path}{nearest(str(path), KNOWN)};"
            f" {', '.join(KNOWN)} are known by name"
        )
    suffix = path.suffix.lower()
    return _cifar(path) if suffix == ".bin" else _picture(path) if suffix in PICTURES else _idx(path)


def _digits() -> Images:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # takes a second

    digits = load_digits()
    values = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    return Images(values, digits.target.astype(np.int64), "digits")


def _idx(path: Path) -> Images:
    """An IDX file of images with the labels beside it, where there are any."""
    values = _array(path, 3, "images")
    beside = re.sub(r"images([.-])idx3", r"labels\1idx1", path.name)
    names = {beside, f"{beside}.gz", beside.removesuffix(".gz")} if beside != path.name else set()
    file = next((path.with_name(name) for name in sorted(names) if path.with_name(name).exists()), None)
    labels = None if file is None else _array(file, 1, "labels").astype(np.int64)
    if labels is not None and len(labels) != len(values):
        raise UsageError(f"{file} has {len(labels)} labels, but {path} has {len(values)} images")
    return Images(values[..., None], labels, str(path))


def _array(path: Path, axes: int, what: str) -> Bytes:
    """The bytes of an IDX file with so many axes; no more is unpacked than its header promises."""
    magic, length = bytes([0, 0, 8, axes]), 4 + 4 * axes
    header = _start(path, length)
    if header[:4] != magic:
        found = header[:4].hex() or "nothing"
        raise UsageError(f"{path} is no IDX file of {what}: it starts with {found}, not with {magic.hex()}")
    if len(header) < length:
        raise UsageError(f"{path} is cut off: an IDX file of {what} has a header of {length} bytes")
    shape = [int(n) for n in np.frombuffer(header, ">u4", offset=4)]
    promised = math.prod(shape)
    if not 0 < promised <= LARGEST:
        raise UsageError(f"{path} promises {promised} bytes of {what}; 1 to {LARGEST} are right")
    body = _start(path, length + promised + 1)[length:]
    if len(body) != promised:
        found = "more than that" if len(body) > promised else f"only {len(body)}"
        sizes = "x".join(map(str, shape))
        raise UsageError(f"{path} promises {promised} bytes of {what} ({sizes}) but has {found}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _start(path: Path, length: int) -> bytes:
    """The first bytes of a file, unpacked where it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(length)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is a broken gzip file, get it again: {one_line(error)}") from None


def _cifar(path: Path) -> Images:
    size = path.stat().st_size
    if not 0 < size <= LARGEST or size % RECORD:
        raise UsageError(f"{path} has {size} bytes; a CIFAR-10 file has {RECORD} for each image")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        wrong = int(np.argmax(labels > 9))
        raise UsageError(f"{path}: image {wrong + 1} has label {labels[wrong]}; CIFAR-10 has labels 0 to 9")
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, str(path))


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
        raise UsageError(f"the folder {path} holds no PNG or JPEG files, nor subfolders that do")
    return _join([_picture(file, label) for _, label, file in files[:count]], str(path))


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != ".")


def _picture(path: Path, label: int | None = None) -> Images:
    """One PNG or JPEG file; an alpha channel may be there when nothing shows through."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            clear = image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
            mode = image.mode
            if mode.startswith("I"):  # 16 bits; Pillow itself would clip them
                values = np.rint(np.asarray(image) / 257).astype(np.uint8)
            else:
                values = np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    except Exception as error:  # Pillow raises whatever a broken file leads it to
        raise UsageError(f"{path} cannot be read as a PNG or JPEG file: {one_line(error)}") from None
    if clear:
        raise UsageError(f"{path} has transparent pixels; save it without an alpha channel")
    if mode == "CMYK":
        raise UsageError(f"{path} has the inks of print (CMYK); save it in grey or RGB")
    labels = None if label is None else np.array([label], np.int64)
    return Images(values.reshape(1, *values.shape[:2], -1), labels, str(path))


def _join(parts: Sequence[Images], name: str) -> Images:
    """All images of the parts, in colour where one part is; labels where all parts have them."""
    for part in parts:
        if part.size != parts[0].size:
            raise UsageError(
                f"the images of {part.name} are {part.size}, those of {parts[0].name} {parts[0].size};"
                " images of one size are right"
            )
    channels = max(part.values.shape[3] for part in parts)
    values = np.concatenate([_coloured(part.values, channels) for part in parts])
    known = [part.labels for part in parts if part.labels is not None]
    return Images(values, np.concatenate(known) if len(known) == len(parts) else None, name)


def _coloured(values: Bytes, channels: int) -> Bytes:
    """(N, H, W, 1) as (N, H, W, 3), or the other way."""
    if channels == values.shape[3]:
        return values
    if channels == 3:
        return np.repeat(values, 3, axis=3)
    column = Image.fromarray(values.reshape(-1, *values.shape[2:]))  # one below the other: one call
    return np.array(column.convert("L")).reshape(*values.shape[:3], 1)


def _framed(values: Bytes, height: int, width: int) -> Bytes:
    """(N, 8, 8) as (N, height, width, 1), black around the digit, whose centre of mass is the middle."""
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


def _fetch(url: str, file: Path, right: str) -> None:
    """The file at ``url``, unless it is there and right; it has its name only once its sum was checked."""
    if file.exists() and _sum(file) == right:
        return
    part = file.with_name(file.name + ".part")
    try:
        with urlopen(url, timeout=30) as answer, part.open("wb") as out:
            while out.tell() <= LARGEST and (chunk := answer.read(1 << 20)):
                out.write(chunk)
        found = _sum(part)
        if found != right:
            raise UsageError(f"{url} has the sha256 sum {found}, but {right} is right; it was not kept")
        part.replace(file)
    except HTTPError as error:
        error.close()  # the connection is still open
        raise
    finally:
        part.unlink(missing_ok=True)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """CIFAR-10's batches out of its archive, and nothing else; no name in it decides where it goes."""
    wanted = {f"{BATCHES}/{file}": folder / file for files in CIFAR.values() for file in files}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name in wanted else None
            if content is not None:
                file = wanted.pop(member.name)
                part = file.with_name(file.name + ".part")
                part.write_bytes(content.read())
                part.replace(file)
    if wanted:
        raise UsageError(f"{archive} has no {' and no '.join(wanted)}; CIFAR-10's archive does")
