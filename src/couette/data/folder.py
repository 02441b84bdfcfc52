"""Any folder of pictures as a data set."""

from __future__ import annotations

from pathlib import Path

from couette.config import DataConfig
from couette.data.dataset import Progress, Splits, shown
from couette.data.layout import read_layout
from couette.data.pictures import load_pictures


def open_folder(path: Path, config: DataConfig, progress: Progress | None = None) -> Splits:
    """Open a folder of pictures: flat, a class per folder, or `train`/`test` above either.

    A `metadata.jsonl` (lines of `file_name`, `text`, `label`) or `.txt` files of the pictures'
    names give captions and labels. What can't be used is left out, counted and named.

    Raises:
        DataError: no pictures, or fewer than two that can be used.
        ConfigError: a resolution or background that makes no sense.
        StorageError: too many pictures for memory, and no room on the disk.
    """
    return load_pictures(shown(path.resolve().name), read_layout(path), config, progress)
