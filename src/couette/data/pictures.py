"""From a list of picture files to data sets: screen, choose a size, decode, split.

Serves every source whose pictures are files: folders and Hugging Face data sets alike.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from couette.config import DataConfig
from couette.data import store
from couette.data.dataset import Dataset, Progress, Splits, counted, lone_classes, named, splits
from couette.data.decode import BadPicture, Header, probe
from couette.data.layout import Entry, Layout, natural
from couette.data.sizing import choose_look
from couette.data.splitting import hold_out, limited
from couette.data.store import Pixels
from couette.errors import DataError

_FORMAT = 1
_LEAST = 2
Record = dict[str, Any]


class _Loading:
    """One set on its way from files to pixels: the steps of `load_pictures`, and their notes."""

    def __init__(self, layout: Layout, config: DataConfig, progress: Progress | None) -> None:
        self.config, self.progress = config, progress
        self.notes = list(layout.notes)
        self.problems = list(layout.problems)
        train = self._limited(layout.train)
        test = self._limited(layout.test or [])
        self.given = len(train) + len(test) + len(self.problems)
        found = self._screened(train)
        self.training = len(found)
        found += self._screened(test)
        self.entries = [entry for entry, _ in found]
        if self.training < _LEAST:
            raise self._too_few(self.training)
        self.look, notes = choose_look([header for _, header in found], config)
        self.notes += notes

    def _limited(self, entries: list[Entry]) -> list[Entry]:
        rows = limited(len(entries), self.config.limit)
        if len(rows) < len(entries):
            self.notes.append(f"{len(rows):,} of {counted(len(entries), 'picture')} are used.")
        return [entries[row] for row in rows]

    def _screened(self, entries: list[Entry]) -> list[tuple[Entry, Header]]:
        headers = store.each(probe, [e.file for e in entries], "reading headers", self.progress)
        found = []
        for entry, header in zip(entries, headers, strict=True):
            if isinstance(header, BadPicture):
                self.problems.append(f"{entry.name} {header}")
            else:
                found.append((entry, header))
        return found

    def _too_few(self, left: int) -> DataError:
        left_out = f" ({named(self.problems)})" if self.problems else ""
        return DataError(
            f"Only {counted(left, 'picture')} can be used of {self.given:,}{left_out}; "
            f"give at least {_LEAST}."
        )

    def decode(self, pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64], Record]:
        """Fill `pixels`; give the rows to train on, the rows for evaluation, and their record."""
        files = [entry.file for entry in self.entries]
        faults, gray = store.decode_into(pixels, files, self.look, self.progress)
        self.problems += [f"{self.entries[row].name} {fault}" for row, fault in faults.items()]
        if gray and self.look.channels == 3 and self.config.color == "auto":
            self.look = self.look._replace(channels=1)
            self.notes.append("The files have colour channels but hold grays only: kept as gray.")
        train, test, classes = self._split(faults)
        if len(train) < _LEAST:
            raise self._too_few(len(train))
        if self.problems:
            out = f"{len(self.problems):,} of {counted(self.given, 'picture')} left out"
            self.notes.append(f"{out}: {named(self.problems)}.")
        record: Record = {"look": list(self.look[:3]), "classes": classes, "notes": self.notes}
        record["train"] = self._about(train, classes)
        record["test"] = self._about(test, classes) if len(test) else None
        return train, test, record

    def _split(
        self, faults: dict[int, str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
        good = np.array([r for r in range(len(self.entries)) if r not in faults], np.int64)
        train, test = good[good < self.training], good[good >= self.training]
        names = {self.entries[row].label for row in train}
        classes = sorted((name for name in names if name is not None), key=natural)
        test = np.array([r for r in test if self.entries[r].label in names], np.int64)
        labels = np.array(self._labels(train, classes), np.int64) if classes else None
        if labels is not None:
            self.notes += lone_classes(torch.from_numpy(labels), classes)
        if not len(test):
            kept, held = hold_out(len(train), labels, self.config.holdout)
            train, test = train[kept], train[held]
        return train, test, classes

    def _labels(self, rows: NDArray[np.int64], classes: Sequence[str]) -> list[int]:
        index: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
        return [index[self.entries[row].label] for row in rows]

    def _about(self, rows: NDArray[np.int64], classes: Sequence[str]) -> Record:
        entries = [self.entries[row] for row in rows]
        captioned = any(entry.text is not None for entry in self.entries)
        return {
            "count": len(entries),
            "labels": self._labels(rows, classes) if classes else None,
            "texts": [entry.text or "" for entry in entries] if captioned else None,
            "names": [entry.name for entry in entries],
        }


def load_pictures(
    name: str,
    layout: Layout,
    config: DataConfig,
    progress: Progress | None = None,
    identity: str = "",
) -> Splits:
    """Decode the pictures of a layout into data sets.

    Args:
        name: what the set is called.
        layout: the files, with their labels and captions.
        config: size, colour, holdout, limit and memory.
        progress: told how far the reading is.
        identity: for pictures that are not files, what tells one version of them from another.

    Raises:
        DataError: fewer than two pictures can be used.
        ConfigError: a resolution or background that makes no sense.
        StorageError: what does not fit in memory can't be kept on the disk either.
    """
    loading = _Loading(layout, config, progress)
    shape = (len(loading.entries), *loading.look[:3])
    size = int(np.prod(shape, dtype=np.int64))
    if size > config.memory_gb * 1e9:
        return _on_disk(name, loading, shape, size, identity)
    pixels: Pixels = np.empty(shape, np.uint8)
    train, test, record = loading.decode(pixels)
    channels = record["look"][2]
    held: Pixels = pixels[test][..., :channels].copy()
    kept = store.compact(pixels, train, channels)
    return _datasets(name, record, kept.copy() if kept.size < size / 2 else kept, held)


def _on_disk(
    name: str, loading: _Loading, shape: tuple[int, ...], size: int, identity: str
) -> Splits:
    key = _key(loading, identity)
    kept = _reopened(name, key)
    if kept is None:
        store.discard(key)  # a damaged one would stand in the way
        with store.new_store(key, 2 * size) as folder:
            _write(name, loading, shape, folder)
        kept = _reopened(name, key)
    if kept is None:
        raise DataError(f"The decoded pictures in '{store.stored(key)}' are damaged; delete them.")
    return kept


def _write(name: str, loading: _Loading, shape: tuple[int, ...], folder: Path) -> None:
    pixels = store.created(folder / "train", shape)
    train, test, record = loading.decode(pixels)
    height, width, channels = record["look"]
    if len(test):
        held: store.Pixels = store.created(folder / "test", (len(test), height, width, channels))
        for row, source in enumerate(test):
            held[row] = pixels[source][..., :channels]
    else:
        held = np.empty((0, height, width, channels), np.uint8)
    kept = store.compact(pixels, train, channels)
    made = _datasets(name, record, kept, held)
    record["train"]["fingerprint"] = made.train.fingerprint
    if made.test:
        record["test"]["fingerprint"] = made.test.fingerprint
    for array in (pixels, held):
        if isinstance(array, np.memmap):
            array.flush()
    os.truncate(folder / "train", kept.size)
    store.write_record(folder, record)


def _reopened(name: str, key: str) -> Splits | None:
    """The stored set of this key, or None where there is none, or a damaged one."""
    folder = store.stored(key)
    record = store.read_record(folder)
    if record is None:
        return None
    try:
        parts = [
            store.mapped(folder / split, ((record[split] or {}).get("count", 0), *record["look"]))
            if record[split]
            else np.empty((0, *record["look"]), np.uint8)
            for split in ("train", "test")
        ]
        record["notes"].append(
            f"The decoded pictures are in '{folder}', which can be deleted when no run uses them."
        )
        return _datasets(name, record, *parts)
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _datasets(name: str, record: Record, train: Pixels, test: Pixels) -> Splits:
    held = _dataset(name, record["classes"], record["test"], test) if record["test"] else None
    return splits(_dataset(name, record["classes"], record["train"], train), held, record["notes"])


def _dataset(name: str, classes: list[str], about: Record, pixels: Pixels) -> Dataset:
    return Dataset(
        name,
        store.as_tensor(pixels),
        labels=None if about["labels"] is None else torch.tensor(about["labels"]),
        classes=tuple(classes),
        texts=None if about["texts"] is None else tuple(about["texts"]),
        names=tuple(about["names"]),
        fingerprint=about.get("fingerprint", ""),
    )


def _key(loading: _Loading, identity: str) -> str:
    """What a stored set depends on: the files' names, sizes and times, and the settings."""
    config = loading.config
    parts: list[Any] = [_FORMAT, identity, loading.look, loading.training, loading.notes]
    parts += [config.color, config.holdout, config.limit]
    for entry in loading.entries:
        about: list[Any] = [entry.name, entry.label, entry.text]
        if isinstance(entry.file, Path):
            stat = entry.file.stat()
            about += [str(entry.file.resolve()), stat.st_size, stat.st_mtime_ns]
        parts.append(about)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
