"""The data sets that are known by name: where their files lie, and how they are fetched."""

import hashlib
import os
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from lmfuzz import files
from lmfuzz.errors import UsageError, one_line
from lmfuzz.inputs.bundled import resource

DATA = "LMFUZZ_DATA"  # the environment variable that names the folder of the data sets
LARGEST = 1 << 30  # bytes of a file: what promises or sends more is no file of images
BATCHES = "cifar-10-batches-bin"
CIFAR = [f"{BATCHES}/test_batch.bin", *(f"{BATCHES}/data_batch_{i}.bin" for i in range(1, 6))]
FILES = {  # below that folder
    "digits": ["corpora:digits/images-idx3-ubyte.gz"],
    "mnist": ["mnist/t10k-images-idx3-ubyte.gz"],
    "mnist:train": ["mnist/train-images-idx3-ubyte.gz"],
    "cifar10": CIFAR[:1],
    "cifar10:train": CIFAR[1:],
}
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


def locate(source: str) -> list[Path]:
    """Return the files of images of a data set: a key of FILES.

    Files of MNIST may be unpacked, and those of CIFAR-10 in a folder ``cifar10``. Raises UsageError for
    what is not below the folder LMFUZZ_DATA.
    """
    if source == "digits":
        return [resource(place) for place in FILES[source]]
    root, found = os.environ.get(DATA), []
    for place in FILES[source]:
        places = place, place.removesuffix(".gz"), place.replace(BATCHES, "cifar10")
        there = [path for name in places if root and (path := Path(root, name).expanduser()).exists()]
        if not there:
            why = f"{root} has no {place}" if root else f"{DATA} is not set"
            raise UsageError(
                f"{source} is not there, {why}: set {DATA} to the folder that has {place}, fetch it with"
                " --download, or take digits, which needs no files"
            )
        found.append(there[0])
    return found


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
        elif not all((folder / file).exists() for file in CIFAR):
            archive = folder / ARCHIVE
            _fetch(f"{base}/{ARCHIVE}", archive, SUMS[name][ARCHIVE])
            with tarfile.open(archive) as tar:
                for file in CIFAR:
                    files.write(tar.extractfile(file).read(), folder / file)  # type: ignore[union-attr]
            archive.unlink()
    except (OSError, HTTPException, ValueError, tarfile.TarError, EOFError, zlib.error) as error:
        raise UsageError(
            f"cannot download {name} from {base} to {folder}: {one_line(error)};"
            f" put its files into {place} yourself, or take digits"
        ) from None
    return place


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
