"""MNIST and its relatives: IDX files, gzipped or not, in torchvision's folders or flat.

The format (LeCun): two zero bytes, a type (8 = uint8), the number of axes, each axis as a
big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from couette.config import DataConfig
from couette.data.arrays import Arrays, load_arrays
from couette.data.dataset import Progress, Splits, counted
from couette.data.download import Remote, fetch
from couette.errors import DataError
from couette.places import data_roots
from couette.registry import DATASETS

_UINT8 = 8
_DIGITS = tuple(str(digit) for digit in range(10))


class Kind(NamedTuple):
    """A published set of IDX files: torchvision's name for it, its classes, where it can be had."""

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    md5: dict[str, str]


_FILES = {
    ("train", "images"): ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    ("train", "labels"): ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    ("test", "images"): ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    ("test", "labels"): ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


def _md5(*digests: str) -> dict[str, str]:
    return {f"{names[0]}.gz": md5 for names, md5 in zip(_FILES.values(), digests, strict=True)}


KINDS = {
    "mnist": Kind(
        "MNIST",
        _DIGITS,
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        _md5(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion-mnist": Kind(
        "FashionMNIST",
        (
            *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        _md5(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "kmnist": Kind(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        _md5(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
}


def _places(name: str) -> list[Path]:
    """Where the IDX files of a named set may lie, the place for a download first."""
    folder = KINDS[name].folder
    inner = (f"{folder}/raw", folder, f"{name}/raw", name)
    return [root / each for root in data_roots() for each in inner]


def _found(name: str) -> Path | None:
    """The folder that the IDX files of a named set lie in."""
    return next((place for place in _places(name) if _has_images(place)), None)


@DATASETS.register("mnist", found=partial(_found, "mnist"))
def mnist(config: DataConfig, progress: Progress | None = None) -> Splits:
    """70,000 handwritten digits, 28×28 gray (LeCun, Cortes and Burges 1998)."""
    return _open_named("mnist", config, progress)


@DATASETS.register("fashion-mnist", found=partial(_found, "fashion-mnist"))
def fashion_mnist(config: DataConfig, progress: Progress | None = None) -> Splits:
    """70,000 pictures of clothes in ten classes, 28×28 gray (Xiao, Rasul and Vollgraf 2017)."""
    return _open_named("fashion-mnist", config, progress)


@DATASETS.register("kmnist", found=partial(_found, "kmnist"))
def kmnist(config: DataConfig, progress: Progress | None = None) -> Splits:
    """70,000 cursive Japanese characters in ten classes, 28×28 gray (Clanuwat et al. 2018)."""
    return _open_named("kmnist", config, progress)


def find_idx(folder: Path) -> Path | None:
    """The folder that holds IDX pictures: `folder`, its `raw`, or one in torchvision's layout.

    Raises:
        DataError: several do.
    """
    inner = [folder / kind.folder / "raw" for kind in KINDS.values()]
    found = [p for p in (folder, folder / "raw") if _has_images(p)][:1] or [
        p for p in inner if _has_images(p)
    ]
    if len(found) > 1:
        listed = " or ".join(f"'{path}'" for path in found)
        raise DataError(f"'{folder}' holds several data sets; give {listed}.")
    return found[0] if found else None


def open_idx(name: str, folder: Path, config: DataConfig) -> Splits:
    """Open the IDX files of a folder. `name` decides the names of the classes where it is known.

    Raises:
        DataError: a file that is damaged, or labels that don't fit the pictures.
    """
    budget = int(config.memory_gb * 1e9)
    train, test = _split(folder, "train", budget), _split(folder, "test", budget)
    notes = []
    if train is None:
        train, test = test, None
        notes.append("There are no training files: the t10k pictures are used instead.")
    if train is None:
        raise DataError(f"There are no IDX pictures in '{folder}'.")
    if train.labels is None:
        notes.append("There are no labels.")
    if test is not None and (test.labels is None) != (train.labels is None):
        notes.append("Only one of the splits has labels: they are not used.")
        train, test = train._replace(labels=None), test._replace(labels=None)
    return load_arrays(name, train, test, _classes(name, train, test), config, notes)


def read_idx(path: Path, axes: int, most: int) -> NDArray[np.uint8]:
    """Read an IDX file of uint8, gzipped or not.

    Args:
        path: the file; gzip is recognised by its content.
        axes: how many it must have.
        most: more bytes of values than this are refused before they are read.

    Returns:
        uint8 of the shape that the file states.

    Raises:
        DataError: another type or shape, shorter or longer than its header says, or damaged.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file
            return _parse(stream, path, axes, most)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"'{path}' is truncated or damaged; fetch it again.") from None
    except OSError as error:
        raise DataError(f"'{path}' can't be read: {error.strerror or error}.") from None


def _parse(stream: BinaryIO, path: Path, axes: int, most: int) -> NDArray[np.uint8]:
    head = stream.read(4)
    if len(head) < 4 or not any(head):
        state = "starts with zeros" if len(head) == 4 else "is cut off in its header"
        raise DataError(f"'{path}' {state}, so it is damaged; fetch it again.")
    if head[:2] != b"\0\0" or head[2] != _UINT8 or head[3] != axes:
        raise DataError(
            f"'{path}' is no IDX file of bytes with {counted(axes, 'axis', 'axes')}: "
            f"it starts with {head.hex(' ') or 'nothing'}."
        )
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise DataError(f"'{path}' is truncated; fetch it again.")
    shape = struct.unpack(f">{axes}I", sizes)
    count = math.prod(shape)
    if count > most:
        raise DataError(
            f"'{path}' holds {count / 1e9:.2g} GB, more than the {most / 1e9:.2g} GB of "
            "--data.memory-gb; raise it."
        )
    values = stream.read(count + 1)
    if len(values) != count:
        state = "shorter" if len(values) < count else "longer"
        raise DataError(f"'{path}' is {state} than its header says; fetch it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _open_named(name: str, config: DataConfig, progress: Progress | None) -> Splits:
    kind = KINDS[name]
    folder, first = _found(name), _places(name)[0]
    if config.download and folder in (None, first):
        folder = first
        for (split, what), names in _FILES.items():
            if _locate(folder, split, what) is None:  # a download may have been cut short
                file = f"{names[0]}.gz"
                urls = tuple(mirror + file for mirror in kind.mirrors)
                fetch(Remote(file, kind.md5[file], urls, most=1 << 26), folder, progress)
    if folder is None:
        looked = " and ".join(f"'{root}'" for root in data_roots())
        raise DataError(
            f"The data set '{name}' is not in {looked}; give the folder that holds its IDX files, "
            "or add --data.download to fetch it."
        )
    return open_idx(name, folder, config)


def _locate(folder: Path, split: str, what: str) -> Path | None:
    for name in _FILES[split, what]:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _has_images(folder: Path) -> bool:
    return any(_locate(folder, split, "images") for split in ("train", "test"))


def _split(folder: Path, split: str, most: int) -> Arrays | None:
    images = _locate(folder, split, "images")
    if images is None:
        return None
    pixels = read_idx(images, 3, most)[..., None]
    if not all(pixels.shape[1:3]):
        raise DataError(f"The pictures in '{images}' have no pixels.")
    found = _locate(folder, split, "labels")
    labels: NDArray[Any] | None = read_idx(found, 1, most) if found else None
    if labels is not None and len(labels) != len(pixels):
        raise DataError(
            f"'{found}' has {len(labels):,} labels for the {len(pixels):,} pictures of "
            f"'{images.name}'; give files that belong together."
        )
    return Arrays(pixels, labels)


def _classes(name: str, train: Arrays, test: Arrays | None) -> tuple[str, ...]:
    """The names of the labels: known ones for a known set, else the numbers."""
    labels = [part.labels for part in (train, test) if part is not None and part.labels is not None]
    top = max((int(part.max()) for part in labels if len(part)), default=-1)
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    for kind in KINDS.values():
        if plain == kind.folder.lower() and top < len(kind.classes):
            return kind.classes
    return tuple(str(number) for number in range(top + 1))
