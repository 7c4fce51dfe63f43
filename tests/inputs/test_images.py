"""Data sets, files and folders of images: read, checked, fitted to a model, and fetched."""

import gzip
import hashlib
import io
import os
import shutil
import struct
import tarfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmfuzz.errors import UsageError
from lmfuzz.inputs import datasets
from lmfuzz.inputs.datasets import download
from lmfuzz.inputs.images import Images, fitted, read_images

RNG = np.random.default_rng(0)
needs_data = pytest.mark.skipif(
    "LMFUZZ_DATA" not in os.environ, reason="LMFUZZ_DATA names no folder with the data sets"
)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def some(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def file(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def png(path: Path, array: np.ndarray, **save: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **save)
    return str(path)


def cifar(values: np.ndarray, labels: list[int]) -> bytes:
    """(N, 32, 32, 3) as records: the label, then all red values, all green, all blue."""
    planes = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
    return np.column_stack([np.array(labels, np.uint8), planes]).tobytes()


def said(*sources: str, **more: object) -> str:
    with pytest.raises(UsageError) as raised:
        read_images(sources, **more)
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("LMFUZZ_DATA", str(folder))
    return folder


def test_digits_are_the_default_and_need_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMFUZZ_DATA", raising=False)
    digits = read_images([])
    assert digits.values.shape == (1797, 8, 8, 1)
    assert digits.values.dtype == np.uint8
    assert (digits.values.min(), digits.values.max()) == (0, 255)
    assert digits.name == "digits"
    assert digits.labels is not None
    assert digits.labels.dtype == np.int64
    assert digits.labels[:10].tolist() == list(range(10))
    few = read_images(["digits", "digits"], 1800)
    assert (len(few), few.name) == (1800, "digits")
    np.testing.assert_array_equal(few.values[1797:], digits.values[:3])


def test_digits_are_those_of_scikit_learn() -> None:
    digits = read_images(["digits"])
    assert digits.labels is not None
    sums = [hashlib.sha256(values.tobytes()).hexdigest() for values in (digits.values, digits.labels)]
    assert sums == [  # of rint(load_digits().images * (255 / 16)) as uint8, and of .target as int64
        "b41ca9fd335466eee997366c2e6f6bbe0a1b4582afe091fc4eba35f4a254182f",
        "a3c91c262eddcf7ba8f0e37507c30284493c9b20412ffe4af30d536401f7ba21",
    ]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    st.booleans(), st.booleans(), st.none() | st.integers(1, 7), st.randoms(use_true_random=False),
)  # fmt: skip
def test_idx_files_come_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int],
    packed: bool, labelled: bool, count: int | None, random: object,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("idx")
    values, labels = some(*shape), some(shape[0])
    ending, pack = (".gz", gzip.compress) if packed else ("", bytes)
    path = file(folder / f"my-images-idx3-ubyte{ending}", pack(idx(values)))
    if labelled:
        file(folder / "my-labels-idx1-ubyte", idx(labels))
    read = read_images([path], count)
    np.testing.assert_array_equal(read.values, values[:count, :, :, None])
    assert read.name == path
    if labelled:
        np.testing.assert_array_equal(read.labels, labels[:count])
    else:
        assert read.labels is None


def test_labels_are_found_under_the_usual_names_alone(tmp_path: Path) -> None:
    values, labels = idx(some(2, 3, 3)), idx(np.array([4, 200], np.uint8))
    for name, beside in (("a-images.idx3-ubyte", "a-labels.idx1-ubyte.gz"), ("a.idx", "a.idx.gz")):
        path = file(tmp_path / name, values)
        file(tmp_path / beside, gzip.compress(labels))
        read = read_images([path])
        assert (None if read.labels is None else read.labels.tolist()) == ([4, 200] if "3" in name else None)


