"""The data sets that are known by name: where their files are, and how they are fetched."""

import io
import os
import tarfile
import zlib
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from secrets import token_hex
from urllib.error import HTTPError
from urllib.request import urlopen

from lmfuzz.errors import UsageError, one_line
from lmfuzz.inputs.bundled import resource

DATA = "LMFUZZ_DATA"  # the environment variable with the folder of the data sets
LARGEST = 1 << 30  # bytes of a file of images at most
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
    """Return the image files of a data set, a key of FILES.

    Files of MNIST may be unpacked, and those of CIFAR-10 may be in a folder ``cifar10``. Raises UsageError
    for files that are not below the folder LMFUZZ_DATA.
    """
    if source == "digits":
        return [resource(place) for place in FILES[source]]
    root, found = os.environ.get(DATA), []
    for place in FILES[source]:
        places = place, place.removesuffix(".gz"), place.replace(BATCHES, "cifar10")
        there = [path for name in places if root and (path := Path(root, name).expanduser()).exists()]
        if not there:
            why = f"{root} has no {place}" if root else f"{DATA} is not set"
            so = f"set {DATA} to the folder with {place}, use --download, or take digits"
            raise UsageError(f"cannot find {source}: {why}; {so}")
        found.append(there[0])
    return found


def download(name: str, folder: Path, base: str | None = None) -> Path:
    """Fetch the files of MNIST or CIFAR-10 that are missing, and return the folder that has them.

    What is fetched must have the published sha256 sum, or it is not kept.

    Args:
        name: a source, such as ``mnist:train``.
        folder: where the folder of the data set goes.
        base: the address of the folder to fetch from, in place of the data set's public host.

    Raises:
        UsageError: for another name, without a network, for a wrong sum, and if the files cannot be written.
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
                if not ((place / file).exists() and _sum((place / file).read_bytes()) == right):
                    _keep(_fetch(f"{base}/{file}", right), place / file)
        elif not all((folder / file).exists() for file in CIFAR):
            archive = io.BytesIO(_fetch(f"{base}/{ARCHIVE}", SUMS[name][ARCHIVE]))
            with tarfile.open(fileobj=archive) as tar:
                for file in CIFAR:
                    _keep(tar.extractfile(file).read(), folder / file)  # type: ignore[union-attr]
    except (OSError, HTTPException, ValueError, tarfile.TarError, EOFError, zlib.error) as error:
        why, so = one_line(error), f"put its files into {place} yourself, or take digits"
        raise UsageError(f"cannot download {name} from {base} to {folder}: {why}; {so}") from None
    return place


def _fetch(url: str, right: str) -> bytes:
    """Return what is at ``url``; raise UsageError if its sha256 sum is not ``right``."""
    try:
        with urlopen(url, timeout=30) as answer:
            content: bytes = answer.read(LARGEST)
    except HTTPError as error:
        error.close()  # the connection is still open
        raise
    if (found := _sum(content)) != right:
        raise UsageError(f"{url} has the sha256 sum {found}, but {right} is right; it was not kept")
    return content


def _keep(content: bytes, file: Path) -> None:
    """Write a whole file, or leave what was there; nobody can guess the name of the draft."""
    draft = file.with_name(f"{token_hex(8)}.part")
    with draft.open("xb") as stream:
        stream.write(content)
    draft.replace(file)


def _sum(content: bytes) -> str:
    return sha256(content).hexdigest()
