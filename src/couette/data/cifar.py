"""CIFAR-10 in its binary version: records of one label byte and 3 × 32 × 32 pixel bytes."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from couette.config import DataConfig
from couette.data.arrays import Arrays, load_arrays
from couette.data.dataset import Progress, Splits
from couette.data.download import Remote, fetch
from couette.errors import DataError
from couette.places import data_roots
from couette.registry import DATASETS
from couette.storage import write_bytes

FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
NAMES = "batches.meta.txt"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    most=1 << 28,
)
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE
_MOST = 10_000 * _RECORD


def _places() -> list[Path]:
    """Where the .bin files may lie, the place for a download first."""
    return [root / inner for root in data_roots() for inner in (FOLDER, "cifar10")]


def _found() -> Path | None:
    """The folder that the .bin files lie in."""
    return next((found for place in _places() if (found := find_cifar(place))), None)


@DATASETS.register("cifar10", found=_found)
def cifar10(config: DataConfig, progress: Progress | None = None) -> Splits:
    """60,000 colour photographs in ten classes, 32×32 (Krizhevsky 2009)."""
    folder = _found()
    if folder is None and config.download:
        folder = _places()[0]
        extract(fetch(ARCHIVE, folder.parent, progress), folder)
    if folder is None:
        looked = " and ".join(f"'{root}'" for root in data_roots())
        raise DataError(
            f"The data set 'cifar10' is not in {looked}; give the folder that holds its .bin files "
            "(the binary version), or add --data.download to fetch it."
        )
    return open_cifar("cifar10", folder, config)


def find_cifar(folder: Path) -> Path | None:
    """The folder that holds CIFAR-10's .bin files: `folder` or the archive's folder in it."""
    return next((p for p in (folder, folder / FOLDER) if (p / TRAIN[0]).is_file()), None)


def open_cifar(name: str, folder: Path, config: DataConfig) -> Splits:
    """Open CIFAR-10's .bin files; missing batches are said.

    Raises:
        DataError: a file that is not whole records, or with a label above 9.
    """
    there = [batch for batch in TRAIN if (folder / batch).is_file()]
    parts = [_read(folder / batch) for batch in there]
    labels = [part.labels for part in parts if part.labels is not None]
    train = Arrays(np.concatenate([part.pixels for part in parts]), np.concatenate(labels))
    test = _read(folder / TEST) if (folder / TEST).is_file() else None
    missing = [batch for batch in TRAIN if batch not in there]
    notes = [f"Missing: {', '.join(missing)}."] if missing else []
    return load_arrays(name, train, test, _names(folder), config, notes)


def extract(archive: Path, folder: Path) -> None:
    """Write the files of CIFAR-10 that `archive` holds to `folder`; all else in it is ignored.

    Raises:
        DataError: the archive is damaged, or lacks one of the files.
        StorageError: the disk refuses a file.
    """
    wanted = {*TRAIN, TEST, NAMES}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in wanted and member.isreg() and member.size <= _MOST:
                    write_bytes(folder / name, _content(tar.extractfile(member)))
                    wanted.discard(name)
    except (tarfile.TarError, EOFError, zlib.error):
        raise DataError(f"'{archive}' is damaged; delete it and fetch it again.") from None
    if wanted - {NAMES}:
        raise DataError(f"'{archive}' lacks {', '.join(sorted(wanted))}; fetch it again.")


def _content(member: IO[bytes] | None) -> bytes:
    return member.read() if member else b""


def _read(path: Path) -> Arrays:
    try:
        size = path.stat().st_size
        raw = np.fromfile(path, np.uint8) if size <= _MOST else None
    except OSError as error:
        raise DataError(f"'{path}' can't be read: {error.strerror}.") from None
    if raw is None or not len(raw) or len(raw) % _RECORD:
        raise DataError(
            f"'{path}' has {size:,} bytes, which is not 1 to 10,000 records of {_RECORD:,}; "
            "fetch it again."
        )
    records = raw.reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise DataError(f"'{path}' has the label {labels.max()}; labels go from 0 to 9.")
    planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    return Arrays(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _names(folder: Path) -> tuple[str, ...]:
    """The classes as the folder names them, or as they are known."""
    try:
        lines = (folder / NAMES).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        return CLASSES
    return tuple(lines) if len(set(lines)) == len(CLASSES) == len(lines) else CLASSES