def test_mnist_is_below_the_data_folder(data: Path) -> None:
    test, train = some(3, 28, 28), some(2, 28, 28)
    file(data / "mnist/t10k-images-idx3-ubyte.gz", gzip.compress(idx(test)))
    file(data / "mnist/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.array([1, 2, 3], np.uint8))))
    file(data / "mnist/train-images-idx3-ubyte", idx(train))
    np.testing.assert_array_equal(read_images(["mnist"]).values[..., 0], test)
    both = read_images(["mnist", "mnist:train"], 4)
    np.testing.assert_array_equal(both.values[..., 0], [*test, train[0]])
    assert both.labels is None  # those of one part are not known
    assert both.name == "mnist, mnist:train"


@needs_data
def test_the_real_mnist() -> None:
    mnist = read_images(["mnist"])
    assert mnist.values.shape == (10000, 28, 28, 1)
    assert mnist.labels is not None
    assert mnist.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(mnist.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_data
def test_digits_look_like_mnist() -> None:
    mnist, digits = read_images(["mnist"]), fitted(read_images([]), (28, 28, 1))
    assert mnist.labels is not None
    means = np.stack([mnist.values[mnist.labels == i].mean(0).ravel() for i in range(10)])
    rows = digits.values.reshape(len(digits), -1)
    alike = np.corrcoef(rows, means)[: len(rows), len(rows) :]
    assert (alike.argmax(1) == digits.labels).mean() > 0.5  # 0.83 of MNIST's own, 0.41 without the margin


@settings(derandomize=True, deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_cifar_files_come_back(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int], seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    path = file(tmp_path_factory.mktemp("cifar") / "a.bin", cifar(values, labels))
    read = read_images([path])
    np.testing.assert_array_equal(read.values, values)
    np.testing.assert_array_equal(read.labels, labels)


@pytest.mark.parametrize("folder", ["cifar10", "cifar-10-batches-bin"])
def test_cifar10_is_below_the_data_folder(data: Path, folder: str) -> None:
    values = some(6, 32, 32, 3)
    for i, name in enumerate(["test_batch", *(f"data_batch_{n}" for n in range(1, 6))]):
        file(data / folder / f"{name}.bin", cifar(values[i : i + 1], [i]))
    assert read_images(["cifar10"]).labels == [0]
    train = read_images(["cifar10:train"], 9)
    np.testing.assert_array_equal(train.values, values[1:])
    assert train.name == "cifar10:train"


def test_a_folder_of_pictures_is_read_by_name(tmp_path: Path) -> None:
    red, grey = some(3, 4, 3), some(3, 4)
    png(tmp_path / "b.PNG", red)
    path = png(tmp_path / "a.png", grey)
    file(tmp_path / "notes.txt", b"no picture")
    file(tmp_path / ".c.png", b"hidden")
    png(tmp_path / "deeper/d.png", grey)
    alone, folder = read_images([path]), read_images([str(tmp_path)])
    np.testing.assert_array_equal(alone.values, grey[None, :, :, None])
    assert folder.labels is None
    np.testing.assert_array_equal(folder.values, [np.stack([grey] * 3, axis=2), red])  # in colour as one is
    assert read_images([str(tmp_path)], 1).values.shape == (1, 3, 4, 1)


def test_a_jpeg_is_read_nearly_as_it_was(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(0, 128, 4), np.arange(0, 128, 4)).astype(np.uint8)
    read = read_images([png(tmp_path / "a.jpg", smooth, quality=95)]).values[0, :, :, 0]
    assert np.abs(read.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("names", "labels"),
    [(["cat", "dog", "eel"], [0, 1, 2]), (["10", "7", "9"], [10, 7, 9]), (["1", "b", "c"], [0, 1, 2])],
)
def test_subfolders_are_classes_that_come_in_turn(
    tmp_path: Path, names: list[str], labels: list[int]
) -> None:
    for name, label in zip(names, labels, strict=True):
        for turn in range(2):
            png(tmp_path / name / f"{turn}.png", np.full((2, 2), 10 * label + turn, np.uint8))
    read = read_images([str(tmp_path)])
    assert read.labels is not None
    assert read.labels.tolist() == sorted(labels) * 2
    np.testing.assert_array_equal(read.values[:, 0, 0, 0], 10 * read.labels + np.repeat([0, 1], 3))
    assert len(np.unique(read_images([str(tmp_path)], 3).labels)) == 3


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["1", "L", "LA", "RGB", "RGBA", "P", "I;16"]))
def test_pngs_of_every_mode_come_back(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, mode: str
) -> None:
    colour = Image.fromarray(some(height, width, 3))
    if mode == "I;16":
        deep = (some(height, width).astype(np.uint16) * 257).astype(np.uint16)
        image, expected = Image.fromarray(deep), (deep // 257).astype(np.uint8)[..., None]
    else:
        image = colour.convert(mode)
        expected = np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
        expected = expected.reshape(height, width, -1)
    path = tmp_path_factory.mktemp("png") / "a.png"
    image.save(path)
    np.testing.assert_array_equal(read_images([str(path)]).values, expected[None])


def test_pictures_that_are_no_grey_or_rgb_get_a_sentence(tmp_path: Path) -> None:
    clear = some(3, 3, 4)
    clear[0, 0, 3] = 254
    path = png(tmp_path / "a.png", clear)
    assert said(path) == f"{path} has transparent pixels; save it without an alpha channel"
    inks = tmp_path / "b.jpg"
    Image.new("CMYK", (4, 4), (9, 9, 9, 9)).save(inks)
    assert said(str(inks)) == f"{inks} is in CMYK; save it in grey or RGB"


@pytest.mark.parametrize("cut", [0, 5, 30, 60, -25])
def test_broken_pictures_get_a_sentence(tmp_path: Path, cut: int) -> None:
    path = png(tmp_path / "a.png", some(20, 20))
    whole = Path(path).read_bytes()
    file(tmp_path / "a.png", whole[:cut])
    assert said(path).startswith(f"{path} cannot be read as a PNG or JPEG file: ")
    wrong = bytearray(whole)
    wrong[60:200] = bytes(140)
    file(tmp_path / "a.png", bytes(wrong))
    assert said(str(tmp_path)).startswith(f"{path} cannot be read as a PNG or JPEG file: ")


IDX = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
HUGE = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "{} is not an IDX file of images: its header is empty, not 16 bytes from 00000803 on"),
        (
            b"<!DOCTYP",
            "{} is not an IDX file of images: its header is 3c21444f43545950, not 16 bytes from 00000803 on",
        ),
        (
            idx(np.zeros(3, np.uint8)),
            "{} is not an IDX file of images: its header is 0000080100000003000000,"
            " not 16 bytes from 00000803 on",
        ),
        (
            IDX[:8],
            "{} is not an IDX file of images: its header is 0000080300000003, not 16 bytes from 00000803 on",
        ),
        (IDX[:-1], "{} promises 12 bytes of images but has only 11; get it again"),
        (IDX[:16], "{} promises 12 bytes of images but has only 0; get it again"),
        (IDX + b"x", "{} promises 12 bytes of images but has more; get it again"),
        (idx(np.zeros((0, 2, 2), np.uint8)), "{} promises 0 bytes of images; it must be 1 to 1073741824"),
        (HUGE, f"{{}} promises {(2**32 - 1) ** 3} bytes of images; it must be 1 to 1073741824"),
    ],
)
def test_wrong_idx_files_get_a_sentence(tmp_path: Path, pack: type, content: bytes, sentence: str) -> None:
    path = file(tmp_path / "images.gz", pack(content))
    assert said(path) == sentence.format(path)


