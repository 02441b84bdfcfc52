"""Decoded pictures: in memory where they fit, else in a file that is mapped and used again.

A stored set is a folder with the raw bytes of each split and a JSON record; it is written under a
temporary name and renamed, so a folder that is there is whole. It can be deleted at any time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from couette.data.dataset import Progress
from couette.data.decode import BadPicture, File, Look, decode, strict_pillow
from couette.errors import StorageError
from couette.places import cache_dir

Pixels = NDArray[np.uint8]
T = TypeVar("T")
A = TypeVar("A")

_BATCH = 1024
_ROWS = 4096
RECORD = "record.json"


def each(
    work: Callable[[A], T], items: Sequence[A], what: str, progress: Progress | None
) -> Iterator[T | BadPicture]:
    """`work` on every item, by threads, in order; a `BadPicture` is given in place of a result."""

    def tried(item: A) -> T | BadPicture:
        try:
            return work(item)
        except BadPicture as problem:
            return problem

    # Pillow releases the interpreter while it decodes. Batches keep Ctrl-C prompt.
    with strict_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), _BATCH):
            yield from pool.map(tried, items[start : start + _BATCH])
            if progress:
                progress(what, min(start + _BATCH, len(items)), len(items))


def decode_into(
    out: Pixels, files: Sequence[File], look: Look, progress: Progress | None
) -> tuple[dict[int, str], bool]:
    """Decode `files` into the rows of `out` (N, H, W, C).

    Returns:
        what is wrong with each row that could not be decoded, and whether every picture is gray.
    """
    faults: dict[int, str] = {}
    gray = True
    pixels = each(lambda file: decode(file, look), files, "decoding", progress)
    for row, picture in enumerate(pixels):
        if isinstance(picture, BadPicture):
            faults[row] = str(picture)
            continue
        out[row] = picture
        gray = gray and bool((picture == picture[..., :1]).all())
    return faults, gray


def compact(store: Pixels, rows: NDArray[np.int64], channels: int) -> Pixels:
    """Move `rows` (rising) of `store` to its front, in place, with their first `channels` only."""
    height, width = store.shape[1:3]
    flat = store.reshape(-1)
    size = height * width * channels
    for start in range(0, len(rows), _ROWS):
        part = store[rows[start : start + _ROWS]][..., :channels].reshape(-1)
        flat[start * size : start * size + part.size] = part
    return flat[: len(rows) * size].reshape(-1, height, width, channels)


def stored(key: str) -> Path:
    """The folder in which the set of this key is kept, whether or not it is there."""
    return cache_dir() / "decoded" / key


@contextmanager
def new_store(key: str, needed: int, what: str = "decoded pictures") -> Iterator[Path]:
    """A temporary folder that becomes `stored(key)` when the block ends well; `what` it holds.

    Raises:
        StorageError: the disk has no room for `needed` bytes, is read-only, or fails.
    """
    final = stored(key)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(final.parent).free
        temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{key[:12]}."))
    except OSError as error:
        raise _refused(final, error, what) from error
    try:
        if free < needed:
            raise StorageError(
                f"The {what} need {needed / 1e9:.1f} GB in '{final.parent}', which has "
                f"{free / 1e9:.1f} GB free; free some space, set COUETTE_CACHE to another disk, or "
                "use a smaller --data.resolution or --data.limit."
            )
        yield temporary
        _rename(temporary, final)
    except OSError as error:
        raise _refused(final, error, what) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(key: str) -> None:
    """Delete what is kept under this key, if anything is."""
    shutil.rmtree(stored(key), ignore_errors=True)


def mapped(path: Path, shape: tuple[int, ...]) -> Pixels:
    """The raw bytes of a file as a read-only array that stays on disk.

    Raises:
        ValueError: the file has another size.
    """
    if path.stat().st_size != math.prod(shape):
        raise ValueError(f"{path} does not hold {shape}")
    return np.memmap(path, np.uint8, "r", shape=shape)


def created(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new file of raw bytes as a writable array; its room on the disk is taken at once."""
    size = math.prod(shape)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, a bus error later
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, np.uint8, "r+", shape=shape)


def as_tensor(pixels: Pixels) -> Tensor:
    """The array as a tensor without a copy; one from `mapped` must never be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of read-only arrays
        return torch.from_numpy(pixels)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write what belongs to the pixels beside them."""
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `write_record` wrote, or None where it is missing or damaged."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _rename(temporary: Path, final: Path) -> None:
    """Put a finished folder in its place; one that another process finished first stays."""
    try:
        temporary.rename(final)
    except OSError:
        if read_record(final) is None:
            raise


def _refused(path: Path, error: OSError, what: str) -> StorageError:
    return StorageError(
        f"The {what} can't be kept in '{path.parent}': {error.strerror or error}. Set "
        "COUETTE_CACHE to a folder with room, or raise --data.memory-gb to hold them in memory."
    )