@pytest.mark.parametrize("harm", ["cut", "flipped", "followed"])
def test_broken_gzip_files_get_a_sentence(tmp_path: Path, harm: str) -> None:
    whole = bytearray(gzip.compress(IDX))
    whole[-8] ^= harm == "flipped"  # its checksum
    content = whole[:-9] if harm == "cut" else whole + b"tail" * (harm == "followed")
    path = file(tmp_path / "a-images-idx3-ubyte.gz", bytes(content))
    assert said(path).startswith(f"{path} is a broken gzip file; get it again: ")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    read = gzip.GzipFile.read

    def spy(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        content = read(self, size)
        taken.append(len(content))
        return content

    path = file(tmp_path / "bomb.gz", gzip.compress(IDX + bytes(50_000_000)))
    monkeypatch.setattr(gzip.GzipFile, "read", spy)
    assert said(path).endswith("has more; get it again")
    assert max(taken) == len(IDX) + 1


def test_labels_must_fit_the_images(tmp_path: Path) -> None:
    path = file(tmp_path / "a-images-idx3-ubyte", IDX)
    beside = file(tmp_path / "a-labels-idx1-ubyte", idx(np.zeros(4, np.uint8)))
    assert said(path) == f"{beside} has 4 labels, but {path} has 3 images"
    file(tmp_path / "a-labels-idx1-ubyte", IDX)
    assert said(path) == (
        f"{beside} is not an IDX file of labels: its header is 0000080300000003, not 8 bytes from 00000801 on"
    )


@pytest.mark.parametrize(
    "content", [b"", bytes(3072), bytes(3074), cifar(some(3, 32, 32, 3), [9, 10, 0])], ids=len
)
def test_wrong_cifar_files_get_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = file(tmp_path / "a.bin", content)
    right = "3073 bytes per image, of which the first is its label, 0 to 9"
    assert said(path) == f"{path} is not a CIFAR-10 file, which has {right}"


def test_missing_places_get_a_sentence(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said("mnits") == (
        "there is no file or folder of images mnits; did you mean 'mnist'?; known by name are"
        " digits, mnist, mnist:train, cifar10, cifar10:train"
    )
    (tmp_path / "empty/deeper").mkdir(parents=True)
    assert said(f"{tmp_path}/empty") == (
        f"the folder {tmp_path}/empty has no PNG or JPEG files, nor subfolders with some"
    )
    first = {"mnist": "mnist/t10k-images-idx3-ubyte.gz", "cifar10": "cifar-10-batches-bin/test_batch.bin"}
    for known, place in first.items():
        rest = f"set LMFUZZ_DATA to the folder with {place}, use --download, or take digits"
        monkeypatch.setenv("LMFUZZ_DATA", str(data))
        assert said(known) == f"cannot find {known}: {data} has no {place}; {rest}"
        monkeypatch.delenv("LMFUZZ_DATA")
        assert said(known) == f"cannot find {known}: LMFUZZ_DATA is not set; {rest}"


def test_what_cannot_be_opened_gets_a_sentence(tmp_path: Path) -> None:
    path = file(tmp_path / "a-images-idx3-ubyte", IDX)
    (tmp_path / "a-labels-idx1-ubyte").mkdir()
    assert said(path) == f"cannot read the images in {path}: Is a directory"


def test_a_count_is_at_least_one() -> None:
    assert said(count=0) == "0 images are too few to start from; ask for at least 1"


def test_sources_have_one_size(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", some(3, 4))
    assert said("digits", path) == (
        f"the images of {path} are 3x4, those of digits 8x8; give images of one size"
    )


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (40, 28), (8, 20), (4, 4)])
def test_digits_are_centred_with_a_margin(shape: tuple[int, int]) -> None:
    digits = read_images([])
    for channels in (1, 3):
        large = fitted(digits, (*shape, channels))
        assert large.values.shape == (1797, *shape, channels)
        assert large.labels is digits.labels
    ink = large.values[..., 0].astype(float)
    side = round(min(shape) * 20 / 28)
    for axis, whole in ((2, shape[0]), (1, shape[1])):
        profile = ink.sum(axis)
        assert ((profile > 0).sum(1) <= side).all()
        centre = (profile @ np.arange(whole) / profile.sum(1)).mean()
        assert abs(centre - whole / 2) <= 0.5
    assert ink.max() > 200


def test_other_images_keep_their_size() -> None:
    mine = Images(some(2, 9, 7, 1), None, "mine")
    with pytest.raises(UsageError) as raised:
        fitted(mine, (28, 28, 1))
    assert str(raised.value) == (
        "the images of mine are 9x7, but the model takes 28x28;"
        " resize them (only digits is resized automatically)"
    )
    with pytest.raises(UsageError, match=r"takes 4 channels; images have 1 \(grey\) or 3 \(RGB\)"):
        fitted(mine, (9, 7, 4))
    assert fitted(mine, (9, 7, 1)).values is mine.values
    digits = read_images([], 3)
    np.testing.assert_array_equal(fitted(digits, (8, 8, 1)).values, digits.values)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_grey_and_colour_are_converted(n: int, height: int, width: int) -> None:
    grey = Images(some(n, height, width, 1), None, "grey")
    colour = fitted(grey, (height, width, 3))
    np.testing.assert_array_equal(colour.values, np.repeat(grey.values, 3, axis=3))
    np.testing.assert_array_equal(fitted(colour, (height, width, 1)).values, grey.values)
    assert fitted(colour, (height, width, 1)).values.flags.writeable  # torch warns of others
    rainbow = some(n, height, width, 3)
    luma = fitted(Images(rainbow, None, "c"), (height, width, 1)).values[..., 0]
    assert np.abs(luma - rainbow @ [0.299, 0.587, 0.114]).max() <= 1


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: object, outputfile: object) -> None:
        with suppress(ConnectionError):  # who asked has had enough
            super().copyfile(source, outputfile)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that it is served at."""
    folder = tmp_path / "host"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def refused(*arguments: object) -> str:
    with pytest.raises(UsageError) as raised:
        download(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def serve(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, **files: bytes) -> None:
    """Files under their names in the data set, with their own sums for the published ones."""
    sums = {}
    for file_name, content in files.items():
        file(folder / file_name, content)
        sums[file_name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(datasets.SUMS, name, sums)


def test_a_wrong_sum_is_not_kept(host: tuple[Path, str], data: Path) -> None:
    folder, base = host
    file(folder / "train-images-idx3-ubyte.gz", gzip.compress(IDX))
    sentence = refused("mnist", data, base)
    assert sentence.startswith(f"{base}/train-images-idx3-ubyte.gz has the sha256 sum ")
    right = datasets.SUMS["mnist"]["train-images-idx3-ubyte.gz"]
    assert sentence.endswith(f", but {right} is right; it was not kept")
    assert left(data) == []


def test_mnist_is_fetched_once_and_again_when_it_is_broken(
    host: tuple[Path, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = host
    names = {"t10k-images-idx3-ubyte.gz": IDX, "t10k-labels-idx1-ubyte.gz": idx(np.arange(3, dtype=np.uint8))}
    serve(folder, monkeypatch, "mnist", **{name: gzip.compress(content) for name, content in names.items()})
    assert download("mnist:train", data, base + "/") == data / "mnist"
    assert left(data) == sorted(names)
    assert read_images(["mnist"]).values.shape == (3, 2, 2, 1)
    broken = data / "mnist/t10k-images-idx3-ubyte.gz"
    broken.write_bytes(b"broken")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()  # is not asked for again
    download("mnist", data, base)
    assert len(read_images(["mnist"])) == 3


@needs_data
def test_the_real_mnist_has_the_published_sums(host: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = host
    shutil.copytree(Path(os.environ["LMFUZZ_DATA"]) / "mnist", folder, dirs_exist_ok=True)
    assert left(download("mnist", tmp_path / "new", base)) == sorted(datasets.SUMS["mnist"])


def test_what_cannot_be_fetched_gets_a_sentence(host: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    _, base = host
    place = data / "mnist"
    rest = f"put its files into {place} yourself, or take digits"
    assert refused("mnist", data, base) == (
        f"cannot download mnist from {base} to {data}: HTTPError: HTTP Error 404: File not found; {rest}"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as closed:
        port = closed.server_port
    assert "URLError: <urlopen error [Errno 111] Connection refused>; " in refused(
        "cifar10", data, f"http://127.0.0.1:{port}"
    )
    assert f": ValueError: unknown url type: 'nowhere/train-images-idx3-ubyte.gz'; {rest}" in refused(
        "mnist", data, "nowhere"
    )
    assert "Not a directory" in refused("mnist", Path(file(tmp_path / "file", b"")), base)
    assert refused("digits", data, base) == "digits cannot be downloaded; mnist and cifar10 can"


def test_what_never_ends_is_not_fetched(
    host: tuple[Path, str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = host
    serve(folder, monkeypatch, "mnist", zeros=bytes(5_000_000))
    monkeypatch.setattr(datasets, "LARGEST", 1_000_000)
    assert "zeros has the sha256 sum " in refused("mnist", data, base)
    assert left(data) == []


BATCHES = ["test_batch.bin", *(f"data_batch_{i}.bin" for i in range(1, 6))]


def archive(members: dict[str, bytes | None]) -> bytes:
    """A .tar.gz; a member without content is a link to a file outside."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


def test_cifar10_is_unpacked_and_nothing_else(
    host: tuple[Path, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = host
    content = cifar(some(1, 32, 32, 3), [3])
    members = {f"cifar-10-batches-bin/{name}": content for name in BATCHES}
    outside = dict.fromkeys(("../escaped.bin", "/escaped.bin", "cifar-10-batches-bin/../x"), b"outside")
    odd = {"cifar-10-batches-bin/readme.html": b"no image", "cifar-10-batches-bin": None}
    serve(folder, monkeypatch, "cifar10", **{datasets.ARCHIVE: archive({**odd, **outside, **members})})
    place = download("cifar10", data, base)
    assert place == data / "cifar-10-batches-bin"
    assert left(tmp_path / "data") == sorted(BATCHES)
    assert not list(tmp_path.rglob("escaped*"))
    assert read_images(["cifar10", "cifar10:train"]).labels is not None
    assert len(read_images(["cifar10", "cifar10:train"])) == 6
    (folder / datasets.ARCHIVE).unlink()
    assert download("cifar10:train", data, base) == place  # all there, not asked for again


@pytest.mark.parametrize("content", [b"", b"no archive", archive({"a": bytes(99999)})[:-20]])
def test_archives_that_are_none_get_a_sentence(
    host: tuple[Path, str], data: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    folder, base = host
    serve(folder, monkeypatch, "cifar10", **{datasets.ARCHIVE: content})
    assert refused("cifar10", data, base).startswith(f"cannot download cifar10 from {base} to {data}: ")


def test_an_image_is_measured_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", 9000, 9000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(UsageError, match=r"bomb\.png is 9000x9000: an image has at most 16777216 pixels"):
        read_images([str(path)])
